"""Measure distributed writes: `write_distributed` against the same engine, staged and committed by hand.

    python benchmarks/distributed_writes.py [--rows N] [--parts N] [--rounds N] [--engine executor|dask]

The rows are Parquet files, one for each part. By hand, each worker writes its file with `write_deltalake` to
a private folder below the table and returns the add actions of that folder's log; the driver commits them with
`create_table_with_add_actions`. Nothing is observed there. `write_distributed` does the same with commit
metadata, span, metrics, log and ledger. "again" is the write by hand a second time: the distance of its ratio from
1.000 is the noise.

The variants alternate in random order in one process, on the same warm workers. A ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

WORKERS = 2


def write_files(folder: Path, rows: int, parts: int) -> list[str]:
    """Write the rows as Parquet files and return their paths."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    chance = np.random.default_rng(1)
    words = pa.array([f"carrier {number}" for number in range(200)])
    paths = []
    for number in range(parts):
        size = rows // parts
        table = pa.table(
            {
                "id": np.arange(size) + number * size,
                "delay": chance.normal(size=size),
                "carrier": words.take(pa.array(chance.integers(0, 200, size))),
            }
        )
        paths.append(str(folder / f"{number}.parquet"))
        pq.write_table(table, paths[-1])
    return paths


def stage_by_hand(table: str, number: int, path: str) -> tuple[list[dict[str, Any]], str]:
    """Write one file to a private folder of the table; return its add actions and its schema."""
    import pyarrow.dataset as ds
    from deltalake import write_deltalake

    folder = f"part-{number}"
    write_deltalake(f"{table}/{folder}", ds.dataset(path).scanner().to_reader())
    log = Path(table, folder, "_delta_log")
    lines = (log / f"{0:020d}.json").read_text().splitlines()
    actions = [json.loads(line) for line in lines]
    shutil.rmtree(log)
    adds = [each["add"] for each in actions if "add" in each]
    for add in adds:
        add["path"] = f"{folder}/{unquote(add['path'])}"
    (schema,) = [each["metaData"]["schemaString"] for each in actions if "metaData" in each]
    return adds, schema


def write_by_hand(table: str, paths: Sequence[str], stage: Callable[..., Any]) -> None:
    """Stage each file on a worker and commit once."""
    from deltalake import Schema
    from deltalake.transaction import AddAction, create_table_with_add_actions

    staged = stage(stage_by_hand, [(table, number, path) for number, path in enumerate(paths)])
    adds = [
        AddAction(
            path=add["path"],
            size=add["size"],
            partition_values=add["partitionValues"],
            modification_time=add["modificationTime"],
            data_change=True,
            stats=add["stats"],
        )
        for adds, _ in staged
        for add in adds
    ]
    create_table_with_add_actions(table, Schema.from_json(staged[0][1]), adds)


class Engine:
    """Warm workers, and how a program calls them.

    Args:
        name: `executor` or `dask`.
        stack: ends the workers.
    """

    def __init__(self, name: str, stack: ExitStack) -> None:
        self.name = name
        if name == "dask":
            import distributed

            cluster = distributed.LocalCluster(
                n_workers=WORKERS,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                host="127.0.0.1",
            )
            self.workers: Any = stack.enter_context(
                distributed.Client(stack.enter_context(cluster))
            )
        else:
            spawn = multiprocessing.get_context("spawn")
            self.workers = stack.enter_context(ProcessPoolExecutor(WORKERS, mp_context=spawn))

    def map(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a function on the workers, and return the results in order."""
        if self.name == "dask":
            futures = [self.workers.submit(function, *call, pure=False) for call in calls]
        else:
            futures = [self.workers.submit(function, *call) for call in calls]
        return [future.result() for future in futures]


def measure(folder: Path, paths: Sequence[str], engine: Engine, rounds: int) -> dict[str, float]:
    """Return the median duration of each variant in seconds."""
    from deltawitness import DeltaLakeInstrumentor, Settings, flush, suppressed, write_distributed

    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(folder / "root")))

    def ours(table: str) -> None:
        write_distributed(paths, table, engine=engine.workers, max_in_flight=2 * len(paths))

    def by_hand(table: str) -> None:
        with suppressed():
            write_by_hand(table, paths, engine.map)

    variants = {"write_distributed": ours, "by hand": by_hand, "again": by_hand}
    found: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name in random.sample(list(variants), len(variants)):
            table = folder / "table"
            start = time.perf_counter()
            variants[name](str(table))
            duration = time.perf_counter() - start
            flush()
            shutil.rmtree(table)
            if number:  # the first round warms up
                found[name].append(duration)
    for name, durations in found.items():
        print(name, *(f"{duration:.2f}" for duration in durations))
    return {name: statistics.median(durations) for name, durations in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--engine", choices=["executor", "dask"], default="executor")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        paths = write_files(folder / "files", chosen.rows, chosen.parts)
        engine = Engine(chosen.engine, stack)
        medians = measure(folder, paths, engine, chosen.rounds)
    print(f"{chosen.rows:,} rows, {chosen.parts} parts, {WORKERS} workers, {chosen.engine}")
    for name, median in medians.items():
        print(f"{name:18} {median:7.3f} s   ratio {median / medians['by hand']:.3f}")


if __name__ == "__main__":
    main()
