"""Measure many writers with one ledger: rows exactly once, failures, and the cost of an observed write.

    python benchmarks/many_writers.py [--processes N] [--writes N] [--tables N] [--bare-every N] [--mode MODE] [--local]

Each process makes observed writes. Every few turns it makes a pair of an observed and a bare one in random
order, to the same table, and only these are compared: so other load affects both alike. A bare write is a write in a process whose observation is suppressed. The drains
of all processes run meanwhile. The tables and the ledger are on the S3-compatible storage that the
variables `AWS_...` name (run it under `tools/with_s3.py`), with `--local` on the local disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import nullcontext
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

DATA = pa.table({"id": list(range(10)), "name": [f"row {i}" for i in range(10)]})

WARM_UP = 3
"""Turns of each process that are not measured."""

P50_LIMIT = 1.05
"""Median of the observed writes in relation to that of the bare ones."""


def write_pairs(  # noqa: PLR0917 - the arguments of a process
    settings: dict[str, Any],
    tables: list[str],
    number: int,
    writes: int,
    bare_every: int,
    results: Connection,
) -> None:
    """Write pairs to alternating tables, and send the seconds of both kinds, the errors and the end.

    Args:
        settings: of the instrumentor, as keywords.
        tables: locations of existing tables.
        number: of this process; it selects the first table.
        writes: observed writes.
        bare_every: turns from one bare write to the next.
        results: receives the results.
    """
    from deltalake import CommitProperties, write_deltalake

    from deltawitness import DeltaLakeInstrumentor, Settings, internal_errors, run, suppressed

    DeltaLakeInstrumentor().instrument(settings=Settings(**settings))
    seconds: dict[str, list[float]] = {"observed": [], "bare": []}
    errors: list[str] = []
    choice = random.Random(number)
    with run("many-writers"):
        for turn in range(writes):
            table = tables[(number + turn) % len(tables)]
            is_pair = turn % bare_every == bare_every - 1
            for kind in choice.sample(("observed", "bare"), 2) if is_pair else ("observed",):
                with suppressed() if kind == "bare" else nullcontext():
                    started = time.perf_counter()
                    try:
                        write_deltalake(
                            table,
                            DATA,
                            mode="append",
                            commit_properties=CommitProperties(max_commit_retries=1000),
                        )
                    except Exception as error:  # noqa: BLE001 - each is counted
                        errors.append(f"{kind}: {error!r}")
                    took = time.perf_counter() - started
                if is_pair and turn >= WARM_UP:
                    seconds[kind].append(took)
        ended = time.perf_counter()
    DeltaLakeInstrumentor().uninstrument()
    closing = time.perf_counter() - ended
    results.send((seconds, errors, closing, dict(internal_errors.error_counts())))


def start_all(
    arguments: argparse.Namespace, settings: dict[str, Any], tables: list[str]
) -> list[Any]:
    """Run all writers; return what each has sent."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deltawitness.instrumentation", "deltalake", "pyarrow"])
    running = []
    for number in range(arguments.processes):
        own = dict(settings)
        if arguments.mode == "shard":
            own["ledger_shard"] = f"group-{number % arguments.shards}"
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(
            target=write_pairs,
            args=(own, tables, number, arguments.writes, arguments.bare_every, sending),
        )
        process.start()
        sending.close()
        running.append((process, receiving))
    results = [receiving.recv() for _, receiving in running]
    for process, _ in running:
        process.join()
    return results


def show(results: list[Any], expected: int, recorded: Counter[str], took: float) -> bool:
    """Print the results; return whether all limits hold."""
    medians, tails = {}, {}
    for kind in ("observed", "bare"):
        seconds = [each for found, *_ in results for each in found[kind]]
        medians[kind] = statistics.median(seconds)
        tails[kind] = statistics.quantiles(seconds, n=100)[94]
    ratio = medians["observed"] / medians["bare"]
    errors = [error for _, found, *_ in results for error in found]
    internal = sum((Counter(found) for *_, found in results), Counter())
    failures = [error for error in errors if error.startswith("observed")]
    doubled = sum(count > 1 for count in recorded.values())
    rows = len(recorded)
    print("| what | measured | limit |")
    print("|---|---|---|")
    print(f"| operations in the ledger | {rows} | {expected} |")
    print(f"| operations with two rows | {doubled} | 0 |")
    print(f"| observed writes that failed | {len(failures)} | 0 |")
    print(f"| bare writes that failed | {len(errors) - len(failures)} | |")
    print(f"| internal errors | {dict(internal)} | |")
    print(f"| p50 of a bare write | {medians['bare'] * 1e3:.1f} ms | |")
    print(f"| p50 of an observed write, relative | {ratio:.3f} | {P50_LIMIT} |")
    print(f"| p95 of an observed write, relative | {tails['observed'] / tails['bare']:.3f} | |")
    print(f"| longest end of a process | {max(each[2] for each in results):.1f} s | |")
    print(f"| all writes | {took:.1f} s | |")
    return rows == expected and not doubled and not failures and ratio <= P50_LIMIT


def main() -> int:
    """Measure, print, and return 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=32)
    parser.add_argument("--writes", type=int, default=100)
    parser.add_argument("--bare-every", type=int, default=4)
    parser.add_argument("--tables", type=int, default=16)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--mode", choices=("direct", "shard", "forward"), default="direct")
    parser.add_argument("--local", action="store_true")
    arguments = parser.parse_args()
    from deltalake import write_deltalake

    from deltawitness import Ledger, Settings

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},"
        f" deltalake {version('deltalake')}: {arguments.processes} processes x {arguments.writes}"
        f" writes on {arguments.tables} tables, mode {arguments.mode},"
        f" {'local disk' if arguments.local else 'S3 on loopback'}"
    )
    with tempfile.TemporaryDirectory() as folder:
        base = folder if arguments.local else f"s3://lake/{arguments.mode}-{os.getpid()}"
        settings = {
            "cache_root": f"{base}/cache",
            "spool_dir": str(Path(folder, "spool")),
            "ledger_mode": arguments.mode,
        }
        tables = [f"{base}/t{number}" for number in range(arguments.tables)]
        for table in tables:
            write_deltalake(table, DATA)
        ledger, stop = Ledger(settings=Settings(**settings)), threading.Event()
        server = threading.Thread(target=ledger.serve, args=(stop,), daemon=True)
        if arguments.mode == "forward":
            server.start()
        started = time.perf_counter()
        results = start_all(arguments, settings, tables)
        took = time.perf_counter() - started
        stop.set()
        if arguments.mode == "forward":
            server.join()
        print(f"left to the next drain: {ledger.drain().operations} operations")
        before = time.perf_counter()
        folded = [done.rows for done in ledger.fold()]
        print(f"folded: {sum(folded)} rows in {time.perf_counter() - before:.1f} s")
        ids = ledger.query("SELECT write_id FROM inventory")["write_id"].to_pylist()
        is_good = show(results, arguments.processes * arguments.writes, Counter(ids), took)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
