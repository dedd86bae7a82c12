"""Processes that do the same work under the same keys, and get killed."""

from __future__ import annotations

import os
import signal

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, exactly_once, once
from deltawitness.app_transactions import commits, guard

DEADLINE_S = 240


def rows_of(key, part):
    """Return the row that a write of a key adds."""
    return pa.table({"key": [key], "part": [part]})


def do_work(folder, number):
    """Add two rows, count the key in a counter, and merge a row, each once per key."""
    key = f"key-{number}"
    with once(key, deadline=DEADLINE_S):
        write_deltalake(f"{folder}/rows", rows_of(key, 0), mode="append")
        write_deltalake(f"{folder}/rows", rows_of(key, 1), mode="append")
        if number % 4 == 0:
            DeltaTable(f"{folder}/counter").update({"n": "n + 1"}, predicate="id = 0")

    @exactly_once(key=key, deadline=DEADLINE_S)
    def merge():
        table = DeltaTable(f"{folder}/counter")
        # A merge without a match inserts, so every repetition would add a row.
        source = pa.table({"id": pa.array([number + 1], pa.int64()), "n": [1]})
        table.merge(
            source, "false", source_alias="s", target_alias="t"
        ).when_not_matched_insert_all().execute()

    # The counter has the write of the block above under the same key, so this has another key.
    if number % 4 == 1:
        merge()


def work_through(folder, keys, connection):
    """Do the work of every key, and send how many keys there were."""
    DeltaLakeInstrumentor().instrument()
    connection.send("begun")
    for number in range(keys):
        do_work(folder, number)
    connection.send(keys)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def commit_and_die(folder, connection):
    """Get killed between the commit of a write and its return."""
    DeltaLakeInstrumentor().instrument()
    commits.find_commit = die
    connection.send("begun")
    with once("load"):
        write_deltalake(f"{folder}/rows", rows_of("load", 0), mode="append")


def create_and_die(folder, connection):
    """Get killed after the table is created, before its rows are written."""
    DeltaLakeInstrumentor().instrument()
    guard.commit_once = die
    connection.send("begun")
    with once("load"):
        write_deltalake(f"{folder}/rows", rows_of("load", 0))
