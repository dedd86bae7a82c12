"""Measure the cost of a ledger for the caller, the drain and the reader, with an A/A control and limits.

    python benchmarks/ledger.py [--rounds N] [--case NAME]

Writes are measured in a process per variant. The processes run at the same time and alternate after each
write, in random order, so that other load on the machine affects all variants equally. Records, drains
and queries are each measured in a new process, alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

Write = Callable[[Any, pa.Table], None]

TEN = pa.table({"id": list(range(10)), "name": [f"row {i}" for i in range(10)]})
LOG = 10
"""Commits in the log of the written table."""

REOPEN_EVERY = 20
"""Writes after which the table is replaced by a copy of the original, to limit the length of its log."""

WARM_UP_ROUNDS = 5
"""Number of rounds at the start that are not measured."""


def seen(text: str, limit: float, figure: float, unit: str, *, at_least: bool = False) -> None:
    is_good = figure >= limit if at_least else figure <= limit
    sign, end = ">=" if at_least else "<=", f" {unit}".rstrip()
    print(f"| {text} | {sign} {limit:g}{end} | {figure:.3f}{end}{'' if is_good else ', missed'} |")


# --- writes: what each variant's process calls --------------------------------------------------------


def instrumented(**settings: Any) -> Write:
    """Instrument with batching processors for spans, metrics and logs, and exporters that discard them."""
    from deltalake import write_deltalake
    from overhead import sdk

    from deltawitness import DeltaLakeInstrumentor, Settings

    DeltaLakeInstrumentor().instrument(settings=Settings(**settings), **sdk())
    return lambda table, data: write_deltalake(table, data, mode="append")


def without(_: Path) -> Write:
    return instrumented()


def with_ledger(folder: Path) -> Write:
    return instrumented(cache_root=str(folder / "ledger"))


def hand_written(folder: Path, *, by_handle: bool) -> Write:
    """Return a write with a hand-written ledger: append a row to a Delta table after each write."""
    from deltalake import DeltaTable, write_deltalake

    from deltawitness.run import suppressed

    write, place = instrumented(), folder / "by-hand"

    def row(data: pa.Table) -> pa.Table:
        row = {
            "event_time": time.time_ns() // 1000,
            "run_id": "01a20cc8-b26f-75e7-8455-af381e0c1c48",
            "table": "t",
            "operation": "WRITE",
            "rows": data.num_rows,
        }
        return pa.Table.from_pylist([row])

    with suppressed():
        write_deltalake(place, row(TEN))
    ledger: Any = DeltaTable(place) if by_handle else place

    def both(table: Any, data: pa.Table) -> None:
        write(table, data)
        with suppressed():
            write_deltalake(ledger, row(data), mode="append")

    return both


VARIANTS: dict[str, Callable[[Path], Write]] = {
    "without": without,
    "without again": without,
    "with ledger": with_ledger,
    "an append per write, by handle": lambda folder: hand_written(folder, by_handle=True),
    "an append per write, by URI": lambda folder: hand_written(folder, by_handle=False),
}


def work(variant: str, original: Path, folder: Path, writes: int, pipe: Connection) -> None:
    """Run the process of a variant: write once per request, and send the microseconds."""
    from deltalake import DeltaTable

    folder.mkdir()
    write, table, count = VARIANTS[variant](folder), None, 0
    place = folder / "table"
    while pipe.recv():
        if count % max(1, REOPEN_EVERY // writes) == 0:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(original, place)
            table = DeltaTable(place)
            write(table, TEN)
        count += 1
        started = time.perf_counter_ns()
        for _ in range(writes):
            write(table, TEN)
        pipe.send((time.perf_counter_ns() - started) / 1e3)
    pipe.close()
    os._exit(0)


def measure_writes(
    variants: list[str], rounds: int, writes: int, folder: Path
) -> dict[str, list[float]]:
    """Run the variants interleaved, and return the microseconds of each round by variant."""
    from deltalake import DeltaTable, write_deltalake

    original = folder / "original"
    write_deltalake(original, TEN)
    handle = DeltaTable(original)
    for _ in range(LOG - 1):
        write_deltalake(handle, TEN, mode="append")
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for number, variant in enumerate(variants):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=work, args=(variant, original, folder / str(number), writes, theirs)
        )
        process.start()
        processes.append(process)
        pipes[variant] = ours
    taken: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(rounds + WARM_UP_ROUNDS):
        for variant in random.sample(variants, len(variants)):
            pipes[variant].send(True)  # noqa: FBT003 - "go on"
            microseconds = pipes[variant].recv()
            if number >= WARM_UP_ROUNDS:
                taken[variant].append(microseconds)
    for pipe in pipes.values():
        pipe.send(False)  # noqa: FBT003 - "that was all"
    for process in processes:
        process.join()
    return taken


def writes(rounds: int, each: int, folder: Path) -> None:
    """Compare a write with a ledger to one without, and to the hand-written ledgers."""
    # A series of writes includes drains; the hand-written variants would only make it slow.
    variants = list(VARIANTS) if each == 1 else list(VARIANTS)[:3]
    taken = measure_writes(variants, rounds, each, folder)
    base = taken["without"]
    added: dict[str, float] = {}
    print(
        "\n| 10 rows, append, handle, log 10 | median | added | ratio of medians | median of ratios |"
    )
    print("|---|---|---|---|---|")
    for variant, figures in taken.items():
        pairs = list(zip(figures, base, strict=True))
        added[variant] = (statistics.median(figures) - statistics.median(base)) / each
        ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        print(
            f"| {variant} | {statistics.median(figures) / each:.0f} us | {added[variant]:+.0f} us "
            f"| {statistics.median(figures) / statistics.median(base):.3f} | {ratio:.3f} |"
        )
    print("\n| bar | limit | seen |\n|---|---|---|")
    ratio = statistics.median(taken["with ledger"]) / statistics.median(base)
    seen("write with ledger over without", 1.05, ratio, "")
    for variant in variants[3:]:
        # Limit the noise: recording cannot take less time around a write than it takes alone.
        times = added[variant] / max(added["with ledger"], LEAST_US)
        seen(f"cheaper than {variant}", 10, times, "times", at_least=True)


LEAST_US = 30.0


# --- notes: on the caller's thread ------------------------------------------------------------------


def notes(rounds: int, _: int, folder: Path) -> None:
    """Measure recording on the caller's thread, in a hot loop and right after real writes."""
    from deltalake import DeltaTable, write_deltalake

    from deltawitness import DeltaLakeInstrumentor, Settings, run
    from deltawitness.observe import current_observer

    DeltaLakeInstrumentor().instrument(
        settings=Settings(
            cache_root=str(folder / "ledger"), drain_interval=3600, drain_events=10_000_000
        )
    )
    observer = current_observer()
    assert observer is not None
    recording: Any = observer._recording  # noqa: SLF001 - what is measured
    recorded: list[Any] = []
    cold: list[float] = []

    class Timed:
        def __getattr__(self, name: str) -> Any:
            return getattr(recording, name)

        def append_provisional(self, in_flight: Any) -> None:
            started = time.perf_counter_ns()
            recording.append_provisional(in_flight)
            cold.append((time.perf_counter_ns() - started) / 1e3)
            recorded.append(in_flight)

    observer._recording = Timed()  # noqa: SLF001 - as above
    write_deltalake(folder / "t", TEN)
    with run("bench"):
        table = DeltaTable(folder / "t")
        for _ in range(max(200, rounds)):
            write_deltalake(table, TEN, mode="append")
    hot = [_per_note(recording, recorded) for _ in range(40)]
    print("\n| a note on the caller's thread | median | 95 % |\n|---|---|---|")
    for text, figures in (("hot loop", hot), ("right after a real write", cold)):
        print(
            f"| {text} | {statistics.median(figures):.1f} us | {statistics.quantiles(figures, n=20)[-1]:.1f} us |"
        )
    print("\n| bar | limit | seen |\n|---|---|---|")
    seen("recording per event, hot loop", 30, statistics.median(hot), "us")
    seen("recording per event, right after a real write", 30, statistics.median(cold), "us")
    syncs = synced(folder)
    if syncs is not None:
        seen("calls of fsync and similar in 1,000 notes", 0, syncs, "calls")
    os._exit(0)


def _per_note(recording: Any, observations: list[Any]) -> float:
    started = time.perf_counter_ns()
    for in_flight in observations:
        recording.append_provisional(in_flight)
    return (time.perf_counter_ns() - started) / 1e3 / len(observations)


SYNCS = "fsync,fdatasync,sync,syncfs,sync_file_range,msync"


def synced(folder: Path) -> int | None:
    """Return the number of sync calls of a process that only records; None without strace."""
    if shutil.which("strace") is None:
        return None
    trace = folder / "strace"
    program = [sys.executable, __file__, "--only-notes", str(folder / "traced")]
    subprocess.run(["strace", "-f", "-e", f"trace={SYNCS}", "-o", trace, *program], check=True)  # noqa: S603, S607 - our own program
    return sum(
        "sync(" in line or "sync_file_range(" in line for line in trace.read_text().splitlines()
    )


def only_notes(folder: Path) -> None:
    """Write a thousand records, and nothing else."""
    from deltawitness import Settings
    from deltawitness.ledger.drain.recorder import Recorder
    from deltawitness.run import RunContext

    recorder = Recorder(Settings(cache_root=str(folder), drain_interval=3600))
    context = RunContext("r", "bench")
    for number in range(1000):
        recorder.record_provisional(str(number), context, "{}")
    os._exit(0)


# --- drains -------------------------------------------------------------------------------------------


def operations(count: int, runs: int, start_us: int, step_us: int) -> Iterator[dict[str, Any]]:
    """Yield rows as many jobs write them."""
    from deltawitness.ids_and_clock import new_id

    clock = start_us
    for number in range(count):
        clock = start_us + number * step_us
        if number % max(1, count // runs) == 0:
            run_id = new_id()
        yield {
            "event_time": clock,
            "run_id": run_id,
            "write_id": new_id(),
            "trace_id": f"{random.getrandbits(128):032x}",
            "span_id": f"{random.getrandbits(64):016x}",
            "job": f"job-{number % 20}",
            "operation": "WRITE",
            "cache_operation": "write",
            "scope": "dataset",
            "policy": "nightly",
            "result": "write",
            "table_uri": f"s3://lake/tables/t{number % 50}",
            "table_id": f"{number % 50:032x}",
            "table_name": f"t{number % 50}",
            "version": number,
            "versions": [number],
            "mode": "append",
            "schema_hash": f"{number % 50:032x}",
            "rows_added": 1000,
            "files_added": 1,
            "files_removed": 0,
            "bytes_added": 40_000 + number % 1000,
            "bytes_removed": 0,
            "retries": 0,
            "execution_ms": 7,
            "duration_ms": 9.25,
            "host": "worker-1",
            "pid": 4242,
            "thread": "MainThread",
            "engine": "delta-rs:py-1.6.6",
            "deltalake_version": "1.6.6",
            "datafusion_version": "55.0.0",
            "witness_version": "0.1.0",
            "source": "observed",
        }


def drains(rounds: int, _: int, folder: Path) -> None:
    """Measure the events per second of a drain."""
    from deltalake import CommitProperties, write_deltalake

    from deltawitness.ledger.drain.drain import Drain
    from deltawitness.ledger.spool.records import RecordKind
    from deltawitness.ledger.spool.writer import Spool
    from deltawitness.ledger.tables.schema import LedgerRoot
    from deltawitness.ledger.tables.write_rows import as_json

    def fail(error: BaseException) -> None:
        raise error

    events, unwhole = 50_000, 5_000
    now = time.time_ns() // 1000
    rows = [(row["write_id"], as_json(row)) for row in operations(events, 50, now, 1)]
    rates: list[float] = []
    for number in range(max(3, min(7, rounds // 50))):
        spool = Spool(folder / f"spool-{number}", limit=1 << 40, on_error=fail)
        for write_id, text in rows:
            spool.append(RecordKind.ROW, write_id, text)
        spool.rotate()
        paths = [segment.path for segment in spool.sealed()]
        started = time.perf_counter()
        done = Drain(LedgerRoot(str(folder / f"ledger-{number}")), tail=64).drain_segments(paths)
        rates.append(done.operations / (time.perf_counter() - started))
    for version_ in range(20):
        metadata = {"write_id": f"w-{version_}"}
        write_deltalake(
            folder / "t",
            TEN,
            mode="append",
            commit_properties=CommitProperties(custom_metadata=metadata),
        )
    spool = Spool(folder / "spool-notes", limit=1 << 40, on_error=fail)
    for number in range(unwhole):
        at = number % 20
        note = {"_mark": f"w-{at}", "_base": at - 1, "_version": at, "table_uri": str(folder / "t")}
        spool.append_provisional(
            f"n-{number}",
            as_json({**json.loads(rows[number][1]), **note, "write_id": f"n-{number}"}),
        )
    spool.rotate(is_last=True)
    started = time.perf_counter()
    done = Drain(LedgerRoot(str(folder / "ledger-notes")), tail=64).drain_segments(
        [segment.path for segment in spool.sealed()]
    )
    rate = done.operations / (time.perf_counter() - started)
    print("\n| a drain | events | per second |\n|---|---|---|")
    print(f"| whole rows, median of {len(rates)} | {events} | {statistics.median(rates):.0f} |")
    print(f"| notes without a row, completed from the log | {unwhole} | {rate:.0f} |")
    print("\n| bar | limit | seen |\n|---|---|---|")
    seen("drain of whole rows", 20_000, statistics.median(rates), "events/s", at_least=True)


# --- queries ----------------------------------------------------------------------------------------------

DAYS = 30
RUNS = 2_000
ROWS = 1_000_000
COMMITS = 500


def queries(rounds: int, _: int, folder: Path) -> None:
    """Query one run's rows out of a million, before and after maintenance of the inventory."""
    from datafusion import SessionContext, col, lit

    from deltawitness import Ledger
    from deltawitness.ledger.drain.maintenance import optimize
    from deltawitness.ledger.tables.schema import INVENTORY, LedgerRoot

    root = LedgerRoot(str(folder / "cache"))
    run_ids = inventory(root)
    ledger = Ledger(root.uri)

    def frame(run_id: str) -> int:
        found = ledger.inventory().filter(col("run_id") == lit(run_id)).collect()
        return sum(batch.num_rows for batch in found)

    def sql(run_id: str) -> int:
        ctx = SessionContext()
        ledger.register(ctx)
        found = ctx.sql(f"SELECT * FROM cache_ledger.inventory WHERE run_id = '{run_id}'").collect()
        return sum(batch.num_rows for batch in found)

    print(
        f"\n| one run of {RUNS} among {ROWS} rows | files | rows found | median | 95 % |\n|---|---|---|---|---|"
    )
    held: list[tuple[str, float]] = []
    for state in ("as drained", "after upkeep"):
        if state == "after upkeep":
            optimize(root, INVENTORY)
        opened = root.open_table(INVENTORY)
        files = 0 if opened is None else len(opened.file_uris())
        for way, ask in (("inventory().filter()", frame), ("register(), SQL", sql)):
            found, taken = set(), []
            for run_id in random.sample(run_ids, max(20, min(100, rounds // 5))):
                started = time.perf_counter()
                found.add(ask(run_id))
                taken.append((time.perf_counter() - started) * 1e3)
            print(
                f"| {way}, {state} | {files} | {min(found)} to {max(found)} "
                f"| {statistics.median(taken):.1f} ms | {statistics.quantiles(taken, n=20)[-1]:.1f} ms |"
            )
            held.append((f"{way}, {state}", statistics.median(taken)))
    print("\n| bar | limit | seen |\n|---|---|---|")
    for text, figure in held:
        seen(f"query for one run, {text}", 100, figure, "ms")


def inventory(root: Any) -> list[str]:
    """Fill an inventory with a month of runs, by appends as drains make them, and return the run ids."""
    from deltawitness.ledger.drain.drain import append
    from deltawitness.ledger.tables.arrow import operation_rows
    from deltawitness.ledger.tables.schema import INVENTORY
    from deltawitness.ledger.tables.write_rows import as_json

    month_us = DAYS * 86_400_000_000
    start = time.time_ns() // 1000 - month_us
    batch: list[bytes] = []
    run_ids: dict[str, None] = {}
    for row in operations(ROWS, RUNS, start, month_us // ROWS):
        run_ids[row["run_id"]] = None
        batch.append(as_json(row).encode())
        if len(batch) == ROWS // COMMITS:
            rows = operation_rows(batch).sort_by(
                [("run_id", "ascending"), ("event_time", "ascending")]
            )
            number = len(run_ids)
            append(root, INVENTORY, lambda _, rows=rows, number=number: (rows, {"bench": number}))  # type: ignore[misc]  # mypy does not see benchmarks
            batch = []
    return list(run_ids)


# --- all of it ---------------------------------------------------------------------------------------------

CASES: list[tuple[str, Callable[[int, int, Path], None], int]] = [
    ("notes", notes, 1),
    ("writes", writes, 1),
    ("writes in a row", writes, 50),
    ("drains", drains, 1),
    ("queries", queries, 1),
]


def alone(case: Callable[[int, int, Path], None], rounds: int, each: int) -> None:
    """Run one case in a new process, with a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("spawn").Process(
            target=case, args=(rounds, each, Path(folder))
        )
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


def machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "cpus": str(os.cpu_count()),
        **{name: version(name) for name in ("datafusion", "deltalake", "deltawitness")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=400, help="rounds of the writes")
    parser.add_argument("--case", help="only the cases whose name has this text in it")
    parser.add_argument("--only-notes", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_notes is not None:
        only_notes(arguments.only_notes)
    for name, case, each in CASES:
        if arguments.case is None or arguments.case in name:
            print(f"\n## {name}", flush=True)
            alone(case, max(20, arguments.rounds // each), each)
    print(f"\n{machine()}")


if __name__ == "__main__":
    sys.exit(main())
