"""The commits that wrote rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from rich.console import Console

from deltawitness.answers.blame_values import BlamedRow, BlamedWrite, BlameResult
from deltawitness.plurals import count_of
from deltawitness.report.format import operation, row_values, short_ids, text, timestamp
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
    """Print a line for each row and commit that wrote it; without values, a line for each commit."""
    if not found.rows:
        print_line(console, f"{found.table} has no row WHERE {found.where}")
        return
    ids = short_ids(
        each.commit.run_id for row in found.rows for each in row.writes if each.commit is not None
    )
    cells = [_cells(same, ids) for same in _by_commit(found.rows)]
    count = count_of(len(found.rows), "row", "different rows")
    first = "the first " if found.is_cut else ""
    print_line(console, f"{found.table}: {first}{count} WHERE {found.where}")
    print_table(console, _COLUMNS, cells)
    if found.is_cut:
        print_line(console, "note: more rows meet the condition: --limit")
    for note in found.notes:
        print_line(console, f"note: {note}")


_Numbered = tuple[int, BlamedRow, BlamedWrite]
"""The number of a row from 1, the row, and a commit that wrote it."""


def _by_commit(rows: Iterable[BlamedRow]) -> list[list[_Numbered]]:
    """Return the writes of rows; those of rows without values together if the commits are the same."""
    found: dict[tuple[object, ...], list[_Numbered]] = {}
    for number, row in enumerate(rows, 1):
        for each in row.writes:
            key = each.version, each.is_certain, each.copied_by
            same = found.setdefault((None if row.values is None else number, *key), [])
            same.append((number, row, each))
    return list(found.values())


def _cells(same: Sequence[_Numbered], ids: Mapping[str, str]) -> list[str]:
    _, row, write = same[0]
    commit = write.commit
    what, time, run, job, message = [""] * 5
    if commit is not None:
        what, time = operation(commit.operation, commit.mode), timestamp(commit.time)
        run = ids.get(commit.run_id or "", "")
        job, message = text(commit.job), text(commit.message)
    return [
        _spans([number for number, *_ in same]),
        row_values(row.values or {}),
        "unknown" if write.version is None else str(write.version),
        what if write.is_certain else f"{what} (may have copied it)",
        time,
        str(sum(each.rows for *_, each in same)),
        run,
        job,
        message,
        ", ".join(map(str, write.copied_by)),
    ]


def _spans(numbers: Sequence[int]) -> str:
    """Return increasing numbers as text.

    >>> _spans([1, 2, 3, 5]), _spans([2])
    ('1 to 3, 5', '2')
    """
    spans = []
    for _, same in groupby(enumerate(numbers), key=lambda each: each[1] - each[0]):
        first, *others = [number for _, number in same]
        spans.append(f"{first} to {others[-1]}" if others else str(first))
    return ", ".join(spans)
