"""Measure reading a table on an object store: interleaved variants in one process, with limits.

    python benchmarks/remote.py [--rounds N] [--case NAME]

The base is `deltalake.QueryBuilder` with the same statement, on the same table of the same S3-compatible
server on loopback. The variants alternate in random order, so that other load on the machine affects all
of them equally. The rows are read as a stream and dropped.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

Read = Callable[[str], int]
"""Runs a statement, and returns the number of rows."""

ROWS = 4_000_000

DAYS = 1_000
"""Values of the column `day`, by which the table is partitioned into groups of 100."""

FILES = 10

WARM_UP_ROUNDS = 3
"""Number of rounds at the start that are not measured."""


# --- the table -----------------------------------------------------------------------------------------


@contextmanager
def table_on_server() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the location of the table and its storage options."""
    from helpers.remote_parts import running_server

    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        create_table("s3://lake/scanned", server.options)
        yield "s3://lake/scanned", server.options


def create_table(uri: str, options: dict[str, str]) -> None:
    """Create a table of four million rows: integers, floats, text, and two columns to filter by."""
    import numpy as np
    import pyarrow as pa
    from deltalake import write_deltalake

    part = ROWS // FILES
    for start in range(0, ROWS, part):
        ids = np.arange(start, start + part)
        rows = pa.table(
            {
                "id": ids,
                "amount": ids * 0.5,
                "name": pa.array([f"row {number}" for number in ids]),
                "day": pa.array((ids * DAYS // ROWS).astype("int32")),
            }
        )
        rows = rows.append_column(
            "month", pa.array([f"m{day // 100}" for day in rows["day"].to_pylist()])
        )
        write_deltalake(uri, rows, mode="append", partition_by=["month"], storage_options=options)


# --- readers -------------------------------------------------------------------------------------------


def alone(uri: str, options: dict[str, str]) -> Read:
    import pyarrow as pa
    from deltalake import DeltaTable, QueryBuilder

    builder = QueryBuilder().register("t", DeltaTable(uri, storage_options=options))

    def read(sql: str) -> int:
        batches = pa.RecordBatchReader.from_stream(builder.execute(sql))
        return sum(batch.num_rows for batch in batches)

    return read


def through_session(uri: str, options: dict[str, str]) -> Read:
    from deltawitness import ObservedSessionContext

    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri, storage_options=options)
    return lambda sql: sum(batch.to_pyarrow().num_rows for batch in ctx.sql(sql).execute_stream())


VARIANTS: Mapping[str, Callable[[str, dict[str, str]], Read]] = {
    "alone": alone,
    "alone again": alone,
    "session": through_session,
}


# --- cases ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A statement, its number of rows, and the session's limit: a ratio of medians."""

    name: str
    sql: str
    rows: int
    limit: float | None = None


THOUSANDTH = ROWS // 1000
MIDDLE = ROWS // 2

CASES = [
    Case("full scan", "SELECT * FROM t", ROWS, 1.3),
    Case("full scan of two columns", "SELECT id, amount FROM t", ROWS, 1.3),
    Case("0.1 % by an integer", f"SELECT * FROM t WHERE id >= {MIDDLE} AND id < {MIDDLE + THOUSANDTH}", THOUSANDTH, 2.0),
    Case("0.1 % by a partition and an integer", "SELECT * FROM t WHERE month = 'm4' AND day = 444", THOUSANDTH, 2.0),
    Case("a sum over a range", f"SELECT sum(amount) FROM t WHERE id < {MIDDLE}", 1),
    Case("a count", "SELECT count(*) FROM t", 1),
    Case("0.1 % by a float, which skips no file", f"SELECT * FROM t WHERE amount >= {(ROWS - THOUSANDTH) / 2}", THOUSANDTH),
]  # fmt: skip


def run_case(case: Case, readers: Mapping[str, Read], rounds: int) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(rounds + WARM_UP_ROUNDS):
        for name in random.sample(list(readers), len(readers)):
            started = time.perf_counter_ns()
            rows = readers[name](case.sql)
            taken = (time.perf_counter_ns() - started) / 1e6
            if rows != case.rows:
                sys.exit(f"{case.name}: {name} gave {rows} rows, not {case.rows}")
            if number >= WARM_UP_ROUNDS:
                figures[name].append(taken)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--case", help="only the cases whose name has this text in it")
    arguments = parser.parse_args()
    held: list[str] = []
    print("| case | variant | median | ratio of medians | median of ratios |")
    print("|---|---|---|---|---|")
    with table_on_server() as (uri, options):
        readers = {name: make(uri, options) for name, make in VARIANTS.items()}
        for case in CASES:
            if arguments.case and arguments.case not in case.name:
                continue
            figures = run_case(case, readers, arguments.rounds)
            base = figures["alone"]
            for name, taken in figures.items():
                ratio = statistics.median(taken) / statistics.median(base)
                of_rounds = statistics.median(a / b for a, b in zip(taken, base, strict=True))
                print(
                    f"| {case.name} | {name} | {statistics.median(taken):.1f} ms | {ratio:.3f} | {of_rounds:.3f} |",
                    flush=True,
                )
                if name == "session" and case.limit is not None:
                    missed = "" if ratio <= case.limit else ", missed"
                    held.append(f"| {case.name}, ratio | {case.limit} | {ratio:.3f}{missed} |")
    print("\n| bar | limit | seen |\n|---|---|---|")
    print(*held, sep="\n")
    versions: dict[str, Any] = {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        **{name: version(name) for name in ("datafusion", "deltalake", "deltawitness")},
    }
    print(f"\n{versions}")


if __name__ == "__main__":
    main()
