"""Processes with a ledger that fork."""

from __future__ import annotations

import multiprocessing
import os

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, flush, internal_errors, run
from deltawitness.ledger.drain.recorder import recorder_of
from deltawitness.run import current_run

DATA = pa.table({"x": [1, 2]})


def write(table):
    write_deltalake(table, DATA, mode="append")


def recorder(cache):
    return recorder_of(Ledger(cache).root)


def forked(act):
    """Run a function in a forked child that exits without any handler; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def observed(cache):
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=cache, drain_interval=3600.0))


def children_that_write(cache, tables, results):
    """Fork from a process that has not used the engine; the children write and exit at once."""
    observed(cache)
    with run("family"):
        codes = [forked(lambda table=table: write(table)) for table in tables[1:]]
        write(tables[0])
    DeltaLakeInstrumentor().uninstrument()
    results.send((codes, internal_errors.error_counts()))


def children_of_a_writer(cache, tables, results):
    """Fork from a process that has flushed writes; each child records a read in its own run."""
    observed(cache)
    with run("parent"):
        write(tables[0])
        flush()
        kept = recorder(cache)
        before = _content(kept.home)

        def child():
            with run("child"):
                kept.record_operation(current_run(), READ)
            assert not kept.drain()
            assert kept.home.name != before[0]

        codes = [forked(child) for _ in range(3)]
        is_same = _content(kept.home) == before
        write(tables[0])
    DeltaLakeInstrumentor().uninstrument()
    results.send((codes, is_same, internal_errors.error_counts()))


READ = {
    "event_time": 1_700_000_000_000_000,
    "operation": "READ",
    "cache_operation": "read",
    "scope": "dataset",
    "policy": "p",
    "result": "hit",
}
"""The row of a cache read."""


def _content(home):
    return home.name, {path.name: path.read_bytes() for path in sorted(home.iterdir())}


def pool(method, cache, tables, results):
    """Write in the processes of a pool."""
    observed(cache)
    with (
        run("pool"),
        multiprocessing.get_context(method).Pool(2) as workers,
    ):
        workers.map(write, tables)
        workers.close()
        workers.join()
    DeltaLakeInstrumentor().uninstrument()
    results.send(internal_errors.error_counts())
