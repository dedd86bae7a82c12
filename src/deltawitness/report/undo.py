"""The plan or the result of an undo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from deltawitness.answers.undo_plan import LaterCommit, UndoPlan, UndoState, UndoTable
from deltawitness.plurals import count_of
from deltawitness.report.format import text
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["STATE_WORDS", "later_lines", "print_undo", "print_undo_tables"]

LATER_SHOWN = 10
"""Maximum number of later commits that are printed of a table."""

_COLUMNS = (
    Column("table", wrap_at=8),
    Column("state"),
    Column("versions", wrap_at=8),
    Column("last", is_number=True),
    Column("before", is_number=True),
    Column("restored", is_number=True),
    Column("why", wrap_at=20),
)

STATE_WORDS = {
    UndoState.RESTORE: "to restore",
    UndoState.RESTORED: "restored",
    UndoState.CREATED: "created by the run and not dropped",
    UndoState.UNCHANGED: "unchanged",
    UndoState.REFUSED: "refused",
    UndoState.FAILED: "failed",
}


def print_undo(console: Console, plan: UndoPlan) -> None:
    """Print a line for each table, the later commits of others, the notes and the counts."""
    status = plan.status or "not ended"
    print_line(console, f"undo of run {plan.run_id}  job {plan.job}  {status}")
    print_undo_tables(console, plan.tables)
    for line in _lines(plan):
        print_line(console, line)


def print_undo_tables(console: Console, tables: Sequence[UndoTable]) -> None:
    """Print a line for each table."""
    if tables:
        print_table(console, _COLUMNS, [_cells(table) for table in tables])


def _cells(table: UndoTable) -> tuple[str, ...]:
    versions = ", ".join(map(str, table.versions[:LATER_SHOWN]))
    more = ", ..." if len(table.versions) > LATER_SHOWN else ""
    return (
        table.name,
        table.state.value,
        versions + more,
        text(table.current),
        text(table.before),
        text(table.restored_version),
        text(table.reason),
    )


def _lines(plan: UndoPlan) -> Iterator[str]:
    for table in plan.tables:
        yield from later_lines(table)
    for note in plan.notes:
        yield f"note: {note}"
    counts = [(word, len(plan.in_state(state))) for state, word in STATE_WORDS.items()]
    named = ", ".join(f"{count:,} {word}" for word, count in counts if count)
    tables = count_of(len(plan.tables), "table")
    yield f"{tables}: {named}" if plan.tables else "the run has written no table"
    if plan.undo_run_id is not None:
        yield f"restored by run {plan.undo_run_id}"
    if not plan.is_applied and plan.in_state(UndoState.RESTORE):
        yield "use --apply to restore"


def later_lines(table: UndoTable) -> Iterator[str]:
    """Yield a line for each commit of others that a restore discards."""
    words = "was discarded" if table.state is UndoState.RESTORED else "would be discarded"
    for commit in table.later[:LATER_SHOWN]:
        yield f"{table.name}@{commit.version} {words}: {_who(commit)}"
    if len(table.later) > LATER_SHOWN:
        yield f"{table.name}: {count_of(len(table.later) - LATER_SHOWN, 'more later commit')} of others"


def _who(commit: LaterCommit) -> str:
    by = "not observed" if commit.run_id is None else f"run {commit.run_id}"
    return f"{commit.operation or 'unknown operation'}, {by}"
