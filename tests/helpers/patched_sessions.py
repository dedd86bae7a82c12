"""DataFusion's classes patched for a block, and Delta tables for its sessions."""

from __future__ import annotations

from contextlib import contextmanager

import pyarrow as pa
from deltalake import DeltaTable

from deltawitness import DataFusionInstrumentor


@contextmanager
def observed():
    """DataFusion's classes, patched for the block."""
    instrumentor = DataFusionInstrumentor()
    instrumentor.instrument()
    try:
        yield instrumentor
    finally:
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


def rows(*ids):
    return pa.table({"id": pa.array(ids, pa.int64()), "word": ["w"] * len(ids)})


def ids(uri):
    return sorted(pa.table(DeltaTable(uri).scan(["id"]))["id"].to_pylist())
