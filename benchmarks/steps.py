"""Measure how long each step of observing a write takes, with the cold caches of a program that does other work.

    python benchmarks/steps.py [--rounds N] [--variant NAME] [--ledger]

Before each write, the process sleeps and changes 8 MB of memory, so that the code and the data of the library are
no longer in the caches of the processor. The times are medians in microseconds on the thread of the write. Each step
contains the time of reading the clock, about a microsecond, and the steps inside it are listed separately.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from deltawitness.bench.measure import machine
from deltawitness.bench.worker import VARIANTS, rows

OBSERVER = "deltawitness.observe.observer", "Observer"
CALLS = "deltawitness.observe.call_observer", None
STEPS = [
    (*OBSERVER, "open"),
    (*CALLS, "new_id"),
    (*CALLS, "parent_context"),
    (*CALLS, "call_site_of_program"),
    (*OBSERVER, "properties"),
    ("deltawitness.commit.metadata", "Stamp", "apply"),
    (*OBSERVER, "enter"),
    (*OBSERVER, "finish"),
    (*CALLS, "record_commit"),
    ("deltawitness.observe.call_result", None, "read_commit"),
    (*OBSERVER, "_hand_over"),
    ("deltawitness.observe.ledger_sink", "LedgerSink", "append_provisional"),
    (*CALLS, "record_receipt"),
    (*OBSERVER, "_submit"),
]
"""The measured functions: module, class, and name."""

WARM_UP = 20
PAUSE_S = 0.004
REOPEN_EVERY = 40
"""Number of writes after which a new table is written, to limit the length of its log."""


class Clock:
    """Measures the time of each step without that of the steps inside it."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = defaultdict(int)
        self._open: list[str] = []
        self._since = 0

    def enter(self, name: str) -> None:
        """Start a step; the step around it pauses."""
        now = time.perf_counter_ns()
        if self._open:
            self.spent[self._open[-1]] += now - self._since
        self._open.append(name)
        self._since = time.perf_counter_ns()

    def leave(self) -> None:
        """End the innermost step; the step around it continues."""
        now = time.perf_counter_ns()
        self.spent[self._open.pop()] += now - self._since
        self._since = time.perf_counter_ns()

    def wrap(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time measured under the name."""

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.enter(name)
            try:
                return original(*args, **kwargs)
            finally:
                self.leave()

        return timed


def instrument(clock: Clock) -> list[str]:
    """Measure each step, and return the names in the order of the table."""
    names = []
    for module, owner, name in STEPS:
        found: Any = importlib.import_module(module)
        if owner is not None:
            found = getattr(found, owner)
        setattr(found, name, clock.wrap(name, getattr(found, name)))
        names.append(name)
    return names


def measure(rounds: int, write: Callable[..., object], clock: Clock) -> dict[str, list[int]]:
    """Return the nanoseconds of each step in each round."""
    from deltalake import DeltaTable, write_deltalake

    data, memory = rows(10), bytearray(8 << 20)
    times: dict[str, list[int]] = defaultdict(list)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for number in range(rounds + WARM_UP):
            if number % REOPEN_EVERY == 0:
                place = f"{folder}/{number}"
                write_deltalake(place, data)
                table = DeltaTable(place)
                write(table, data, mode="append")
            time.sleep(PAUSE_S)
            for at in range(0, len(memory), 64):
                memory[at] = number & 0xFF
            clock.spent.clear()
            clock.enter("the engine, and the Python code of deltalake")
            write(table, data, mode="append")
            clock.leave()
            if number >= WARM_UP:
                for name, spent in clock.spent.items():
                    times[name].append(spent)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help="measured writes")
    parser.add_argument("--variant", choices=("no SDK", "all signals"), default="all signals")
    parser.add_argument("--ledger", action="store_true", help="with a ledger")
    arguments = parser.parse_args()
    clock = Clock()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        if arguments.ledger:
            os.environ.update(DELTAWITNESS_LEDGER="true", DELTAWITNESS_ROOT=root)
        write = VARIANTS[arguments.variant]()
        names = instrument(clock)
        times = measure(arguments.rounds, write, clock)
    whole = next(name for name in times if name not in names)
    print("| step | us |\n|---|---|")
    total = 0.0
    for name in names:
        if name in times:
            median = statistics.median(times[name]) / 1e3
            total += median
            print(f"| `{name}` | {median:.1f} |")
    print(f"| all of these | {total:.1f} |")
    print(f"| {whole} | {statistics.median(times[whole]) / 1e3:.0f} |")
    print(f"\n{machine()}")
    sys.stdout.flush()
    os._exit(0)  # the telemetry of a benchmark is not exported


if __name__ == "__main__":
    main()
