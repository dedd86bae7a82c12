"""Statistics of the columns of two versions, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from deltawitness.answers.diff.engine import Engine, compared
from deltawitness.answers.diff.sources import Sources
from deltawitness.answers.diff.table_values import ColumnStatistics

if TYPE_CHECKING:
    import pyarrow as pa

    from deltawitness.answers.diff.datasets import RowSource

__all__ = ["column_statistics"]

_Both = tuple[ColumnStatistics | None, ColumnStatistics | None]


def column_statistics(sources: Sources, *, show_rows: bool) -> Mapping[str, _Both]:
    """Return the statistics of each column of both versions; None for a version without the column.

    All rows of both versions are read.

    Args:
        sources: the rows of both versions.
        show_rows: whether to return the least and greatest values of text and binary columns.
    """
    left, right = (_statistics(each, show_rows=show_rows) for each in (sources.a, sources.b))
    return {name: (left.get(name), right.get(name)) for name in {**left, **right}}


def _statistics(source: RowSource, *, show_rows: bool) -> dict[str, ColumnStatistics]:
    columns = source.schema.names
    engine = Engine()
    engine.register("t", compared(source, columns))
    parts = ["count(*) AS n"]
    for at, field in enumerate(source.schema):
        parts += _expressions(f"c{at}", field.type, show_rows=show_rows)
    row = engine.row(f"SELECT {', '.join(parts)} FROM t")  # noqa: S608 - column numbers
    return {name: _of(row, f"c{at}") for at, name in enumerate(columns)}


def _expressions(name: str, kind: pa.DataType, *, show_rows: bool) -> list[str]:
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    parts = [f"count({name}) AS {name}_count"]
    if pt.is_nested(kind) or pt.is_null(kind):
        return parts
    is_number = pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)
    is_hashable = pt.is_integer(kind) or pt.is_string(kind) or pt.is_timestamp(kind)
    counted = name if is_hashable else f"CAST({name} AS VARCHAR)"
    is_binary = "binary" in str(kind)
    if not is_binary:
        parts.append(f"approx_distinct({counted}) AS {name}_distinct")
    is_bare = not (pt.is_boolean(kind) or is_binary or "string" in str(kind))
    if is_bare or show_rows:
        parts += [f"min({name}) AS {name}_min", f"max({name}) AS {name}_max"]
    if is_number:
        exact = f"CAST({name} AS DECIMAL(38, 0))" if pt.is_integer(kind) else name
        parts.append(f"sum({exact}) AS {name}_sum")
    return parts


def _of(row: Mapping[str, Any], name: str) -> ColumnStatistics:
    total = row.get(f"{name}_sum")
    return ColumnStatistics(
        rows=row["n"],
        nulls=row["n"] - row[f"{name}_count"],
        distinct=row.get(f"{name}_distinct"),
        min=row.get(f"{name}_min"),
        max=row.get(f"{name}_max"),
        sum=int(total) if isinstance(total, Decimal) and total == int(total) else total,
    )
