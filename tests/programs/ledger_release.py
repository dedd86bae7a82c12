"""A process of another release: one that knows fewer columns of the ledger's tables, or more.

There is no other release yet: the older one is made by taking columns away, the newer one by adding
some, before anything is recorded.
"""

from __future__ import annotations

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, internal_errors, run
from deltawitness.ledger.drain import drain, recorder
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, ColumnKind

LATER = frozenset({"plan_shape_hash", "inputs", "engine", "thread", "error_type"})
"""Columns of both tables that the older release does not know, of all kinds of types."""

COLOUR = ("colour", ColumnKind.TEXT, "what the newer release knows besides")
SHADES = ("shades", ColumnKind.COUNTS, "likewise, nested")


def become(release):
    """Make this process one of the release `older`, `current` or `newer`."""
    if release == "older":
        for table in (INVENTORY, RUNS):
            known = tuple(column for column in table.columns if column[0] not in LATER)
            object.__setattr__(table, "columns", known)
    elif release == "newer":
        for table in (INVENTORY, RUNS):
            object.__setattr__(table, "columns", (*table.columns, COLOUR, SHADES))
        recorder.event_row = with_colour(recorder.event_row)
        recorder.run_row = with_colour(recorder.run_row)
    drain._EMPTY = INVENTORY.schema.empty_table()  # made when its module was imported


def with_colour(row):
    """Have a row tell what the newer release knows."""
    return lambda *args, **named: {**row(*args, **named), "colour": "red", "shades": [1, 2]}


def write_when_told(release, cache, table, told, results):
    """Write once in a run for each message, until it is None; send what failed of the library's own."""
    become(release)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=cache, drain_interval=3600.0))
    for _ in iter(told.recv, None):
        with run(release):
            write_deltalake(table, pa.table({"x": [1]}), mode="append")
        results.send(internal_errors.seen())
    DeltaLakeInstrumentor().uninstrument()
