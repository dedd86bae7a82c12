"""Rows between JSON, Arrow and the ledger's tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from deltawitness.ledger.tables.schema import INVENTORY, PARTITION, LedgerTable
from deltawitness.run import suppressed

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "json_schema",
    "operation_rows",
    "query",
    "quote_literal",
    "rows_from",
    "valid_rows",
    "with_partition",
]

T = TypeVar("T")


def json_schema(table: LedgerTable) -> pa.Schema:
    """Return a table's schema as rows are told: times as whole microseconds, and no partition."""
    return pa.schema(
        [
            column.with_type(pa.int64()) if pa.types.is_timestamp(column.type) else column
            for column in table.schema
            if column.name != PARTITION
        ]
    )


def with_partition(table: LedgerTable, rows: pa.Table) -> pa.Table:
    """Return rows as they were told with the types of the table, and with their partition.

    Args:
        table: whose rows they are.
        rows: of the schema that :func:`json_schema` gives.
    """
    first_time = next(column.name for column in table.schema if pa.types.is_timestamp(column.type))
    # Dates are those of UTC: the zone is dropped, not converted to that of the machine.
    days = rows[first_time].cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    return rows.append_column(PARTITION, days).select(table.schema.names).cast(table.schema)


def operation_rows(lines: Sequence[bytes]) -> pa.Table:
    """Return rows of the inventory.

    Args:
        lines: each row as JSON; columns that are not known here are left out.
    """
    if not lines:
        return INVENTORY.schema.empty_table()
    content = b"\n".join(lines)
    rows = pj.read_json(
        io.BytesIO(content),
        # In one block, because a row may be longer than a block of the default size.
        read_options=pj.ReadOptions(use_threads=False, block_size=len(content) + 1),
        parse_options=pj.ParseOptions(
            explicit_schema=json_schema(INVENTORY), unexpected_field_behavior="ignore"
        ),
    )
    return with_partition(INVENTORY, rows)


def rows_from(table: LedgerTable, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows of any of the ledger's tables as they were told; what is not known is left out."""
    return with_partition(table, pa.Table.from_pylist(rows, json_schema(table)))


def valid_rows(make: Callable[[Sequence[T]], pa.Table], rows: Sequence[T]) -> tuple[pa.Table, int]:
    """Return those rows that the table's columns can hold and that have a date, and how many cannot be told.

    A single row with a text where a count belongs must not keep all others out of the ledger.

    Args:
        make: makes rows of the table.
        rows: as they were told.
    """
    try:
        made = make(rows)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        if len(rows) == 1:
            return make([]), 1
        middle = len(rows) // 2
        parts = [valid_rows(make, part) for part in (rows[:middle], rows[middle:])]
        return pa.concat_tables(part for part, _ in parts), sum(bad for _, bad in parts)
    valid = made.filter(pc.is_valid(made[PARTITION]))
    return valid, made.num_rows - valid.num_rows


def query(table: DeltaTable, sql: str) -> pa.Table:
    """Return what a query over one of the ledger's tables says.

    The engine's own query builder is used, because it reads tables on object stores as well.

    Args:
        table: registered as `ledger`.
        sql: the query.
    """
    from deltalake import QueryBuilder  # noqa: PLC0415 - heavy

    with suppressed():  # the program has not read this table
        builder = QueryBuilder().register("ledger", table)
    found = pa.table(builder.execute(sql).read_all())
    # The reader gives views of text, which Arrow's own functions do not compare with text.
    plain = [
        column.with_type(pa.string()) if pa.types.is_string_view(column.type) else column
        for column in found.schema
    ]
    return found.cast(pa.schema(plain))


def quote_literal(text: str) -> str:
    """Return a text as a literal of SQL.

    >>> quote_literal("it's")
    "'it''s'"
    """
    return "'" + str(text).replace("'", "''") + "'"
