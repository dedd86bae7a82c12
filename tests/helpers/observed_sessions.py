"""Sessions with the same rows, observed in both ways, and the comparable parts of their results."""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import singledispatch
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from datafusion import DataFrame, SessionConfig, SessionContext
from datafusion._internal import DataFrame as RawDataFrame
from datafusion.catalog import Catalog, Schema, Table
from datafusion.plan import ExecutionPlan, LogicalPlan
from datafusion.record_batch import RecordBatch, RecordBatchStream
from deltalake import DeltaTable

from deltawitness import DataFusionInstrumentor, ObservedDataFrame, ObservedSessionContext
from deltawitness.session.catalog_handlers import CATALOG_HANDLERS, SCHEMA_HANDLERS
from deltawitness.session.context_handlers import SESSION_HANDLERS
from deltawitness.session.frame_handlers import FRAME_HANDLERS
from deltawitness.session.proxies import ObservedCatalog, ObservedSchema

DATA = pa.table({"a": [1, 2, 3], "b": ["x", "y", None], "c": [0.5, float("nan"), None]})

OTHER = pa.table({"a": [2, 3, 4], "b": ["y", None, "z"], "c": [1.5, None, 2.5]})

NESTED = pa.table({"id": [1, 2], "tags": [["p", "q"], None]})

(BATCH,) = DATA.to_batches()

HANDLED = {
    SessionContext: SESSION_HANDLERS,
    DataFrame: FRAME_HANDLERS,
    Catalog: CATALOG_HANDLERS,
    Schema: SCHEMA_HANDLERS,
}

OBSERVED = {
    SessionContext: ObservedSessionContext,
    DataFrame: ObservedDataFrame,
    Catalog: ObservedCatalog,
    Schema: ObservedSchema,
}

OF_EVERY_CLASS = {
    "__dict__", "__doc__", "__module__", "__slotnames__", "__weakref__",
    # Since 3.13.
    "__firstlineno__", "__static_attributes__",
    # Since 3.14.
    "__annotate__", "__annotate_func__", "__annotations_cache__",
}  # fmt: skip


def methods_of(owner):
    """The public names that a class defines, with special methods and those for notebooks."""
    defined = {name for base in owner.__mro__[:-1] for name in vars(base)} - OF_EVERY_CLASS
    return {name for name in defined if not name.startswith("_") or name.endswith("_")}


class Place(NamedTuple):
    """The directories of files that a call reads and writes."""

    files: Path
    out: Path


def spoken(ctx):
    return ctx.sql("SELECT a FROM t")


_OF_THIS_CALL = re.compile(
    r"0x[0-9a-f]+"  # an address
    r"|[0-9a-f]{8}([-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}"  # an id
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.+]+"  # a time
    r"|[0-9.]+ ?[nµm]?s\b"  # a duration
)


def lasting(text):
    """The text without parts that differ in each call."""
    return _OF_THIS_CALL.sub("<...>", text)


@singledispatch
def comparable(result):
    """The parts of a result that are the same in each call, for comparison."""
    return lasting(repr(result))


@comparable.register
def _(result: list | tuple):
    return [comparable(each) for each in result]


@comparable.register
def _(result: set):
    return sorted(result)


@comparable.register
def _(frame: DataFrame | RawDataFrame):
    return str(frame.schema()), sorted(map(repr, frame.to_pylist()))


@comparable.register
def _(ctx: SessionContext):
    return comparable(spoken(ctx)), ctx.session_start_time() != ""


@comparable.register
def _(catalog: Catalog):
    return sorted(catalog.names()), [
        comparable(catalog.schema(name)) for name in sorted(catalog.names())
    ]


@comparable.register
def _(schema: Schema):
    return sorted(schema.names())


@comparable.register
def _(table: Table):
    return table.kind, str(table.schema)


@comparable.register
def _(plan: LogicalPlan | ExecutionPlan):
    return lasting(plan.display_indent())


@comparable.register
def _(data: pa.Table | pa.RecordBatch | pa.Array | pa.ChunkedArray):
    return repr(data.to_pylist())


@comparable.register
def _(data: pd.DataFrame):
    return repr(data.to_dict("list"))


@comparable.register
def _(batch: RecordBatch):
    return comparable(batch.to_pyarrow())


@comparable.register
def _(batches: RecordBatchStream):
    return [comparable(batch) for batch in batches]


@contextmanager
def proxied():
    """A session of the proxy class."""
    yield ObservedSessionContext


@contextmanager
def patched():
    """A session of DataFusion's patched class."""
    instrumentor = DataFusionInstrumentor()
    instrumentor.instrument()
    try:
        yield SessionContext
    finally:
        instrumentor.uninstrument()


WAYS = {"proxied": proxied, "patched": patched}

CONFIG = SessionConfig().with_target_partitions(1).with_information_schema()


def started(make, files, kind="memory"):
    """A session with the rows as `t` and other rows as `o`."""
    ctx = make(CONFIG)
    if kind == "delta":
        ctx.register_table("t", DeltaTable(files / "delta"))
    else:
        ctx.from_arrow(DATA, "t")
    ctx.from_arrow(OTHER, "o")
    return ctx
