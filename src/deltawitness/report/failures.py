"""The failed operations of a run: a table with the error of each, and whether its commit landed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from deltawitness.events import Landed
from deltawitness.events_file import EventLine
from deltawitness.report.format import operation, short_ids, table_name, text, timestamp
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["failed_rows", "landed_text", "print_errors", "print_failed"]

Row = Mapping[str, Any]

FAILED_SHOWN = 20
"""Maximum number of failed operations that are printed of a run."""

_NANOSECONDS = 1e9

_COLUMNS = (
    Column("time", wrap_at=10, splits_words=False),
    Column("table", wrap_at=10),
    Column("operation", wrap_at=9, splits_words=False),
    Column("error", wrap_at=12),
    Column("landed", wrap_at=12),
    Column("message", wrap_at=20),
)


def failed_rows(events: Iterable[EventLine]) -> list[dict[str, Any]]:
    """Return the failed operations of an events file, with the names of the ledger's columns.

    Args:
        events: the lines of the file.
    """
    return [
        {
            "event_time": dt.datetime.fromtimestamp(event.started_at / _NANOSECONDS, tz=dt.UTC),
            "table_name": event.table,
            "operation": event.operation,
            "mode": event.mode,
            "error_type": event.error_type,
            "exception_type": event.exception_type,
            "error_message": event.message,
            "landed": event.landed,
            "versions": [*event.versions],
        }
        for event in events
        if event.error_type is not None
    ]


def landed_text(landed: str | None, versions: Sequence[int] | None) -> str:
    """Return whether the commit of a failed write is in the log; a commit that is must not be retried.

    Args:
        landed: a value of :class:`deltawitness.events.Landed`, or None.
        versions: the versions that the write committed.

    >>> landed_text("yes", [3]), landed_text("no", [])
    ('landed as v3: do not retry', 'no')
    """
    if landed != Landed.YES:
        return text(landed)
    where = f" as {', '.join(f'v{version}' for version in versions)}" if versions else ""
    return f"landed{where}: do not retry"


def print_failed(console: Console, rows: Sequence[Row], run_id: str) -> None:
    """Print a line for each failed operation, up to `FAILED_SHOWN`.

    The message of an exception that the program raised may be data, so its class is printed instead.

    Args:
        console: the console to print on.
        rows: rows of the ledger, or :func:`failed_rows`.
        run_id: id of the run, for the command that lists the rest.
    """
    print_line(console, "failed:")
    print_table(
        console,
        _COLUMNS,
        [[timestamp(row["event_time"]), *_error_cells(row)] for row in rows[:FAILED_SHOWN]],
    )
    more = len(rows) - FAILED_SHOWN
    if more > 0:
        print_line(console, f"{more} more: deltawitness writes --run {run_id} --result error")


def _error_cells(row: Row) -> list[str]:
    return [
        table_name(row),
        operation(row["operation"], row["mode"]),
        text(row["error_type"]),
        landed_text(row["landed"], row["versions"]),
        text(row["error_message"] or row["exception_type"]),
    ]


_ERROR_COLUMNS = (
    _COLUMNS[0],
    Column("job", wrap_at=8),
    Column("run"),
    *_COLUMNS[1:],
)


def print_errors(console: Console, rows: Sequence[Row], similar_ids: Iterable[str] = ()) -> None:
    """Print a line for each failed operation, with its job and its run.

    Args:
        console: the console to print on.
        rows: rows of the inventory.
        similar_ids: ids of other runs, from which the shortened ids have to differ.
    """
    if not rows:
        console.print("no failed operations", highlight=False)
        return
    ids = short_ids((row["run_id"] for row in rows), similar_ids)
    cells = [
        [
            timestamp(row["event_time"]),
            text(row["job"]),
            ids.get(row["run_id"], ""),
            *_error_cells(row),
        ]
        for row in rows
    ]
    print_table(console, _ERROR_COLUMNS, cells)
