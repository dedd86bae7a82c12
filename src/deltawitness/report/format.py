"""Format the cells of a table: counts, sizes, times, durations and ids."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from deltawitness.answers.json_values import json_value
from deltawitness.locations import last_segment

__all__ = [
    "number",
    "operation",
    "row_values",
    "rows",
    "seconds",
    "short_ids",
    "size",
    "storage_reason",
    "table_name",
    "text",
    "timestamp",
]

_KIBI = 1024
_DEFAULT_MODE = "error"
_SHORT_ID = 8
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def number(count: int | None) -> str:
    """Return a count; an empty text when it is zero or None.

    >>> number(1234567), number(0), number(None)
    ('1,234,567', '', '')
    """
    return f"{count:,}" if count else ""


def size(count: float | None) -> str:
    """Return a number of bytes in the largest unit that leaves at least 1; an empty text for zero and None.

    >>> size(1536), size(0)
    ('2 KiB', '')
    """
    count = count or 0
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIBI:
            return f"{count:.0f} {unit}" if count else ""
        count /= _KIBI
    return f"{count:.1f} TiB"


def timestamp(time: dt.datetime | None) -> str:
    """Return a time in UTC with a resolution of one second; an empty text for None.

    >>> timestamp(dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC))
    '2024-02-29 12:30:00'
    """
    return "" if time is None else time.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def table_name(row: Mapping[str, Any]) -> str:
    """Return the name of the table of an operation, else the last folder of its location, else a short id.

    Args:
        row: a row of the inventory, perhaps without some columns.
    """
    folder = last_segment(row.get("table_uri") or "") or ""
    shown = "".join(each if each.isprintable() else " " for each in folder)
    return row.get("table_name") or shown or text(row.get("table_id"))[:_SHORT_ID]


def seconds(count: float | None) -> str:
    """Return a duration in seconds with three decimals; an empty text for None.

    >>> seconds(1.5), seconds(None)
    ('1.500', '')
    """
    return "" if count is None else f"{count:.3f}"


_UNKNOWN_SCHEME = re.compile(r"Unknown scheme: ([A-Za-z0-9+.-]+)\..*", re.DOTALL)


def storage_reason(message: str) -> str:
    """Return an error message of delta-rs with its two longest reasons in a few words.

    delta-rs lists every scheme that it knows, and every place where it looks for credentials.

    >>> storage_reason("Unknown scheme: foo. Known schemes: s3,gs")
    'no storage has the URI scheme foo'
    >>> storage_reason("Operation not supported: no credentials found in chain. Attempted: ...")
    'no credentials found: set the variables of the storage, such as AWS_ACCESS_KEY_ID'
    """
    if found := _UNKNOWN_SCHEME.search(message):
        return f"no storage has the URI scheme {found[1]}"
    if "no credentials found" in message:
        return "no credentials found: set the variables of the storage, such as AWS_ACCESS_KEY_ID"
    return message


def text(value: object) -> str:
    """Return a value as text; an empty text for None."""
    return "" if value is None else str(value)


def row_values(values: Mapping[str, Any]) -> str:
    """Return the values of a row as text; those of nested types as JSON, cut to `NESTED_CHARACTERS`.

    >>> row_values({"id": 1, "name": None, "x": {"y": [1, None]}})
    'id=1, name=NULL, x={"y":[1,null]}'
    """
    return ", ".join(f"{name}={_row_value(value)}" for name, value in values.items())


NESTED_CHARACTERS = 80
"""Maximum number of characters of a value of a nested type."""


def _row_value(value: Any) -> str:
    if not isinstance(value, dict | list):
        return "NULL" if value is None else str(value)
    shown = json.dumps(json_value(value), ensure_ascii=False, separators=(",", ":"))
    return shown if len(shown) <= NESTED_CHARACTERS else f"{shown[: NESTED_CHARACTERS - 1]}…"


def rows(added: int | None, updated: int | None, deleted: int | None) -> str:
    """Return numbers of added (+), updated (~) and deleted (-) rows, without those that are zero or None.

    >>> rows(1200, None, 3)
    '+1,200 -3'
    """
    signs = (("+", added), ("~", updated), ("-", deleted))
    return " ".join(f"{sign}{count:,}" for sign, count in signs if count)


def operation(name: str | None, *modes: str | None) -> str:
    """Return an operation and its save modes, if it has any.

    The mode `error` is left out: it is the default, and after the operation it reads as a failure.

    >>> operation("WRITE", "overwrite"), operation("WRITE", "error"), operation("DELETE", None)
    ('WRITE overwrite', 'WRITE', 'DELETE')
    """
    shown = ", ".join(mode for mode in modes if mode and mode != _DEFAULT_MODE)
    return " ".join(part for part in (name, shown) if part)


def short_ids(ids: Iterable[str | None], others: Iterable[str] = ()) -> dict[str, str]:
    """Return a prefix of each UUID that no other id begins with; ids that are no UUIDs are not shortened.

    All prefixes have the same length: at least 13 characters, which hold the time in milliseconds of
    a UUID of version 7.

    Args:
        ids: the ids to shorten.
        others: further ids that must not begin with a prefix.

    >>> short_ids(["01a2108d-76d3-7f63-9970-41858edc11b4", "nightly-7"])
    {'01a2108d-76d3-7f63-9970-41858edc11b4': '01a2108d-76d3', 'nightly-7': 'nightly-7'}
    """
    unique = dict.fromkeys(name for name in ids if name)
    uuids = [name for name in unique if _UUID.fullmatch(name)]
    every_id = {*unique, *others}
    for length in _LENGTHS:
        beginnings = Counter(name[:length] for name in every_id)
        if all(beginnings[name[:length]] == 1 for name in uuids):
            break
    return {name: name[:length] if name in uuids else name for name in unique}


_LENGTHS = (13, 18, 23, 36)
"""Lengths of the prefixes of a UUID that end before a hyphen, and of the complete UUID."""
