"""A process of another release, with fewer or more columns in the ledger's tables.

Since no other release exists, columns are removed or added before anything is recorded.
"""

from __future__ import annotations

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, internal_errors, run
from deltawitness.ledger.drain import drain, open_runs, recorder
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, ColumnKind

LATER = frozenset({"plan_shape_hash", "inputs", "engine", "thread", "error_type"})
"""Columns of both tables that the older release lacks, of several types."""

COLOUR = ("colour", ColumnKind.TEXT, "what the newer release knows besides")
SHADES = ("shades", ColumnKind.COUNTS, "likewise, nested")


def become(release):
    """Turn this process into one of the release `older`, `current` or `newer`."""
    if release == "older":
        for table in (INVENTORY, RUNS):
            known = tuple(column for column in table.columns if column[0] not in LATER)
            object.__setattr__(table, "columns", known)
    elif release == "newer":
        for table in (INVENTORY, RUNS):
            object.__setattr__(table, "columns", (*table.columns, COLOUR, SHADES))
        recorder.event_row = with_colour(recorder.event_row)
        open_runs.run_row = with_colour(open_runs.run_row)
    drain._EMPTY = INVENTORY.schema.empty_table()  # made when its module was imported


def with_colour(row):
    """Wrap a function that makes a row, and add the newer release's columns."""
    return lambda *args, **named: {**row(*args, **named), "colour": "red", "shades": [1, 2]}


def write_on_message(release, cache, table, messages, results):
    """Write once in a run for each message until None; send the library's internal errors."""
    become(release)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=cache, drain_interval=3600.0))
    for _ in iter(messages.recv, None):
        with run(release):
            write_deltalake(table, pa.table({"x": [1]}), mode="append")
        results.send(internal_errors.error_counts())
    DeltaLakeInstrumentor().uninstrument()
