"""Single cells of a table: counts, sizes, moments, spans of time."""

from __future__ import annotations

import datetime as dt
import re

__all__ = ["count_of", "number", "rows", "seconds", "short_id", "size", "text", "timestamp"]

_KIBI = 1024
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def number(count: int | None) -> str:
    """Return a count; nothing when it is zero or not known.

    >>> number(1234567), number(0), number(None)
    ('1,234,567', '', '')
    """
    return f"{count:,}" if count else ""


def count_of(count: int, noun: str) -> str:
    """Return a count with what it counts.

    >>> counted(1, "table"), count_of(1200, "commit")
    ('1 table', '1,200 commits')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size(count: float) -> str:
    """Return a number of bytes in its best unit; nothing when it is zero.

    >>> size(1536), size(0)
    ('2 KiB', '')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIBI:
            return f"{count:.0f} {unit}" if count else ""
        count /= _KIBI
    return f"{count:.1f} TiB"


def timestamp(time: dt.datetime | None) -> str:
    """Return a moment in UTC, to the second.

    >>> timestamp(dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC))
    '2024-02-29 12:30:00'
    """
    return "" if time is None else time.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def seconds(count: float | None) -> str:
    """Return a span of time, to the millisecond.

    >>> seconds(1.5), seconds(None)
    ('1.500', '')
    """
    return "" if count is None else f"{count:.3f}"


def text(value: object) -> str:
    """Return any other value; nothing when it is not known."""
    return "" if value is None else str(value)


def rows(added: int | None, updated: int | None, deleted: int | None) -> str:
    """Return how the rows of a table changed.

    >>> rows(1200, None, 3)
    '+1,200 -3'
    """
    signs = (("+", added), ("~", updated), ("-", deleted))
    return " ".join(f"{sign}{count:,}" for sign, count in signs if count)


def short_id(run_id: str | None) -> str:
    """Return as much of a run's id as tells it from others: of ours, the moment that it is made of.

    >>> short_id("01a2108d-76d3-7f63-9970-41858edc11b4"), short_id("nightly-7")
    ('01a2108d-76d3', 'nightly-7')
    """
    is_ours = run_id is not None and _UUID.fullmatch(run_id)
    return run_id[:13] if run_id and is_ours else run_id or ""
