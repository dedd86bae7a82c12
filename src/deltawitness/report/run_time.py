"""Where the time of a run went, as a table and a list of parts."""

from __future__ import annotations

from rich.console import Console

from deltawitness.answers.run_time import OperationTime, RunTime
from deltawitness.plurals import count_of
from deltawitness.report.format import number, operation, text
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["print_time"]

_COLUMNS = (
    Column("table", wrap_at=10),
    Column("operation"),
    Column("ops", is_number=True),
    Column("errors", is_number=True),
    Column("total ms", is_number=True),
    Column("execution", is_number=True),
    Column("scan", is_number=True),
    Column("rewrite", is_number=True),
    Column("commit", is_number=True),
    Column("retries", is_number=True),
    Column("overhead", is_number=True),
)


def print_time(console: Console, found: RunTime) -> None:
    """Print a line for each table and operation, and the parts of the run's time.

    Args:
        console: the console to print on.
        found: the result.
    """
    status = found.status or "not ended"
    print_line(console, f"time of run {found.run_id}  job {text(found.job)}  {status}")
    if found.operations:
        print_table(console, _COLUMNS, [_cells(each) for each in found.operations])
    else:
        print_line(console, "the run has no operation")
    for line in _parts(found):
        print_line(console, line)
    for note in found.notes:
        print_line(console, f"note: {note}")


def _cells(each: OperationTime) -> tuple[str, ...]:
    return (
        text(each.name),
        operation(each.operation, each.mode),
        str(each.count),
        number(each.errors),
        _ms(each.total_ms),
        _ms(each.execution_ms),
        _ms(each.scan_ms),
        _ms(each.rewrite_ms),
        _ms(each.commit_ms),
        number(each.retries),
        _ms(each.overhead_ms, digits=3),
    )


def _parts(found: RunTime) -> list[str]:
    wall = found.wall_ms
    lines = [] if wall is None else [f"run         {_ms(wall)} ms"]
    lines.append(f"operations  {_ms(found.operations_ms)} ms{_share(found.operations_ms, wall)}")
    if found.program_ms is not None:
        lines.append(f"program     {_ms(found.program_ms)} ms{_share(found.program_ms, wall)}")
    if found.overhead_ms is not None:
        share = _share(found.overhead_ms, wall)
        lines.append(f"observation {_ms(found.overhead_ms, digits=3)} ms{share}")
    if found.hits:
        lines.append(f"saved       {_ms(found.saved_ms)} ms by {count_of(found.hits, 'cache hit')}")
    return lines


def _share(part: float, total: float | None) -> str:
    return f" ({part / total:.1%})" if total else ""


def _ms(value: float | None, *, digits: int = 1) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
