"""Processes that make a distributed write and get killed at a point of it."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pyarrow as pa

from deltawitness import DeltaLakeInstrumentor, write_distributed
from deltawitness.app_transactions import commits, creation
from deltawitness.distributed import write


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


class Part:
    """Ten rows; the worker that reads them may get killed.

    Args:
        number: number of the part.
        fatal: path of a file; the worker that can delete it dies.
    """

    def __init__(self, number, fatal=None):
        self.number, self.fatal = number, fatal

    def __call__(self):
        if self.fatal is not None:
            try:
                os.remove(self.fatal)
            except FileNotFoundError:
                pass
            else:
                die()
        return pa.table({"id": range(10 * self.number, 10 * self.number + 10)})


def parts(count, fatal=None):
    return [Part(number, fatal) for number in range(count)]


def write_once(uri, count):
    """Write the parts with the key of the tests."""
    with ThreadPoolExecutor(2) as pool:
        return write_distributed(parts(count), uri, engine=pool, key="load")


def die_before_commit(uri, count, connection):
    """Get killed between the staging and the commit."""
    DeltaLakeInstrumentor().instrument()
    write.Commit = die
    connection.send("begun")
    write_once(uri, count)


def die_after_commit(uri, count, connection):
    """Get killed between the commit and the return."""
    DeltaLakeInstrumentor().instrument()
    commits.find_commit = creation.find_commit = die
    connection.send("begun")
    write_once(uri, count)


def write_many(uri, count, keys, connection):
    """Write under each key; a parent kills this process at a random time."""
    DeltaLakeInstrumentor().instrument()
    connection.send("begun")
    for key in range(keys):
        with ThreadPoolExecutor(2) as pool:
            write_distributed(parts(count), uri, engine=pool, key=f"load-{key}")
    connection.send("done")


def write_with_fatal_part(uri, count, fatal):
    """Write with a pool of processes, of which one dies."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        return write_distributed(parts(count, fatal), uri, engine=pool, key="load")
