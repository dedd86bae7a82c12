"""Count the requests of each operation on an object store; the numbers are exact, and the same on each run.

    python benchmarks/requests.py [--list]

The server is S3-compatible, on loopback, and writes a line for each request. The input is a table with one
file. `data` are the reads of data files, which a bare read of the same rows makes as well.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

Act = Callable[[], object]


class Counter:
    """Counts and prints the requests of operations.

    Args:
        server: the running server.
        is_listed: print each kind of request as well.
    """

    def __init__(self, server: Any, *, is_listed: bool) -> None:
        self._server = server
        self._is_listed = is_listed

    def count(self, name: str, act: Act) -> None:
        """Run an operation and print a row of the table."""
        from deltawitness import flush
        from helpers.request_counts import counted, without_data

        def act_and_flush() -> None:
            act()
            flush()

        flush()
        lines = self._server.requests(act_and_flush)
        print(
            f"| {name} | {without_data(lines)} | {len(lines) - without_data(lines)} |", flush=True
        )
        if self._is_listed:
            for kind, number in sorted(counted(lines).items()):
                print(f"    {number} {kind}")


def count_writes(counter: Counter, options: dict[str, str]) -> None:
    """Count the requests of writes, bare and observed."""
    from deltawitness import DeltaLakeInstrumentor, Settings

    _count_three_writes(counter, "bare", options)
    instrumentor = DeltaLakeInstrumentor()
    with tempfile.TemporaryDirectory() as folder:
        instrumentor.instrument(settings=Settings(cache_root=folder))
        _count_three_writes(counter, "observed", options)
        instrumentor.uninstrument()


def _count_three_writes(counter: Counter, name: str, options: dict[str, str]) -> None:
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    rows, uri = pa.table({"x": [1, 2]}), f"s3://lake/{name}"
    counter.count(
        f"create a table, {name}", lambda: write_deltalake(uri, rows, storage_options=options)
    )
    table = DeltaTable(uri, storage_options=options)
    counter.count(f"append by handle, {name}", lambda: write_deltalake(table, rows, mode="append"))
    counter.count(
        f"append by URI to two versions, {name}",
        lambda: write_deltalake(uri, rows, mode="append", storage_options=options),
    )


def count_cache(counter: Counter, options: dict[str, str], folder: str) -> None:
    """Count the requests of misses and hits."""
    import pyarrow as pa
    from deltalake import write_deltalake

    from deltawitness import DeltaCache, ObservedSessionContext, Settings

    def overwrite() -> None:
        write_deltalake(
            "s3://lake/t", pa.table({"x": [1, 2]}), mode="overwrite", storage_options=options
        )

    def session(copies: str | None = None) -> Act:
        ctx = ObservedSessionContext()
        ctx.register_delta("t", "s3://lake/t", storage_options=options)
        settings = Settings(spool_dir=folder, cache_copies=copies)
        cache = DeltaCache(ctx, "s3://lake/cache", options, settings=settings)
        return lambda: cache.view("v", "SELECT sum(x) AS s FROM t")

    overwrite()
    view = session()
    counter.count("cache miss, first", view)
    counter.count("cache hit", view)
    overwrite()
    counter.count("cache miss, input changed", view)
    overwrite()
    counter.count("cache miss, input changed again", view)
    counter.count("cache hit, after three writes", view)
    counter.count("cache hit, first of a session", session())
    copies = f"{folder}/copies"
    counter.count("cache hit that copies the entry, first of a session", session(copies))
    counter.count("cache hit from a copy, first of a session", session(copies))


def count_commands(counter: Counter, options: dict[str, str], folder: str) -> None:
    """Count the requests of commands over a ledger with one run."""
    import pyarrow as pa
    from deltalake import write_deltalake

    from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, run
    from helpers.request_counts import command_line

    settings = Settings(
        cache_root="s3://lake/cache", storage_options=options, spool_dir=f"{folder}/spools"
    )
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(settings=settings)
    with run("nightly"):
        write_deltalake("s3://lake/w", pa.table({"x": [1]}), storage_options=options)
    Ledger(settings=settings).drain()
    instrumentor.uninstrument()
    ledger = Ledger(settings=settings)
    counter.count("`Ledger.runs()`", lambda: ledger.runs().to_pylist())
    environment = os.environ | {
        "DELTAWITNESS_ROOT": "s3://lake/cache",
        "DELTAWITNESS_STORAGE_OPTIONS": json.dumps(options),
    }
    for command in ("runs", "writes", "cache ls"):
        counter.count(
            f"`deltawitness {command}`",
            lambda command=command: command_line(command.split(), environment),  # type: ignore[misc]
        )


def main() -> None:
    from helpers.remote_parts import running_server

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print each kind of request")
    arguments = parser.parse_args()
    print("| operation | requests | and data |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        counter = Counter(server, is_listed=arguments.list)
        count_writes(counter, server.options)
        count_cache(counter, server.options, folder)
        count_commands(counter, server.options, folder)


if __name__ == "__main__":
    main()
