"""What differs between two versions of tables, or between two runs, as text."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from deltawitness.answers.diff.run_values import RunDiff
from deltawitness.answers.diff.table_values import (
    ColumnStatistics,
    RowChanges,
    RowExample,
    TableDiff,
)
from deltawitness.plurals import count_of
from deltawitness.report.format import (
    number,
    operation,
    row_values,
    rows,
    short_ids,
    size,
    text,
    timestamp,
)
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["print_run_diff", "print_table_diff"]

_OPERATIONS = (
    Column("version", is_number=True),
    Column("time", wrap_at=10, splits_words=False),
    Column("operation", wrap_at=9, splits_words=False),
    Column("rows", wrap_at=4, splits_words=False),
    Column("run"),
    Column("job", wrap_at=8),
    Column("message", wrap_at=16),
)

_SIDES = (Column("what"), Column("a", wrap_at=12), Column("b", wrap_at=12))
_COLUMNS = (Column("column"), Column("change"), Column("a", wrap_at=12), Column("b", wrap_at=12))
_EXAMPLES = (
    Column("change"),
    Column("rows", is_number=True),
    Column("row", wrap_at=16),
    Column("before", wrap_at=16),
    Column("after", wrap_at=16),
)
_STATISTICS = (
    Column("column"),
    Column("version"),
    Column("rows", is_number=True),
    Column("nulls", is_number=True),
    Column("distinct", is_number=True),
    Column("min", wrap_at=8),
    Column("max", wrap_at=8),
    Column("sum", wrap_at=8),
)


# --- tables ------------------------------------------------------------------------------------------


def print_table_diff(console: Console, found: TableDiff) -> None:
    """Print what differs between two versions of tables, without what is equal."""
    print_line(console, f"{found.a} -> {found.b}")
    _print_operations(console, found)
    if found.columns:
        print_line(console, "schema:")
        lines = [
            (
                each.name,
                each.change.value,
                _type(each.type_a, each.nullable_a),
                _type(each.type_b, each.nullable_b),
            )
            for each in found.columns
        ]
        print_table(console, _COLUMNS, lines)
    print_table(console, _SIDES, list(_summary(found)))
    if found.rows is not None:
        _print_rows(console, found.rows)
    _print_statistics(console, found)
    for note in found.notes:
        print_line(console, f"note: {note}")
    print_line(console, "different" if found.is_different else "no difference")


def _print_operations(console: Console, found: TableDiff) -> None:
    if not found.operations:
        return
    ids = short_ids(each.run_id for each in found.operations)
    lines = [
        (
            str(each.version),
            timestamp(each.time),
            operation(each.operation, each.mode),
            rows(each.rows_added, each.rows_updated, each.rows_deleted),
            ids.get(each.run_id or "", ""),
            text(each.job),
            text(each.message),
        )
        for each in found.operations
    ]
    print_line(console, "operations:")
    print_table(console, _OPERATIONS, lines)


def _type(name: str | None, is_nullable: bool | None) -> str:
    return "" if name is None else name if is_nullable else f"{name} not null"


def _summary(found: TableDiff) -> Iterator[tuple[str, str, str]]:
    yield "rows", _count(found.rows_a), _count(found.rows_b)
    files = found.files
    shared = f"{files.shared:,} in both"
    yield "files", f"{shared}, {files.removed:,} removed", f"{shared}, {files.added:,} added"
    if files.removed or files.added:
        yield "bytes", size(files.bytes_removed) or "0 B", size(files.bytes_added) or "0 B"
    if found.partition_columns_a != found.partition_columns_b:
        sides = (", ".join(each) for each in (found.partition_columns_a, found.partition_columns_b))
        before, after = sides
        yield "partition columns", before, after
    for each in found.properties:
        yield each.name, text(each.a), text(each.b)


def _count(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _print_rows(console: Console, changes: RowChanges) -> None:
    by = f" by key {', '.join(changes.key)}" if changes.key else ""
    parts = [f"{changes.added:,} added", f"{changes.removed:,} removed"]
    if changes.changed is not None:
        parts.append(f"{changes.changed:,} changed")
    print_line(console, f"rows{by}: {', '.join(parts)}")
    if changes.columns:
        columns = (Column("column"), Column("changed", is_number=True))
        print_table(
            console, columns, [(name, number(count)) for name, count in changes.columns.items()]
        )
    if changes.examples:
        print_line(console, "examples:")
        print_table(console, _EXAMPLES, [_example(each) for each in changes.examples])


def _example(example: RowExample) -> tuple[str, ...]:
    return (
        example.change.value,
        "" if example.count == 1 else number(example.count),
        row_values(example.values),
        row_values(example.before),
        row_values(example.after),
    )


def _print_statistics(console: Console, found: TableDiff) -> None:
    if not found.statistics:
        return
    names = str(found.a), str(found.b)
    lines = [
        _statistics(column if at == 0 or both[0] is None else "", name, side)
        for column, both in found.statistics.items()
        for at, (name, side) in enumerate(zip(names, both, strict=True))
        if side is not None
    ]
    print_line(console, "columns:")
    print_table(console, _STATISTICS, lines)


def _statistics(column: str, name: str, side: ColumnStatistics) -> tuple[str, ...]:
    return (
        column,
        name,
        f"{side.rows:,}",
        number(side.nulls),
        number(side.distinct),
        *(text(value) for value in (side.min, side.max, side.sum)),
    )


# --- runs --------------------------------------------------------------------------------------------

_DIFFERENCES = (
    Column("cause"),
    Column("what", wrap_at=12),
    Column("a", wrap_at=12),
    Column("b", wrap_at=12),
)


def print_run_diff(console: Console, found: RunDiff) -> None:
    """Print what differs between two runs, those differences first that explain most."""
    ids = short_ids((found.a.run_id, found.b.run_id))
    names = (f"run {ids[each.run_id]} ({each.job or 'no job'})" for each in (found.a, found.b))
    print_line(console, " -> ".join(names))
    lines = [
        (each.cause.value, each.what, text(each.a), text(each.b)) for each in found.differences
    ]
    if lines:
        print_table(console, _DIFFERENCES, lines)
    same = sum(each.a is not None and each.b is not None for each in found.tables)
    print_line(console, f"{count_of(len(found.tables), 'table')}, {same:,} in both runs")
    print_line(console, found.explanation)
