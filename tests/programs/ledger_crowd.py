"""One of many processes that write to the same tables with the same ledger."""

from __future__ import annotations

import os
import tempfile

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, internal_errors, run
from deltawitness.ledger.drain.drain import Drain
from deltawitness.ledger.tables.schema import LedgerRoot

DATA = pa.table({"x": [1, 2]})


def write_many(settings, tables, options, turns, results):
    """Write many times to alternating tables, and send the results.

    Args:
        settings: of the instrumentor, as keywords.
        tables: locations of existing tables.
        options: storage options of the tables.
        turns: a number for each write, which selects the table.
        results: receives the number of writes, their errors, and the library's internal errors.
    """
    DeltaLakeInstrumentor().instrument(settings=Settings(**settings))
    written, errors = 0, []
    with run("crowd"):
        for turn in turns:
            try:
                write_deltalake(
                    tables[turn % len(tables)],
                    DATA,
                    mode="append",
                    storage_options=options,
                    commit_properties=CommitProperties(max_commit_retries=1000),
                )
                written += 1
            except Exception as error:  # noqa: BLE001 - each is to be seen
                errors.append(repr(error))
    DeltaLakeInstrumentor().uninstrument()
    results.send((written, errors, internal_errors.error_counts()))


def drain_at_barrier(root, spools, barrier, results):
    """Drain abandoned spools, concurrently with others."""
    barrier.wait(60)
    done = Drain(LedgerRoot(root), tail=64).drain_abandoned(spools)
    results.send((done.operations, done.runs, internal_errors.error_counts()))


def write_as(user, settings, table, results):
    """Write once as another user, and send the library's internal errors."""
    with tempfile.TemporaryDirectory() as folder:
        # Import lazy modules now: the other user may not be able to read them.
        _write_once({"cache_root": folder}, f"{folder}/t")
    os.setuid(user)
    _write_once(settings, table)
    results.send(internal_errors.error_counts())


def _write_once(settings, table):
    # The other user may not be able to read the metadata of installed packages.
    DeltaLakeInstrumentor().instrument(settings=Settings(**settings), skip_dep_check=True)
    with run("crowd"):
        write_deltalake(table, DATA)
    DeltaLakeInstrumentor().uninstrument()
