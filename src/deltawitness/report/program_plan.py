"""The plan of a program, and what became of it, as text."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from deltawitness.answers.diff.table_values import DiffChange
from deltawitness.answers.program_plan.values import (
    AppliedPlan,
    AppliedTable,
    PlannedState,
    PlannedTable,
    ProgramPlan,
)
from deltawitness.plurals import count_of
from deltawitness.report.format import operation, rows, size, text
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["print_applied", "print_plan"]

_COLUMNS = (
    Column("table", wrap_at=8),
    Column("state"),
    Column("version", is_number=True),
    Column("after", is_number=True),
    Column("operations", wrap_at=12),
    Column("rows", wrap_at=4, splits_words=False),
    Column("files", wrap_at=4, splits_words=False),
    Column("bytes", wrap_at=4, splits_words=False),
)

_APPLIED = (
    Column("table", wrap_at=8),
    Column("version", is_number=True),
    Column("planned", is_number=True),
    Column("after", is_number=True),
    Column("others", wrap_at=8),
)

_DEFAULT_MODE = "errorifexists"

_SIGNS = {DiffChange.ADDED: "+", DiffChange.REMOVED: "-", DiffChange.CHANGED: "~"}

_WORDS = {
    PlannedState.CREATE: "to create",
    PlannedState.CHANGE: "to change",
    PlannedState.READ: "read",
    PlannedState.ABSENT: "absent",
}


def print_plan(console: Console, plan: ProgramPlan) -> None:
    """Print a line for each table, its changes of schema and properties, the notes and the counts."""
    print_line(console, f"plan {plan.plan_id}")
    if plan.tables:
        print_table(console, _COLUMNS, [_cells(table) for table in plan.tables])
    for line in _lines(plan):
        print_line(console, line)


def _cells(table: PlannedTable) -> tuple[str, ...]:
    files = table.files
    return (
        table.name,
        table.state.value,
        text(table.version),
        text(table.planned_version),
        ", ".join(_operations(table)),
        _rows(table),
        "" if files is None else rows(files.added, None, files.removed),
        "" if files is None else _bytes(files.bytes_added, files.bytes_removed),
    )


def _operations(table: PlannedTable) -> Iterator[str]:
    """Yield the operations in order; equal ones in a row once, with their number."""
    counted: list[tuple[str, int]] = []
    for each in table.operations:
        mode = None if each.mode == _DEFAULT_MODE else each.mode
        name = operation(each.operation, mode) or "unknown"
        count = counted.pop()[1] if counted and counted[-1][0] == name else 0
        counted.append((name, count + 1))
    for name, count in counted:
        yield name if count == 1 else f"{name} x{count}"


def _rows(table: PlannedTable) -> str:
    changes = table.rows
    if table.state is PlannedState.CREATE:
        return rows(table.rows_after, None, None)
    if changes is None:
        return "" if table.files is None else "not compared"
    return rows(changes.added, changes.changed, changes.removed)


def _bytes(added: int, removed: int) -> str:
    parts = [f"+{size(added)}" if added else "", f"-{size(removed)}" if removed else ""]
    return " ".join(part for part in parts if part)


def _lines(plan: ProgramPlan) -> Iterator[str]:
    for table in plan.tables:
        yield from (f"{table.name}: {line}" for line in _changes(table))
    for reason in plan.refused:
        yield f"refused: {reason}"
    for note in plan.notes:
        yield f"note: {note}"
    counts = ((word, len(plan.in_state(state))) for state, word in _WORDS.items())
    named = ", ".join(f"{count:,} {word}" for word, count in counts if count)
    tables = count_of(len(plan.tables), "table")
    yield (
        f"{tables}: {named}; nothing was changed" if plan.tables else "the program opened no table"
    )
    if plan.exit_code:
        yield f"the program ended with exit code {plan.exit_code}, so the plan cannot be applied"
    elif plan.refused:
        yield "the plan cannot be applied: it does not have all tables of the program"
    elif plan.in_state(PlannedState.CREATE, PlannedState.CHANGE):
        yield f"run it: deltawitness apply {plan.plan_id}"
    if plan.clones is not None:
        yield f"clones: {plan.clones}"


def _changes(table: PlannedTable) -> Iterator[str]:
    """Yield the changes of the schema and the properties."""
    for each in table.columns:
        after = "" if each.type_b is None else f" {_type(each.type_b, each.nullable_b)}"
        before = f" (was {_type(each.type_a, each.nullable_a)})" if each.type_a else ""
        removed = each.change is DiffChange.REMOVED
        yield f"{_SIGNS[each.change]} column {each.name}{'' if removed else after + before}"
    if table.partition_columns:
        yield f"partitioned by {', '.join(table.partition_columns)}"
    for found in table.properties:
        yield f"property {found.name}: {found.a or 'not set'} -> {found.b or 'not set'}"


def _type(name: str | None, is_nullable: bool | None) -> str:
    return f"{name}" if is_nullable else f"{name} not null"


def print_applied(console: Console, applied: AppliedPlan) -> None:
    """Print why a plan was not applied, or the versions of its tables."""
    for reason in applied.reasons:
        print_line(console, f"refused: {reason}")
    if applied.reasons:
        print_line(console, "the program was not started: plan it again")
        return
    if applied.tables:
        print_table(console, _APPLIED, [_applied_cells(table) for table in applied.tables])
    for path in applied.unplanned:
        print_line(console, f"note: the plan does not have {path}, which the program has opened")
    different = sum(not table.is_as_planned for table in applied.tables)
    end = "as planned" if not different else f"{different:,} not as planned"
    print_line(console, f"{count_of(len(applied.tables), 'table')}: {end}")


def _applied_cells(table: AppliedTable) -> tuple[str, ...]:
    return (
        table.name,
        text(table.version),
        text(table.planned_version),
        text(table.applied_version),
        ", ".join(map(str, table.others)),
    )
