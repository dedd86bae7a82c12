"""Observed sessions of both kinds, and the rows of their tables."""

from __future__ import annotations

from contextlib import contextmanager

import pyarrow as pa
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake

from deltawitness import DataFusionInstrumentor, ObservedSessionContext


@contextmanager
def session_of_kind(kind):
    """An observed session: a proxy ("observed"), or a plain context whose class is patched."""
    if kind == "observed":
        yield ObservedSessionContext()
        return
    DataFusionInstrumentor().instrument()
    yield SessionContext()
    DataFusionInstrumentor().uninstrument()


def write_columns(folder, name, **columns):
    """Create a Delta table with the given columns in a folder and return its location."""
    write_deltalake(folder / name, pa.table(columns))
    return str(folder / name)


def rows(uri):
    return sorted(tuple(row.values()) for row in DeltaTable(uri).to_pyarrow_table().to_pylist())


def ids(ctx, query):
    return sorted(ctx.sql(query).to_pydict()["id"])
