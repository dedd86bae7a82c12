"""Time the commands that answer questions, over a ledger of a million operations on a local disk.

    python benchmarks/answers.py [--rows N] [--rounds N] [--keep FOLDER]

The rows are written directly, with the columns and partitions of a ledger: most days compacted into one
file, as `deltawitness ledger optimize` leaves them, the last one in small files, as drains do. Each command is a
new process, as in a terminal. With --keep, the ledger is left in FOLDER, and used again if it is there.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from deltawitness import ColumnUse, table_id
from deltawitness.column_sources import ColumnSource, WriteColumns

DAYS = 180
TABLES = 200
JOBS = 60
WRITES_PER_RUN = 25
SMALL_FILES = 50
LIMIT_S = 1.0

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY_US = 86_400_000_000
LAKE = "file:///lake"

Row = dict[str, Any]


def uuid7(micros: int, source: random.Random) -> str:
    """Return a UUID of version 7 with a time in microseconds."""
    value = (micros // 1000) << 80 | 7 << 76 | source.getrandbits(76) & ~(3 << 62) | 2 << 62
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


OPERATIONS = (
    ("WRITE", "write", "append"),
    ("WRITE", "write", "append"),
    ("WRITE", "write", "overwrite"),
    ("MERGE", "merge", None),
    ("DELETE", "delete", None),
    ("UPDATE", "update", None),
    ("OPTIMIZE", "optimize", None),
)


COLUMNS = WriteColumns(
    {
        "id": (ColumnSource(0, "id", ColumnUse.IDENTITY),),
        "city": (ColumnSource(0, "city", ColumnUse.IDENTITY),),
        "euros": tuple(ColumnSource(0, name, ColumnUse.TRANSFORMATION) for name in ("euros", "id")),
    },
    (ColumnSource(0, "city", ColumnUse.FILTER),),
).to_text()


class History:
    """The operations of many jobs on many tables, in order of time."""

    def __init__(self, rows: int, lake: str) -> None:
        self.rows, self.lake = rows, lake
        self.source = random.Random(7)
        self.versions = [-1] * TABLES
        self.last: Row = {}
        self.failed_run = self.some_run = ""

    def days(self) -> Iterator[tuple[list[Row], list[Row]]]:
        """Yield the operations and the runs of each day."""
        per_day = self.rows // DAYS
        start = int(START.timestamp()) * 1_000_000
        for day in range(DAYS):
            inventory: list[Row] = []
            runs: list[Row] = []
            count = per_day if day < DAYS - 1 else self.rows - per_day * (DAYS - 1)
            step = DAY_US // (count + 1)
            for first in range(0, count, WRITES_PER_RUN):
                began = start + day * DAY_US + first * step
                operations = list(self.run(began, step, min(WRITES_PER_RUN, count - first)))
                inventory += operations
                runs.append(run_row(operations, began))
            yield inventory, runs

    def run(self, began: int, step: int, count: int) -> Iterator[Row]:
        """Yield the operations of one run."""
        source = self.source
        run_id = uuid7(began, source)
        self.some_run = run_id
        job = f"job_{source.randrange(JOBS)}"
        trace = f"{source.getrandbits(128):032x}"
        for number in range(count):
            row = self.operation(began + number * step)
            yield {"run_id": run_id, "job": job, "trace_id": trace, **row}
            if row["result"] == "error":
                self.failed_run = run_id

    def operation(self, micros: int) -> Row:
        """Return one operation on a random table."""
        source = self.source
        table = source.randrange(TABLES)
        name, cache_operation, mode = source.choice(OPERATIONS)
        has_failed = source.random() < 0.01
        row = {
            "event_date": dt.date(1970, 1, 1) + dt.timedelta(days=micros // DAY_US),
            "event_time": micros,
            "write_id": uuid7(micros, source),
            "span_id": f"{source.getrandbits(64):016x}",
            "operation": name,
            "cache_operation": cache_operation,
            "scope": "dataset",
            "policy": "unmanaged",
            "result": "error" if has_failed else "write",
            "table_uri": f"{self.lake}/table_{table}",
            "table_id": table_id(f"{self.lake}/table_{table}"),
            "table_name": f"table_{table}",
            "mode": mode,
            "schema_hash": f"{table:032x}",
            "inputs": [self.input_of(table)],
            "column_lineage": COLUMNS,
            "duration_ms": source.random() * 100,
            "host": f"worker-{source.randrange(8)}",
            "pid": source.randrange(1000, 30_000),
            "thread": "MainThread",
            "engine": "delta-rs:py-1.6.6",
            "witness_version": "0.1.0",
            "source": "observed",
            "code_file": "jobs/load.py",
            "code_line": source.randrange(500),
            "code_function": "jobs.load.main",
        }
        if has_failed:
            return row | {
                "error_type": "schema_mismatch",
                "exception_type": "_internal.SchemaMismatchError",
                "error_message": "Cannot cast schema, number of fields does not match: 3 vs 4",
                "landed": "no",
                "rows_added": 0,
            }
        self.versions[table] += 1
        counts = dict.fromkeys(("rows_updated", "rows_deleted", "files_removed", "retries"), 0)
        self.last = (
            row
            | counts
            | {
                "version": self.versions[table],
                "versions": [self.versions[table]],
                "rows_added": source.randrange(100_000),
                "files_added": 1,
                "bytes_added": source.randrange(10_000_000),
            }
        )
        return self.last

    def input_of(self, table: int) -> Row:
        """Return the newest version of the table that a table is made from: the tables are a binary tree."""
        parent = (table - 1) // 2
        if table == 0 or self.versions[parent] < 0:
            place = f"{self.lake}/source"
            return {"table_id": table_id(place), "uri": place, "version": table}
        place = f"{self.lake}/table_{parent}"
        return {"table_id": table_id(place), "uri": place, "version": self.versions[parent]}


def run_row(operations: list[Row], began: int) -> Row:
    """Return the row of a run."""
    first = operations[0]
    errors = sum(row["result"] == "error" for row in operations)
    return {
        "event_date": first["event_date"],
        "run_id": first["run_id"],
        "job": first["job"],
        "is_part": False,
        "start_time": began,
        "end_time": operations[-1]["event_time"] + 1000,
        "status": "ok",
        "writes": len(operations) - errors,
        "errors": errors,
        "operations": [{"operation": "write", "result": "write", "count": len(operations)}],
        "rows_added": sum(row["rows_added"] or 0 for row in operations),
        "tables_touched": len({row["table_id"] for row in operations}),
        "table_ids": sorted({row["table_id"] for row in operations}),
        "host": first["host"],
        "pid": first["pid"],
        "author": "team-lake",
        "code_version": "4f1a6f6c0ffee",
        **dict.fromkeys(("reads", "hits", "misses", "snapshots", "noops", "retries", "dropped"), 0),
    }


def generate(folder: Path, rows: int) -> dict[str, str]:
    """Write a ledger below a folder, and return names for the commands."""
    from deltalake import DeltaTable, write_deltalake

    from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerRoot

    root = LedgerRoot(str(folder))
    history = History(rows, (folder / "lake").as_uri())
    opened = {table: root.open_or_create(table) for table in (INVENTORY, RUNS)}

    def append(table: Any, content: list[Row]) -> None:
        data = pa.Table.from_pylist(content, schema=table.schema)
        write_deltalake(opened[table], data, mode="append")

    for number, (inventory, runs) in enumerate(history.days()):
        pieces = SMALL_FILES if number == DAYS - 1 else 1
        size = -(-len(inventory) // pieces)
        for first in range(0, len(inventory), size):
            append(INVENTORY, inventory[first : first + size])
        append(RUNS, runs)
    for table in (INVENTORY, RUNS):
        DeltaTable(root.uri_of(table)).create_checkpoint()
    return commit_log(folder, history)


def commit_log(folder: Path, history: History) -> dict[str, str]:
    """Write the log of the table of the last commit with this commit, and return names for the commands."""
    last = history.last
    log = folder / "lake" / str(last["table_name"]) / "_delta_log"
    log.mkdir(parents=True)
    info = {
        "timestamp": last["event_time"] // 1000,
        "operation": last["operation"],
        "operationParameters": {"predicate": "id = 7"},
        "engineInfo": last["engine"],
        "write_id": last["write_id"],
    }
    (log / f"{last['version']:020d}.json").write_text(json.dumps({"commitInfo": info}))
    return {
        "table": last["table_name"],
        "version": str(last["version"]),
        "run": history.some_run,
        "failed_run": history.failed_run,
        "day": str(last["event_date"] - dt.timedelta(days=7)),
    }


COMMANDS = (
    "runs",
    "runs --job job_7",
    "writes",
    "writes --table {table}",
    "writes --table {table} --version {version}",
    "writes --operation DELETE --since {day}",
    "writes --user team-lake",
    "show {table}",
    "show {table}@{version}",
    "show {table}@17",
    "show {run}",
    "show {failed_run}",
    "errors",
    "errors --since {day}",
    "errors --table {table}",
    "errors --job job_7",
    "lineage {table}",
    "lineage {table}@17",
    "lineage {table} --history --depth 20",
    "lineage {table} --columns",
    "lineage table_0@17 --down",
    "lineage table_0@17 --down --column euros",
    "impact {table}",
    "impact table_0",
    "impact table_0@17",
)


def measure(
    folder: Path, names: dict[str, str], rounds: int
) -> list[tuple[str, list[float], list[float]]]:
    """Return the seconds of each command, and the seconds of CPU time; the commands take turns."""
    taken: dict[str, list[float]] = {command: [] for command in COMMANDS}
    used: dict[str, list[float]] = {command: [] for command in COMMANDS}
    for number in range(rounds + 1):
        for command in COMMANDS:
            words = command.format(**names).split()
            line = [sys.executable, "-m", "deltawitness", *words, "--root", str(folder)]
            started, used_before = time.perf_counter(), cpu_seconds()
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own program
            if number:  # the first round fills the cache of the file system
                taken[command].append(time.perf_counter() - started)
                used[command].append(cpu_seconds() - used_before)
    return [(command, taken[command], used[command]) for command in COMMANDS]


def cpu_seconds() -> float:
    """Return the CPU time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        names = folder / "names.json"
        if not names.exists():
            started = time.perf_counter()
            names.write_text(json.dumps(generate(folder.absolute(), chosen.rows)))
            print(f"{chosen.rows:,} rows generated in {time.perf_counter() - started:.0f} s")
        results = measure(folder, json.loads(names.read_text()), chosen.rounds)
    print(f"Python {platform.python_version()}, deltalake {version('deltalake')}\n")
    print("| command | median | slowest | CPU time |\n|---|---|---|---|")
    for command, seconds, cpu in results:
        median = statistics.median(seconds)
        print(
            f"| `{command}` | {median:.2f} s | {max(seconds):.2f} s | {statistics.median(cpu):.2f} s |"
        )
    median = statistics.median(statistics.median(seconds) for _, seconds, _ in results)
    is_good = "" if median <= LIMIT_S else ", missed"
    print(f"\nmedian of all commands: {median:.2f} s (limit {LIMIT_S:g} s{is_good})")


if __name__ == "__main__":
    main()
