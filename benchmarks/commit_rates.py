"""Measure commits to ledger tables, and record them for the simulation of `tools/scale_simulation.py`.

    python benchmarks/commit_rates.py [--seconds S] [--writers N...] [--json FILE]

Writers append small batches to one table, or each to a table of its own, for some seconds: on the local disk,
on the S3-compatible server that `AWS_ENDPOINT_URL` names (run it under `tools/with_s3.py`), and on the same
server through a proxy on loopback that answers each request 30 ms later.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DELAY = 0.03
"""Seconds that the proxy adds to each request."""


class Proxy:
    """Passes HTTP requests to a server, each after a delay, and counts them by method.

    Args:
        endpoint: of the server.
        delay: seconds.
    """

    def __init__(self, endpoint: str, delay: float) -> None:
        self._server = urlsplit(endpoint)
        self._delay = delay
        self.counts: dict[str, int] = {}
        self.port = 0
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait(10)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._server.hostname, self._server.port)
        state = {"is_idle": True}
        await asyncio.gather(
            self._pass(reader, there[1], state, is_request=True),
            self._pass(there[0], writer, state, is_request=False),
            return_exceptions=True,
        )

    async def _pass(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        state: dict[str, bool],
        *,
        is_request: bool,
    ) -> None:
        while chunk := await source.read(1 << 16):
            if is_request and state["is_idle"]:  # the first bytes after a response
                line = chunk.partition(b"\r\n")[0]
                method = line.partition(b" ")[0].decode(errors="replace")
                method = "LIST" if b"list-type=" in line else method
                self.counts[method] = self.counts.get(method, 0) + 1
                await asyncio.sleep(self._delay)
            state["is_idle"] = not is_request
            target.write(chunk)
            await target.drain()
        target.close()


def commit(
    root: tuple[str, dict[str, str] | None], seconds: float, name: str, results: Connection
) -> None:
    """Append batches of ten rows to the inventory of a ledger for some seconds; send what happened.

    Args:
        root: location and storage options of the ledger.
        seconds: how long.
        name: of this writer.
        results: receives the seconds of each commit and the number of conflicts.
    """
    from deltawitness.ledger.drain.drain import append
    from deltawitness.ledger.tables.arrow import rows_from
    from deltawitness.ledger.tables.schema import INVENTORY, LedgerRoot

    conflicts: list[int] = []
    took: list[float] = []
    failed = 0
    ledger = LedgerRoot(*root)
    ended = time.monotonic() + seconds
    while (started := time.monotonic()) < ended:
        now = time.time_ns() // 1000
        rows = rows_from(
            INVENTORY,
            [
                {"event_time": now, "write_id": f"{name}-{len(took)}-{n}", "run_id": name}
                for n in range(10)
            ],
        )
        number = len(took) + 1
        try:
            append(
                ledger,
                INVENTORY,
                lambda _, rows=rows, number=number: (rows, {f"bench/{name}": number}),
                on_conflict=lambda: conflicts.append(1),
            )
        except Exception:  # noqa: BLE001 - counted
            failed += 1
            continue
        took.append(time.monotonic() - started)
    results.send((took, len(conflicts), failed))


def measure(
    base: str, options: dict[str, str] | None, writers: int, seconds: float, *, is_shared: bool
) -> dict[str, Any]:
    """Let writers commit to one table, or each to its own; return the sums."""
    from deltawitness.ledger.tables.schema import INVENTORY, LedgerRoot

    roots = [LedgerRoot(base if is_shared else f"{base}-{n}", options) for n in range(writers)]
    for root in roots:
        root.open_or_create(INVENTORY)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deltawitness.ledger.drain.drain", "deltalake"])
    running = []
    for number, root in enumerate(roots):
        receiving, sending = context.Pipe(duplex=False)
        arguments = ((root.uri, options), seconds, f"w{number}", sending)
        process = context.Process(target=commit, args=arguments)
        process.start()
        sending.close()
        running.append((process, receiving))
    results = [receiving.recv() for _, receiving in running]
    for process, _ in running:
        process.join()
    took = [each for found, *_ in results for each in found]
    commits = len(took)
    return {
        "writers": writers,
        "commits_per_s": round(commits / seconds, 2),
        "conflicts_per_commit": round(sum(each[1] for each in results) / max(1, commits), 3),
        "failed_share": round(sum(each[2] for each in results) / max(1, commits), 4),
        "p50_s": round(statistics.median(took), 4) if took else None,
    }


@contextmanager
def storages(folder: str) -> Iterator[dict[str, tuple[str, dict[str, str] | None, Proxy | None]]]:
    """Yield the storages: location of a ledger, storage options, and the proxy."""
    found: dict[str, tuple[str, dict[str, str] | None, Proxy | None]] = {
        "local": (f"{folder}/ledger", None, None)
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint is not None:
        for name, delay in (("s3_loopback", 0.0), ("s3_30ms", DELAY)):
            proxy = Proxy(endpoint, delay)
            options = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
            found[name] = (f"s3://lake/{name}-{os.getpid()}", options, proxy)
    yield found


def main() -> int:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    recorded: dict[str, Any] = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "deltalake": version("deltalake"),
        "seconds": arguments.seconds,
        "storages": {},
    }
    with tempfile.TemporaryDirectory() as folder, storages(folder) as found:
        for name, (base, options, proxy) in found.items():
            one: dict[str, Any] = {"shared": [], "own": []}
            for writers in arguments.writers:
                for kind in ("shared", "own"):
                    if kind == "own" and writers == 1:
                        continue
                    if proxy is not None:
                        proxy.counts.clear()
                    done = measure(
                        f"{base}-{kind}-{writers}",
                        options,
                        writers,
                        arguments.seconds,
                        is_shared=kind == "shared",
                    )
                    if proxy is not None:
                        commits = max(1.0, done["commits_per_s"] * arguments.seconds)
                        done["requests_per_commit"] = {
                            method: round(count / commits, 2)
                            for method, count in sorted(proxy.counts.items())
                        }
                    one[kind].append(done)
                    print(name, kind, done, flush=True)
            recorded["storages"][name] = one
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(recorded, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
