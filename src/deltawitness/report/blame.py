"""The commits that wrote rows."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from deltawitness.answers.blame_values import BlamedRow, BlamedWrite, BlameResult
from deltawitness.report.format import count_of, operation, short_ids, text, timestamp
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
    writes = [
        (number, row, each) for number, row in enumerate(found.rows, 1) for each in row.writes
    ]
    ids = short_ids(each.commit.run_id for _, _, each in writes if each.commit is not None)
    cells = [_cells(*each, ids) for each in writes]
    count = count_of(len(found.rows), "row", "different rows")
    first = "the first " if found.is_cut else ""
    print_line(console, f"{found.table}: {first}{count} WHERE {found.where}")
    print_table(console, _COLUMNS, cells)
    if found.is_cut:
        print_line(console, "note: more rows meet the condition: --limit")
    for note in found.notes:
        print_line(console, f"note: {note}")


def _cells(number: int, row: BlamedRow, write: BlamedWrite, ids: Mapping[str, str]) -> list[str]:
    commit = write.commit
    what, time, run, job, message = [""] * 5
    if commit is not None:
        what, time = operation(commit.operation, commit.mode), timestamp(commit.time)
        run = ids.get(commit.run_id or "", "")
        job, message = text(commit.job), text(commit.message)
    return [
        str(number),
        ", ".join(f"{name}={value}" for name, value in (row.values or {}).items()),
        "unknown" if write.version is None else str(write.version),
        what if write.is_certain else f"{what} (may have copied it)",
        time,
        str(write.rows),
        run,
        job,
        message,
        ", ".join(map(str, write.copied_by)),
    ]
