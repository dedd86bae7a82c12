"""What the processes of a ledger do now, and one line for each new write."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console

from deltawitness.answers.live.values import LiveReport, LiveWrite, RunningWrite
from deltawitness.report.format import number, operation, rows, seconds, short_ids, text, timestamp
from deltawitness.report.lineage import visible
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["duration", "live_line", "print_live"]

MAX_NAME = 60
"""Characters of a name; the rest is cut."""

_MINUTE = 60

_PROCESSES = (
    Column("pid", is_number=True),
    Column("state"),
    Column("job", wrap_at=8),
    Column("run"),
    Column("started", wrap_at=10, splits_words=False),
    Column("running", is_number=True),
    Column("not drained", is_number=True),
)

_RUNNING = (
    Column("pid", is_number=True),
    Column("table", wrap_at=8),
    Column("operation", wrap_at=9, splits_words=False),
    Column("elapsed", is_number=True),
    Column("rows", is_number=True),
    Column("rows/s", is_number=True),
    Column("note", wrap_at=8),
)

_WRITES = (
    Column("time", wrap_at=10, splits_words=False),
    Column("job", wrap_at=8),
    Column("table", wrap_at=8),
    Column("operation", wrap_at=9, splits_words=False),
    Column("version", is_number=True),
    Column("result", wrap_at=8),
    Column("landed"),
    Column("rows", wrap_at=4, splits_words=False),
    Column("seconds", is_number=True),
)

INTERRUPTED = "interrupted: its process has ended"


def print_live(console: Console, report: LiveReport) -> None:
    """Print the processes, the running writes and the latest writes.

    Args:
        console: the console to print on.
        report: what to print.
    """
    ids = short_ids(process.run_id for process in report.processes)
    if report.processes:
        cells = [
            [
                text(process.pid),
                process.state.value,
                _name(process.job),
                visible(ids.get(process.run_id or "", "")),
                timestamp(process.started_at),
                number(len(process.running)),
                number(process.pending),
            ]
            for process in report.processes
        ]
        print_table(console, _PROCESSES, cells)
    else:
        print_line(console, "no process writes to this ledger on this machine")
    if report.running:
        print_line(console, "")
        print_line(console, "running:")
        print_table(console, _RUNNING, [_running_cells(each, report.at) for each in report.running])
    print_line(console, "")
    if report.writes:
        print_line(console, "latest writes:")
        print_table(console, _WRITES, [_write_cells(write) for write in report.writes])
    else:
        print_line(console, "no finished writes")
    for problem in report.problems:
        print_line(console, f"note: {visible(problem)}")


def live_line(write: LiveWrite | RunningWrite) -> str:
    """Return the line of a finished or an interrupted write."""
    if isinstance(write, RunningWrite):
        what = operation(write.operation, write.mode)
        parts = [timestamp(write.started_at), _name(write.job), _name(write.table), what]
        return "  ".join([*filter(None, parts), INTERRUPTED])
    return "  ".join(cell for cell in _line_cells(write) if cell)


def _line_cells(write: LiveWrite) -> list[str]:
    at = "" if write.version is None else f"@{write.version}"
    landed = f"landed {write.landed}" if write.landed else ""
    took = "" if write.seconds is None else f"{seconds(write.seconds)} s"
    return [
        timestamp(write.time),
        _name(write.job),
        f"{_table(write)}{at}",
        operation(write.operation, write.mode),
        _result(write),
        landed,
        rows(write.rows_added, write.rows_updated, write.rows_deleted),
        took,
    ]


def _write_cells(write: LiveWrite) -> list[str]:
    return [
        timestamp(write.time),
        _name(write.job),
        _table(write),
        operation(write.operation, write.mode),
        text(write.version),
        _result(write),
        text(write.landed),
        rows(write.rows_added, write.rows_updated, write.rows_deleted),
        seconds(write.seconds),
    ]


def _result(write: LiveWrite) -> str:
    why = write.error_type or write.reason
    return visible(text(write.result or "finished") + (f": {why}" if why else ""))[:MAX_NAME]


def _table(write: LiveWrite | RunningWrite) -> str:
    return _name(write.table) or text(write.table_id)[:8]


def _name(name: str | None) -> str:
    shown = visible(name or "")
    return shown if len(shown) <= MAX_NAME else f"{shown[: MAX_NAME - 1]}…"


def _running_cells(write: RunningWrite, now: datetime) -> list[str]:
    elapsed = max(0.0, (now - write.started_at).total_seconds())
    rate = number(round(write.rows / elapsed)) if write.rows and elapsed else ""
    return [
        text(write.pid),
        _table(write),
        operation(write.operation, write.mode),
        duration(elapsed),
        number(write.rows),
        rate,
        INTERRUPTED if write.is_lost else "",
    ]


def duration(elapsed: float) -> str:
    """Return a duration in seconds, minutes and hours.

    >>> duration(3.25), duration(75), duration(7260)
    ('3.2 s', '1m 15s', '2h 01m')
    """
    if elapsed < _MINUTE:
        return f"{elapsed:.1f} s"
    minutes, rest = divmod(round(elapsed), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"
