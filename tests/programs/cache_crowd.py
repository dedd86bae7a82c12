"""Processes that share a cache: they read one view, change its input, and die."""

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


def opened(folder, *, spools=None):
    """Return a session over the table `t` of a folder, and the folder's cache."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", f"{folder}/t")
    settings = Settings(spool_dir=spools)
    return ctx, DeltaCache(ctx, f"{folder}/cache", settings=settings)


def register_noted(ctx, path, act=None):
    """Register a function that appends a line to a file for each computation."""

    def noted(values):
        with open(path, "a") as file:
            file.write("computed\n")
        if act is not None:
            act()
        return values

    ctx.register_udf(udf(noted, [pa.int64()], pa.int64(), "immutable", "noted"))


def ask(folder, barrier, connection):
    """Read a view at the same time as other processes; send its rows."""
    ctx, cache = opened(folder)
    register_noted(ctx, f"{folder}/computed")
    barrier.wait(60)
    found = cache.view("shared", QUERY, functions={"noted": "1"}).sort("id").to_pydict()
    connection.send((found, internal_errors.seen()))


def ask_and_die(folder, moment, connection):
    """Read a view, and be killed before its rows are written, before the commit, or after it."""
    ctx, cache = opened(folder)
    register_noted(ctx, f"{folder}/computed", die if moment == "computing" else None)
    if moment == "looking":
        cache._keeper._write = lambda *_: die()
    if moment == "committing":
        cache._keeper._keep_plan = lambda *_: die()
    connection.send("begun")
    cache.view("shared", QUERY, functions={"noted": "1"})


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def race(folder, number, rounds, connection):
    """Alternate with another machine: change the input, read the view, compare it with the input."""
    wrong = []
    ctx, cache = opened(folder, spools=f"{folder}/machine{number}")
    # A separate lock folder: locks of another machine have no effect here.
    cache._keeper._locks = Path(f"{folder}/locks{number}")
    for turn in range(rounds):
        write_deltalake(f"{folder}/t", pa.table({"id": [number]}), mode="append")
        frame = cache.view("shared", "SELECT count(*) AS n FROM t")
        (n,) = frame.to_pydict()["n"]
        ctx.refresh("t")
        if n < turn + 2:
            wrong.append((turn, n))
    connection.send((wrong, internal_errors.seen()))


def read(folder, begun, stop, connection):
    """Read a view repeatedly while other processes recompute it; send the incomplete results."""
    half, reads = [], 0
    _, cache = opened(folder)
    begun.wait(60)
    while not stop.is_set() or reads < 2:
        found = cache.view("wide", "SELECT id, count(*) OVER () AS n FROM t").to_pydict()
        if found["n"] != [len(found["n"])] * len(found["n"]):
            half.append(found)
        reads += 1
    connection.send((half, reads, internal_errors.seen()))


def ask_on_a_full_disk(folder, connection):
    """Read a view with a limit on the size of files, so that writing the entry fails half-way."""
    _, cache = opened(folder)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    query = "SELECT value AS id, value * 7919 % 1000 AS x FROM generate_series(1, 10000)"
    found = [cache.view("shared", query).count() for _ in range(2)]
    seen = internal_errors.seen()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found.append(cache.view("shared", query).count())
    connection.send((found, {component for component, _ in seen}, str(cache.explain("shared"))))
