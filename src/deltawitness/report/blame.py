"""The commits that wrote rows."""

from __future__ import annotations

from rich.console import Console

from deltawitness.answers.blame_values import BlamedRow, BlamedWrite, BlameResult
from deltawitness.report.format import count_of, operation, text, timestamp
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["print_blame"]

_COLUMNS = (
    Column("row", is_number=True),
    Column("values", wrap_at=16),
    Column("version", is_number=True),
    Column("operation"),
    Column("time", wrap_at=10, splits_words=False),
    Column("rows", is_number=True),
    Column("run"),
    Column("job", wrap_at=8),
    Column("message", wrap_at=16),
    Column("copied by", wrap_at=8),
)


def print_blame(console: Console, found: BlameResult) -> None:
    """Print a line for each row and commit that wrote it."""
    if not found.rows:
        print_line(console, f"{found.table} has no row WHERE {found.where}")
        return
    cells = [
        _cells(number, row, write)
        for number, row in enumerate(found.rows, 1)
        for write in row.writes
    ]
    count = count_of(len(found.rows), "row", "different rows")
    first = "the first " if found.is_cut else ""
    print_line(console, f"{found.table}: {first}{count} WHERE {found.where}")
    print_table(console, _COLUMNS, cells)
    if found.is_cut:
        print_line(console, "note: more rows meet the condition: --limit")
    for note in found.notes:
        print_line(console, f"note: {note}")


def _cells(number: int, row: BlamedRow, write: BlamedWrite) -> list[str]:
    commit = write.commit
    values = "" if row.values is None else ", ".join(f"{k}={v}" for k, v in row.values.items())
    known = (
        [""] * 2
        if commit is None
        else [operation(commit.operation, commit.mode), timestamp(commit.time)]
    )
    run = (
        [""] * 3
        if commit is None
        else [text(commit.run_id), text(commit.job), text(commit.message)]
    )
    return [
        str(number),
        values,
        "before the log" if write.version is None else str(write.version),
        known[0] if write.is_certain else f"{known[0]} (may have copied it)",
        known[1],
        str(write.rows),
        *run,
        ", ".join(map(str, write.copied_by)),
    ]
