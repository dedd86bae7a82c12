"""The cost of jobs, as a table."""

from __future__ import annotations

from rich.console import Console

from deltawitness.answers.cost_values import JobCost, TableCost
from deltawitness.report.format import number, size
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["print_cost"]

_COLUMNS = (
    Column("job", wrap_at=8),
    Column("table", wrap_at=10),
    Column("writes", is_number=True),
    Column("written", is_number=True),
    Column("new", is_number=True),
    Column("amplification", is_number=True),
    Column("removed", is_number=True),
    Column("held files", is_number=True),
    Column("held", is_number=True),
)


def print_cost(console: Console, found: TableCost) -> None:
    """Print a line for each job and table, and the sums.

    Args:
        console: the console to print on.
        found: the result.
    """
    if not found.jobs:
        print_line(console, "no commit matches")
    else:
        names = [each.name for each in found.jobs]
        uris = {(each.name, each.uri) for each in found.jobs}
        shared = {name for name in names if sum(name == other for other, _ in uris) > 1}
        rows = [_cells(each, each.uri if each.name in shared else each.name) for each in found.jobs]
        print_table(console, _COLUMNS, rows, total=_total(found))
    for note in found.notes:
        print_line(console, f"note: {note}")


def _cells(each: JobCost, table: str) -> tuple[str, ...]:
    return (
        each.job or "(not observed)",
        table,
        number(each.writes),
        size(each.bytes_written),
        size(each.bytes_new),
        _times(each.amplification, each.bytes_written),
        size(each.bytes_removed),
        number(each.held_files),
        size(each.held_bytes or 0),
    )


def _times(amplification: float | None, written: int) -> str:
    if amplification is None:
        return "only rewrites" if written else ""
    return f"{amplification:.1f}"


def _total(found: TableCost) -> tuple[str, ...]:
    written = sum(each.bytes_written for each in found.jobs)
    new = sum(each.bytes_new for each in found.jobs)
    return (
        "all",
        "",
        number(sum(each.writes for each in found.jobs)),
        size(written),
        size(new),
        _times(written / new if new else None, written),
        size(sum(each.bytes_removed for each in found.jobs)),
        number(sum(each.held_files or 0 for each in found.jobs)),
        size(sum(each.held_bytes or 0 for each in found.jobs)),
    )
