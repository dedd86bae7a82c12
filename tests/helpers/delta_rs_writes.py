"""Rows for tests of delta-rs, and the outcome of an observed write."""

from __future__ import annotations

import pyarrow as pa


def rows(*ids):
    return pa.table({"id": pa.array(ids, pa.int64()), "p": ["a"] * len(ids)})


def outcome(captured):
    """Return the outcome of the only observed write."""
    (event,) = captured.events
    return event.outcome
