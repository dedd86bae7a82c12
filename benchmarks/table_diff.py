"""Time `diff` by key against a full outer join of DuckDB over the same files.

    python benchmarks/table_diff.py [--rows N] [--rounds N]

Two versions of a table share no file: the second is a rewrite in which some keys are new, some are missing, and
some have another value. Each measurement is a new process; its peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import platform
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
import pyarrow.compute as pc

CHUNK = 1 << 20
LIMIT_TIMES = 3.0
LIMIT_BYTES = 2 << 30


def chunks(rows: int, *, is_second: bool) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a version: a key, two numbers, a float and a text."""
    first = rows // 100 if is_second else 0
    for start in range(first, rows + first, CHUNK):
        ids = pa.array(range(start, min(start + CHUNK, rows + first)), pa.int64())
        numbers = pc.multiply(ids, 7)
        if is_second:
            is_changed = pc.equal(pc.bit_wise_and(ids, 63), 0)
            numbers = pc.if_else(is_changed, pc.add(numbers, 1), numbers)
        price = pc.divide(pc.cast(ids, pa.float64()), 3.0)
        text = pc.binary_join_element_wise(
            "name", pc.cast(pc.bit_wise_and(ids, 1023), pa.string()), "-"
        )
        columns = [ids, numbers, pc.bit_wise_and(ids, 15), price, text]
        yield pa.RecordBatch.from_arrays(columns, names=["id", "n", "kind", "price", "name"])


def write(place: str, rows: int) -> None:
    from deltalake import write_deltalake

    for is_second in (False, True):
        batches = chunks(rows, is_second=is_second)
        first = next(batches)
        reader = pa.RecordBatchReader.from_batches(
            first.schema, (batch for each in ([first], batches) for batch in each)
        )
        write_deltalake(place, reader, mode="overwrite", target_file_size=64 << 20)


def diff_once(place: str) -> dict[str, int]:
    from deltawitness import diff

    rows = diff(place, 0, 1, key="id", root=f"{place}/ledger").rows
    return {"added": rows.added, "removed": rows.removed, "changed": rows.changed}


def duckdb_once(place: str) -> dict[str, int]:
    import duckdb
    from deltalake import DeltaTable

    sides = [
        f"read_parquet({DeltaTable(place, version=number).file_uris()!r})" for number in (0, 1)
    ]
    names = ("n", "kind", "price", "name")
    differs = " OR ".join(f"(a.{name} IS DISTINCT FROM b.{name})" for name in names)
    both = "a.id IS NOT NULL AND b.id IS NOT NULL"
    each = ", ".join(
        f"count(*) FILTER ({both} AND (a.{name} IS DISTINCT FROM b.{name}))" for name in names
    )
    found = (
        duckdb.connect()
        .execute(
            f"SELECT count(*) FILTER (a.id IS NULL), count(*) FILTER (b.id IS NULL),"
            f" count(*) FILTER ({both} AND ({differs})), {each}"
            f" FROM {sides[0]} AS a FULL OUTER JOIN {sides[1]} AS b ON a.id = b.id"
        )
        .fetchone()
    )
    return dict(zip(("added", "removed", "changed"), found, strict=False))


def measure(kind: str, place: str) -> dict[str, Any]:
    """Return the result, the seconds and the peak memory of one comparison in a new process."""
    done = subprocess.run(  # noqa: S603 - this file
        [sys.executable, __file__, "--once", kind, place],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def once(kind: str, place: str) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    result = {"deltawitness": diff_once, "duckdb": duckdb_once}[kind](place)
    print(
        json.dumps(
            {
                "result": result,
                "seconds": time.perf_counter() - began,
                "cpu": time.process_time() - cpu,
                "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", nargs=2, metavar=("KIND", "TABLE"))
    options = parser.parse_args()
    if options.once:
        once(*options.once)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/t"
        write(place, options.rows)
        size = sum(each.stat().st_size for each in Path(place).rglob("*.parquet"))
        found: dict[str, list[dict[str, Any]]] = {"deltawitness": [], "duckdb": []}
        for _ in range(options.rounds):
            for kind, results in found.items():
                results.append(measure(kind, place))
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("deltalake", "datafusion", "duckdb")
    )
    print(f"Python {platform.python_version()}, {versions}")
    print(f"{options.rows:,} x {options.rows:,} rows, {size / 1e6:,.0f} MB of Parquet")
    for kind, results in found.items():
        times, cpus, peak = (
            [each[name] for each in results] for name in ("seconds", "cpu", "bytes")
        )
        print(
            f"{kind:14} {statistics.median(times):7.2f} s {statistics.median(cpus):7.2f} s CPU"
            f" {max(peak) / (1 << 20):7,.0f} MiB  {results[0]['result']}"
        )
    ours, theirs = found["deltawitness"], found["duckdb"]
    assert all(each["result"] == theirs[0]["result"] for each in ours)
    times = statistics.median(each["cpu"] for each in ours) / statistics.median(
        each["cpu"] for each in theirs
    )
    peak = max(each["bytes"] for each in ours)
    is_ok = times <= LIMIT_TIMES and peak <= LIMIT_BYTES
    print(f"{times:.2f} times DuckDB's CPU time: {'within the limits' if is_ok else 'TOO MUCH'}")
    sys.exit(not is_ok)


if __name__ == "__main__":
    main()
