"""Processes that share a cache: they request one view, change its input, read it, and get killed."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pyarrow as pa
from datafusion import udf
from deltalake import write_deltalake

from deltawitness import DeltaCache, ObservedSessionContext, Settings, internal_errors

QUERY = "SELECT noted(id) AS id, count(*) AS n FROM t GROUP BY 1"


def open_cache(folder, *, spools=None):
    """Return a session over the table `t` of a folder, and the folder's cache."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", f"{folder}/t")
    settings = Settings(spool_dir=spools)
    return ctx, DeltaCache(ctx, f"{folder}/cache", settings=settings)


def register_noted(ctx, path, act=None):
    """Register a function that appends a line to a file on each computation."""

    def noted(values):
        with open(path, "a") as file:
            file.write("computed\n")
        if act is not None:
            act()
        return values

    ctx.register_udf(udf(noted, [pa.int64()], pa.int64(), "immutable", "noted"))


def ask(folder, barrier, connection):
    """Request one view at the same time as others, and send its rows."""
    ctx, cache = open_cache(folder)
    register_noted(ctx, f"{folder}/computed")
    barrier.wait(60)
    found = cache.view("shared", QUERY, functions={"noted": "1"}).sort("id").to_pydict()
    connection.send((found, internal_errors.error_counts()))


def ask_and_die(folder, moment, connection):
    """Request a view, and get killed before its rows are written, during, or after the commit."""
    ctx, cache = open_cache(folder)
    register_noted(ctx, f"{folder}/computed", die if moment == "computing" else None)
    if moment == "looking":
        cache._read_through._write = lambda *_: die()
    if moment == "committing":
        cache._read_through._store_plan = lambda *_: die()
    connection.send("begun")
    cache.view("shared", QUERY, functions={"noted": "1"})


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def race(folder, number, rounds, connection):
    """Take turns with another machine: change the input, request the view, compare with the rows read."""
    wrong = []
    ctx, cache = open_cache(folder, spools=f"{folder}/machine{number}")
    # A separate lock folder, like on another machine.
    cache._read_through._locks = Path(f"{folder}/locks{number}")
    for turn in range(rounds):
        write_deltalake(f"{folder}/t", pa.table({"id": [number]}), mode="append")
        frame = cache.view("shared", "SELECT count(*) AS n FROM t")
        (n,) = frame.to_pydict()["n"]
        ctx.refresh("t")
        if n < turn + 2:
            wrong.append((turn, n))
    connection.send((wrong, internal_errors.error_counts()))


def read(folder, begun, stop, connection):
    """Read a view in a loop while others recompute it, and send the partial results."""
    partial, reads = [], 0
    _, cache = open_cache(folder)
    begun.wait(60)
    while not stop.is_set() or reads < 2:
        found = cache.view("wide", "SELECT id, count(*) OVER () AS n FROM t").to_pydict()
        if found["n"] != [len(found["n"])] * len(found["n"]):
            partial.append(found)
        reads += 1
    connection.send((partial, reads, internal_errors.error_counts()))


def ask_on_a_full_disk(folder, connection):
    """Request a view while no file can grow beyond 1000 bytes, so that the write fails in the middle."""
    _, cache = open_cache(folder)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    query = "SELECT value AS id, value * 7919 % 1000 AS x FROM generate_series(1, 10000)"
    found = [cache.view("shared", query).count() for _ in range(2)]
    seen = internal_errors.error_counts()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found.append(cache.view("shared", query).count())
    connection.send((found, {component for component, _ in seen}, str(cache.explain("shared"))))
