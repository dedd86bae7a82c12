"""Conversions of the ledger's rows between JSON and Arrow, and queries over its tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.json as pj

from deltawitness.ledger.tables.schema import INVENTORY, PARTITION, LedgerTable
from deltawitness.ledger.tables.shards import TableParts
from deltawitness.run import suppressed

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "json_schema",
    "operation_rows",
    "query",
    "rows_from",
    "valid_rows",
    "with_partition",
    "without_views",
]

T = TypeVar("T")


def json_schema(table: LedgerTable) -> pa.Schema:
    """Return the schema of a table's JSON rows: int64 microseconds for times, no partition."""
    return pa.schema(
        [
            column.with_type(pa.int64()) if pa.types.is_timestamp(column.type) else column
            for column in table.schema
            if column.name != PARTITION
        ]
    )


def with_partition(table: LedgerTable, rows: pa.Table) -> pa.Table:
    """Add the partition column to rows and cast them to the table's schema.

    The partition is the UTC date of the table's first time column.

    Args:
        table: the table of the rows.
        rows: rows in the schema of :func:`json_schema`.
    """
    first_time = next(column.name for column in table.schema if pa.types.is_timestamp(column.type))
    # UTC dates: drop the time zone without converting to the local one.
    days = rows[first_time].cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    return rows.append_column(PARTITION, days).select(table.schema.names).cast(table.schema)


def operation_rows(lines: Sequence[bytes]) -> pa.Table:
    """Parse rows of the inventory from JSON.

    Args:
        lines: each row as a JSON object; unknown columns are ignored.
    """
    if not lines:
        return INVENTORY.schema.empty_table()
    content = b"\n".join(lines)
    rows = pj.read_json(
        io.BytesIO(content),
        # One block, because a row may be longer than the default block size.
        read_options=pj.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=pj.ParseOptions(
            explicit_schema=json_schema(INVENTORY), unexpected_field_behavior="ignore"
        ),
    )
    return with_partition(INVENTORY, rows)


def rows_from(table: LedgerTable, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Convert Python rows to the schema of a ledger table; missing columns are null."""
    return with_partition(table, pa.Table.from_pylist(rows, json_schema(table)))


def valid_rows(make: Callable[[Sequence[T]], pa.Table], rows: Sequence[T]) -> tuple[pa.Table, int]:
    """Convert rows, leaving out those that do not fit the table's columns or have no date.

    One invalid row (text in a count column, for example) must not block the others.

    Args:
        make: converts rows to an Arrow table.
        rows: the rows.

    Returns:
        The converted rows and the number of rows left out.
    """
    try:
        made = make(rows)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        if len(rows) == 1:
            return make([]), 1
        middle = len(rows) // 2
        parts = [valid_rows(make, part) for part in (rows[:middle], rows[middle:])]
        return pa.concat_tables(part for part, _ in parts), sum(bad for _, bad in parts)
    valid = made.filter(made[PARTITION].is_valid())
    return valid, made.num_rows - valid.num_rows


def query(table: DeltaTable | TableParts, sql: str) -> pa.Table:
    """Run a query over one of the ledger's tables and return the rows.

    Uses delta-rs' own query builder because it also reads tables on object stores.

    Args:
        table: an open table, or the main table and the shards; `ledger` in the query.
        sql: the query.
    """
    from deltalake import QueryBuilder  # noqa: PLC0415 - heavy

    if not isinstance(table, TableParts):
        sources = {"ledger": table}
    elif not table.shards:
        sources = table.sources("ledger")
    else:
        names = table.column_names
        union = table.union(
            "main", lambda there: ", ".join(_column(name, name in there) for name in names)
        )
        sources, sql = table.sources("main"), f"WITH ledger AS ({union}) {sql}"
    with suppressed():  # this is not a read of the program
        builder = QueryBuilder()
        for name, opened in sources.items():
            builder.register(name, opened)
    return without_views(pa.table(builder.execute(sql).read_all()))


def _column(name: str, is_there: bool) -> str:
    return f'"{name}"' if is_there else f'NULL AS "{name}"'


def without_views(found: pa.Table) -> pa.Table:
    """Return a result with strings for string views, which Arrow's functions do not compare with strings.

    Args:
        found: rows that delta-rs has read.
    """
    plain = [
        column.with_type(pa.string()) if pa.types.is_string_view(column.type) else column
        for column in found.schema
    ]
    return found.cast(pa.schema(plain))
