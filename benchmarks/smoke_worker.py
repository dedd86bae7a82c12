"""The process of one case of `benchmarks/smoke.py`: the sources that it measures are those of PYTHONPATH.

Standard input: the work as JSON, then `count` or `time` per line. Each response is a line of JSON. `count`
returns exact figures of one call: Python instructions and calls of C functions on the calling thread, and
bytes of its commit. `time` returns nanoseconds: `ns`, the CPU time of the calling thread outside of the engine;
`cpu`, that of all threads; and `wall`.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

REOPEN_EVERY = 20
"""Calls after which a table is replaced by a new one, to limit the length of its log."""

TRACED_CALLS = 6
"""Calls of which the smallest count is taken: a delivery that runs during one adds to it."""

UNOBSERVED = frozenset({"bare", "bare again", "commit keys", "hand-written", "minimum"})
"""Variants without deltawitness."""

SETTLE = 0.05
"""Seconds between two traced calls, in which the call before is delivered."""


class Engine:
    """Measures the time that the calling thread spends in delta-rs's own write, to leave it out."""

    def __init__(self) -> None:
        self.spent = 0

    def patch(self) -> None:
        """Wrap the engine's write, before the library does."""
        from deltalake._internal import RawDeltaTable

        original = RawDeltaTable.write

        @functools.wraps(original)
        def write(table: Any, *args: Any, **kwargs: Any) -> Any:
            started = time.thread_time_ns()
            try:
                return original(table, *args, **kwargs)
            finally:
                self.spent += time.thread_time_ns() - started

        write.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]  # for the patches
        RawDeltaTable.write = write  # type: ignore[method-assign]  # what this class is for


def bench_worker() -> Any:
    """Return `deltawitness.bench.worker` of the present sources, whichever sources are measured."""
    file = Path(__file__).parents[1] / "src/deltawitness/bench/worker.py"
    spec = importlib.util.spec_from_file_location("present_bench_worker", file)
    if spec is None or spec.loader is None:
        raise ImportError(str(file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Writes:
    """Appends 10 rows to a table, by one of the variants of `deltawitness bench`.

    Args:
        variant: the variant; `ledger` is `all signals` with a ledger.
        place: an empty folder.
        by_uri: whether the table is given by its path.
    """

    def __init__(self, variant: str, place: Path, *, by_uri: bool) -> None:
        module = bench_worker()
        self._place, self._by_uri = place, by_uri
        self._number = self._calls = 0
        self._data = module.rows(10)
        if variant == "ledger":
            self._write = self._with_ledger(module)
        else:
            self._write = module.VARIANTS[variant]()
        self._table: Any = None

    def _with_ledger(self, module: Any) -> Any:
        from deltalake import write_deltalake

        from deltawitness import DeltaLakeInstrumentor, Settings

        DeltaLakeInstrumentor().instrument(
            settings=Settings(
                cache_root=str(self._place / "root"), drain_interval=3600, drain_events=10_000_000
            ),
            **module.sdk(),
        )
        return write_deltalake

    def __call__(self) -> None:
        self._write(self._table, self._data, mode="append")

    def prepare(self) -> None:
        """Replace the table where its log is too long."""
        if self._calls % REOPEN_EVERY == 0:
            from deltalake import DeltaTable, write_deltalake

            self._number += 1
            uri = str(self._place / str(self._number))
            write_deltalake(uri, self._data)
            self._table = uri if self._by_uri else DeltaTable(uri)
            self()
        self._calls += 1

    def bytes(self) -> int:
        """Return the bytes of the last commit."""
        return max((self._place / str(self._number) / "_delta_log").glob("*.json")).stat().st_size


class Query:
    """Runs `SELECT 1` in an observed session."""

    def __init__(self) -> None:
        from deltawitness import DeltaLakeInstrumentor, ObservedSessionContext

        DeltaLakeInstrumentor().instrument(**bench_worker().sdk())
        self._session = ObservedSessionContext()

    def __call__(self) -> None:
        self._session.sql("SELECT 1").collect()

    def prepare(self) -> None:
        """Nothing to prepare."""

    def bytes(self) -> int:
        """Return 0: a query writes nothing."""
        return 0


class Counter:
    """Counts the Python instructions and the calls of C functions of one call, on its thread."""

    def __init__(self) -> None:
        self.instructions = 0
        self.calls = 0

    def run(self, act: Callable[[], object]) -> None:
        """Call `act` and count."""
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        try:
            act()
        finally:
            sys.settrace(None)
            sys.setprofile(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.instructions += event == "opcode"
        return self._trace

    def _profile(self, _frame: FrameType, event: str, _: object) -> None:
        self.calls += event == "c_call"


def counted(act: Writes | Query) -> dict[str, int]:
    """Return the exact figures of one call."""
    counters = []
    for _ in range(TRACED_CALLS):
        act.prepare()
        time.sleep(SETTLE)
        counter = Counter()
        counter.run(act)
        counters.append(counter)
    return {
        "instructions": min(counter.instructions for counter in counters),
        "calls of C functions": min(counter.calls for counter in counters),
        "bytes of the commit": act.bytes(),
    }


def check_sources(sources: str) -> None:
    """Check that the library is that of a folder.

    Raises:
        RuntimeError: it is another one.
    """
    import deltawitness

    if not str(deltawitness.__file__).startswith(sources):
        msg = f"measured {deltawitness.__file__}, not {sources}"
        raise RuntimeError(msg)


def served(requests: Iterator[str]) -> Iterator[dict[str, int]]:
    work = json.loads(next(requests))
    engine = Engine()
    engine.patch()
    if work["variant"] not in UNOBSERVED:
        check_sources(work["sources"])
    place = Path(work["place"])
    place.mkdir(parents=True)
    variant, by_uri = work["variant"], work["by"] == "uri"
    act = Query() if variant == "query" else Writes(variant, place, by_uri=by_uri)
    for request in requests:
        if request.strip() == "count":
            yield counted(act)
            continue
        act.prepare()
        engine.spent = 0
        wall, cpu, started = time.perf_counter_ns(), time.process_time_ns(), time.thread_time_ns()
        act()
        ended = time.thread_time_ns()
        yield {
            "ns": ended - started - engine.spent,
            "cpu": time.process_time_ns() - cpu,
            "wall": time.perf_counter_ns() - wall,
        }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        for answer in served(iter(sys.stdin)):
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    except Exception as error:  # noqa: BLE001 - the requesting process reports it
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        answers.flush()
    finally:
        os._exit(0)  # telemetry of a benchmark is not exported


if __name__ == "__main__":
    main()
