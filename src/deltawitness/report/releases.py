"""Releases: lists, differences, checks and restores, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console

from deltawitness.answers.releases.values import (
    CheckedTable,
    ReleaseCheck,
    ReleaseDiff,
    ReleaseRestore,
    ReleaseTableDiff,
)
from deltawitness.answers.undo_plan import UndoState
from deltawitness.ledger.tables.releases import Release, ReleasedTable
from deltawitness.plurals import count_of
from deltawitness.report.format import rows, text, timestamp
from deltawitness.report.tables import Column, print_line, print_table
from deltawitness.report.undo import STATE_WORDS, later_lines, print_undo_tables

__all__ = [
    "print_release_check",
    "print_release_diff",
    "print_release_restore",
    "print_releases",
]

MISSING_SHOWN = 10
"""Maximum number of missing files that are printed of a table."""

_RELEASES = (
    Column("release"),
    Column("created", wrap_at=10, splits_words=False),
    Column("tables", wrap_at=16),
    Column("author", wrap_at=8),
    Column("message", wrap_at=16),
)
_DIFF = (
    Column("table", wrap_at=8),
    Column("change"),
    Column("a", is_number=True),
    Column("b", is_number=True),
    Column("rows", wrap_at=4, splits_words=False),
    Column("columns", wrap_at=8),
    Column("operations", is_number=True),
)
_CHECK = (
    Column("table", wrap_at=8),
    Column("version", is_number=True),
    Column("state"),
    Column("files", is_number=True),
    Column("missing", is_number=True),
    Column("why", wrap_at=20),
)


def print_releases(console: Console, releases: Iterable[Release]) -> None:
    """Print a line for each release, and their number."""
    lines = [
        (
            each.name,
            timestamp(each.created),
            ", ".join(map(str, each.tables)),
            text(each.author),
            text(each.message),
        )
        for each in releases
    ]
    if lines:
        print_table(console, _RELEASES, lines)
    print_line(console, count_of(len(lines), "release"))


def print_release_diff(console: Console, found: ReleaseDiff) -> None:
    """Print a line for each table, and why tables could not be compared."""
    print_line(console, f"{found.a} -> {found.b or 'last versions'}")
    print_table(console, _DIFF, [_diff_cells(table) for table in found.tables])
    for table in found.tables:
        if table.problem is not None:
            print_line(console, f"{table.name}: {table.problem}")
    print_line(console, "different" if found.is_different else "no difference")


def _diff_cells(table: ReleaseTableDiff) -> tuple[str, ...]:
    diff = table.diff
    changes = None if diff is None else diff.rows
    return (
        table.name,
        "" if table.change is None else table.change.value,
        _version(table.a),
        _version(table.b),
        "" if changes is None else rows(changes.added, changes.changed, changes.removed),
        "" if diff is None else ", ".join(f"{each.name} {each.change}" for each in diff.columns),
        "" if diff is None or not diff.operations else str(len(diff.operations)),
    )


def _version(table: ReleasedTable | None) -> str:
    return "" if table is None else str(table.version)


def print_release_check(console: Console, found: ReleaseCheck) -> None:
    """Print a line for each table, its missing files, and the result."""
    print_table(console, _CHECK, [_check_cells(table) for table in found.tables])
    for table in found.tables:
        for line in _missing(table):
            print_line(console, line)
    bad = sum(table.state.value != "ok" for table in found.tables)
    tables = count_of(len(found.tables), "table")
    print_line(console, f"{found.name}: {tables}, {'all readable' if not bad else f'{bad:,} not'}")


def _check_cells(table: CheckedTable) -> tuple[str, ...]:
    return (
        table.table.name,
        str(table.table.version),
        table.state.value,
        text(table.files),
        str(len(table.missing)) if table.missing else "",
        text(table.reason),
    )


def _missing(table: CheckedTable) -> Iterator[str]:
    yield from (f"{table.table}: missing {path}" for path in table.missing[:MISSING_SHOWN])
    if len(table.missing) > MISSING_SHOWN:
        yield f"{table.table}: {count_of(len(table.missing) - MISSING_SHOWN, 'more missing file')}"


def print_release_restore(console: Console, found: ReleaseRestore) -> None:
    """Print a line for each table, the commits that are discarded, and the counts."""
    print_line(console, f"restore of release {found.name}")
    print_undo_tables(console, found.tables)
    for table in found.tables:
        for line in later_lines(table):
            print_line(console, line)
    counts = [(STATE_WORDS[state], len(found.in_state(state))) for state in UndoState]
    named = ", ".join(f"{count:,} {word}" for word, count in counts if count)
    print_line(console, f"{count_of(len(found.tables), 'table')}: {named}")
    if found.run_id is not None:
        print_line(console, f"restored by run {found.run_id}")
    if not found.is_applied and found.in_state(UndoState.RESTORE):
        print_line(console, "use --apply to restore")
