"""The result of a statement that writes: one row, the count of the rows that it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

__all__ = ["count_frame", "count_in"]


def count_frame(ctx: SessionContext, count: int) -> DataFrame:
    """Return the result of a DML statement in DataFusion's form: one row, `count: UInt64`, not null."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    schema = pa.schema([pa.field("count", pa.uint64(), nullable=False)])
    batch = pa.record_batch([pa.array([count], pa.uint64())], schema=schema)
    rows = unpatched(ctx, "read_batches")([batch])
    # With an unqualified name, as in the engine's own result: derived column names include it.
    frame: DataFrame = unpatched(rows, "select")(rows.col("count").alias("count"))
    return frame


def count_in(batches: list[Any]) -> int:
    """Return the count in the batches that a DML statement of the engine has returned."""
    return sum(batch["count"][0].as_py() for batch in batches)
