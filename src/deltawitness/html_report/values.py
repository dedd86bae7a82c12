"""Words of the report for values of the ledger."""

from __future__ import annotations

import datetime as dt

from deltawitness.answers.rows import RunRow, WriteRow, seconds_of_run
from deltawitness.locations import last_segment
from deltawitness.report.format import operation

__all__ = ["RESULTS", "duration", "operation_name", "place_of", "run_seconds", "table_name"]

RESULTS = ("write", "error", "hit", "miss", "noop", "unknown")
"""The results that have a colour; others have that of `unknown`."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def place_of(row: WriteRow) -> str | None:
    """Return the location of the table of an operation, else its id."""
    return row.table_uri or row.table_id


def table_name(row: WriteRow) -> str:
    """Return the name of the table of an operation; an empty text if it has none."""
    place = place_of(row)
    return row.table_name or (last_segment(place) or place if place else "")


def operation_name(row: WriteRow) -> str:
    """Return the operation with its mode, in the terms of the engine or else of the cache."""
    return operation(row.operation or row.cache_operation, row.mode)


def run_seconds(run: RunRow) -> float | None:
    """Return the seconds of a run; None if they are not known."""
    return seconds_of_run(run.start_time, run.end_time, run.status)


def duration(seconds: float | dt.timedelta | None) -> str:
    """Return a duration in the largest unit that leaves at least 1.

    >>> duration(0.0421), duration(75), duration(7200), duration(None)
    ('42 ms', '1.2 min', '2.0 h', '')
    """
    if seconds is None:
        return ""
    count = seconds.total_seconds() if isinstance(seconds, dt.timedelta) else seconds
    if count < 1:
        return f"{count * 1000:.0f} ms"
    if count < _MINUTE:
        return f"{count:.1f} s"
    if count < _HOUR:
        return f"{count / _MINUTE:.1f} min"
    return f"{count / _HOUR:.1f} h" if count < _DAY * 2 else f"{count / _DAY:.1f} d"
