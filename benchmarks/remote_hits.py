"""Measure cache hits on an object store with a delay of each request, with and without local copies.

    python benchmarks/remote_hits.py [--delay SECONDS] [--rounds N] [--rows N]

The server is S3-compatible, on loopback. Sessions with and without copies take turns. "first" is the first
hit of a session, as of a new process, and the read of all rows; "hit" is a later hit alone; "rows" is a later
hit and the read of all rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

QUERY = "SELECT * FROM t WHERE x >= 0"


def measure(server: object, folder: str, rounds: int, rows: int) -> dict[str, list[float]]:
    """Return the milliseconds of each kind of hit."""
    import pyarrow as pa
    from deltalake import write_deltalake

    from deltawitness import DeltaCache, ObservedSessionContext, Settings

    options = server.options  # type: ignore[attr-defined]  # a test helper without types
    write_deltalake("s3://lake/t", pa.table({"x": range(rows)}), storage_options=options)

    def session(*, has_copies: bool) -> DeltaCache:
        ctx = ObservedSessionContext()
        ctx.register_delta("t", "s3://lake/t", storage_options=options)
        copies = f"{folder}/copies" if has_copies else None
        settings = Settings(spool_dir=folder, cache_copies=copies)
        return DeltaCache(ctx, "s3://lake/cache", options, settings=settings)

    def read(cache: DeltaCache) -> None:
        found = sum(
            batch.to_pyarrow().num_rows for batch in cache.view("v", QUERY).execute_stream()
        )
        assert found == rows

    read(session(has_copies=False))  # computes the entry
    figures: dict[str, list[float]] = defaultdict(list)
    figures["copying hit"].append(_timed(lambda: read(session(has_copies=True))))
    for _ in range(rounds):
        for has_copies in (False, True):
            cache, name = session(has_copies=has_copies), "copy" if has_copies else "table"
            figures[f"first, {name}"].append(_timed(lambda: read(cache)))  # noqa: B023 - called at once
            figures[f"hit, {name}"].append(_timed(lambda: cache.view("v", QUERY)))  # noqa: B023
            figures[f"rows, {name}"].append(_timed(lambda: read(cache)))  # noqa: B023
    return figures


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    act()
    return (time.perf_counter_ns() - started) / 1e6


def main() -> None:
    from helpers.remote_parts import running_server

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delay", type=float, default=0.03, help="seconds before each response")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder), delay=arguments.delay) as server,
    ):
        figures = measure(server, folder, arguments.rounds, arguments.rows)
    print("| hit | median | minimum |\n|---|---|---|")
    for name, taken in figures.items():
        print(f"| {name} | {statistics.median(taken):.0f} ms | {min(taken):.0f} ms |")


if __name__ == "__main__":
    main()
