"""Generated columns of a Delta table: delta-rs computes those that the written rows do not have.

DataFusion does not support generated columns. It plans an INSERT with a NULL for each column that the
statement does not name, and delta-rs would check that NULL against the column's expression.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame
    from deltalake import DeltaTable

__all__ = ["generated_columns", "without_columns"]

GENERATION_EXPRESSION = "delta.generationExpression"
"""The key in a column's metadata that holds its expression, as the Delta protocol names it."""


def generated_columns(table: DeltaTable) -> frozenset[str]:
    """Return the names of the columns that delta-rs computes when a write leaves them out.

    Args:
        table: the open table.
    """
    return frozenset(
        column.name for column in table.schema().fields if GENERATION_EXPRESSION in column.metadata
    )


def without_columns(
    frame: DataFrame, schema: pa.Schema, columns: Collection[str]
) -> tuple[DataFrame, pa.Schema]:
    """Return a frame and its target schema without these columns.

    Args:
        frame: the rows.
        schema: the types with which the rows are written.
        columns: names of the columns to remove.
    """
    if not columns:
        return frame, schema
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    fields = [field for field in schema if field.name not in columns]
    selected: DataFrame = unpatched(frame, "select")(*(frame.col(field.name) for field in fields))
    return selected, pa.schema(fields)
