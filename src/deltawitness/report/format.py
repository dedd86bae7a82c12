"""Single cells of a table: counts, sizes, moments, spans of time."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable

__all__ = [
    "count_of",
    "number",
    "operation",
    "rows",
    "seconds",
    "short_ids",
    "size",
    "text",
    "timestamp",
]

_KIBI = 1024
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def number(count: int | None) -> str:
    """Return a count; nothing when it is zero or not known.

    >>> number(1234567), number(0), number(None)
    ('1,234,567', '', '')
    """
    return f"{count:,}" if count else ""


def count_of(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with the noun that it counts.

    >>> count_of(1, "table"), count_of(1200, "commit"), count_of(2, "entry", "entries")
    ('1 table', '1,200 commits', '2 entries')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {plural or noun + 's'}"


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


def operation(name: str | None, mode: str | None) -> str:
    """Return an operation with its save mode, where it has one.

    >>> operation("WRITE", "overwrite"), operation("DELETE", None)
    ('WRITE overwrite', 'DELETE')
    """
    return " ".join(part for part in (name, mode) if part)


def short_ids(ids: Iterable[str | None], others: Iterable[str] = ()) -> dict[str, str]:
    """Return a prefix of each UUID that no other id begins with; other ids stay as they are.

    Of a UUID of version 7 the first 13 characters are its time in milliseconds. All have one length.

    Args:
        ids: the ids to shorten.
        others: further ids that must not begin with a prefix.

    >>> short_ids(["01a2108d-76d3-7f63-9970-41858edc11b4", "nightly-7"])
    {'01a2108d-76d3-7f63-9970-41858edc11b4': '01a2108d-76d3', 'nightly-7': 'nightly-7'}
    """
    known = dict.fromkeys(name for name in ids if name)
    uuids = [name for name in known if _UUID.fullmatch(name)]
    everything = {*known, *others}
    for length in _LENGTHS:
        beginnings = Counter(name[:length] for name in everything)
        if all(beginnings[name[:length]] == 1 for name in uuids):
            break
    return {name: name[:length] if name in uuids else name for name in known}


_LENGTHS = (13, 18, 23, 36)
"""Characters up to a hyphen of a UUID, and all of it."""
