"""Measure reconciling a ledger with a table's log: the first pass, and a second pass without new commits.

    python benchmarks/reconcile.py [--commits N] [--rounds N]

The table has a real first commit and a real append. Further commits are written into the log directly, as
copies of the append with a distinct id, file name and time: ten thousand real ones would take minutes, and
a reconcile reads only the log. Each round runs in a new process, pinned to one core, with no ledger yet.
The engine is loaded before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

COMMITS = 10_000
ROUNDS = 3


@dataclass(frozen=True)
class Bar:
    """The limit of a case, in seconds."""

    case: str
    text: str
    limit: float


BARS = [
    Bar("first", "first pass, plan and apply, s", 10.0),
    Bar("again", "second pass over nothing new, plan and apply, s", 0.5),
]
OTHERS = {
    "tail": "pass over one new commit",
    "full": "full pass, every row compared",
}


# --- the table -----------------------------------------------------------------------------------------


def lay_table(place: Path, commits: int) -> None:
    """Create a table with that many commits, as a writer process would."""
    import pyarrow as pa
    from deltalake import write_deltalake

    from deltawitness import DeltaLakeInstrumentor, Settings

    DeltaLakeInstrumentor().instrument(settings=Settings(ledger=False))
    rows = pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})
    write_deltalake(place, rows)
    write_deltalake(place, rows, mode="append")
    DeltaLakeInstrumentor().uninstrument()
    log = place / "_delta_log"
    lines = [json.loads(line) for line in (log / f"{1:020d}.json").read_text().splitlines()]
    for number in range(2, commits):
        content = "\n".join(map(json.dumps, copied(lines, number)))
        (log / f"{number:020d}.json").write_text(content + "\n")


def copied(lines: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Return the actions of the append with a new id, time and file name."""
    info = dict(next(line["commitInfo"] for line in lines if "commitInfo" in line))
    add = dict(next(line["add"] for line in lines if "add" in line))
    write_id = f"00000000-0000-7000-8000-{number:012d}"
    mirrored = json.loads(info["userMetadata"])
    info |= {
        "write_id": write_id,
        "timestamp": info["timestamp"] + number,
        "userMetadata": json.dumps(mirrored | {"write_id": write_id}),
    }
    add["path"] = f"part-{number:05d}.parquet"
    return [{"commitInfo": info}, {"add": add}]


def lay_in_process(place: Path, commits: int) -> None:
    lay_table(place, commits)
    os._exit(0)


# --- a round -------------------------------------------------------------------------------------------


def measure(place: Path, root: Path, pipe: Connection) -> None:
    """Measure a round, in seconds."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import deltalake
    import pyarrow.json

    from deltawitness import Ledger

    ledger = Ledger(root)
    ledger.reconcile([])
    figures = {}

    def timed(case: str, **options: Any) -> int:
        started = time.perf_counter()
        applied = ledger.reconcile([place], **options).apply()
        figures[case] = time.perf_counter() - started
        return applied

    rows = timed("first")
    assert timed("again") == 0
    last = max((place / "_delta_log").glob("*.json"))
    one_more = last.with_name(f"{rows:020d}.json")
    lines = [json.loads(line) for line in last.read_text().splitlines()]
    one_more.write_text("\n".join(map(json.dumps, copied(lines, rows))) + "\n")
    assert timed("tail") == 1
    one_more.unlink()
    assert deltalake
    assert pyarrow.json
    timed("full", full=True)
    pipe.send((rows, figures))
    os._exit(0)


def in_a_new_process(target: Any, *arguments: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{target.__name__} ended with {process.exitcode}")


def rounds_of(place: Path, folder: Path, rounds: int) -> list[dict[str, float]]:
    taken = []
    for number in range(rounds):
        ours, theirs = multiprocessing.Pipe()
        in_a_new_process(measure, place, folder / f"cache-{number}", theirs)
        rows, figures = ours.recv()
        print(f"round {number + 1}: {rows:,} rows", file=sys.stderr)
        taken.append(figures)
    return taken


# --- figures -------------------------------------------------------------------------------------------


def barred(bar: Bar, seen: float) -> str:
    return f"| {bar.text} | {bar.limit} | {seen:.3f}{'' if seen <= bar.limit else ', missed'} |"


def machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "cpus": "1 of " + str(os.cpu_count()),
        **{name: version(name) for name in ("datafusion", "deltalake", "deltawitness")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=COMMITS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_a_new_process(lay_in_process, folder / "t", arguments.commits)
        taken = rounds_of(folder / "t", folder, arguments.rounds)
    middle = {case: statistics.median(each[case] for each in taken) for case in taken[0]}
    print(f"| case, {arguments.commits:,} commits | median | least | most |\n|---|---|---|---|")
    for case, text in {**{bar.case: bar.text for bar in BARS}, **OTHERS}.items():
        figures = [each[case] for each in taken]
        print(f"| {text} | {middle[case]:.3f} s | {min(figures):.3f} s | {max(figures):.3f} s |")
    print("\n| bar | limit | seen |\n|---|---|---|")
    print(*(barred(bar, middle[bar.case]) for bar in BARS), sep="\n")
    print(f"\n{machine()}")


if __name__ == "__main__":
    sys.exit(main())
