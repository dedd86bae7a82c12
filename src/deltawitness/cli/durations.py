"""Parse the times and durations of options."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import typer

from deltawitness.ids_and_clock import in_utc, now_ns

__all__ = ["AtOption", "SinceOption", "parse_duration", "parse_time"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_time(text: str) -> dt.datetime:
    """Parse a time, as UTC if it has no time zone.

    The result is in UTC.

    Args:
        text: a time in ISO 8601, or a duration before now: a number with `s`, `m`, `h`, `d` or `w`.

    Raises:
        typer.BadParameter: the text is neither.

    >>> parse_time("2024-02-29").isoformat()
    '2024-02-29T00:00:00+00:00'
    """
    try:
        if _DURATION.fullmatch(text):
            return dt.datetime.fromtimestamp(now_ns() / 1e9, tz=dt.UTC) - parse_duration(text)
        return in_utc(dt.datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        msg = "expected a time such as 2024-02-29T12:00, or a duration such as 2h or 7d"
        raise typer.BadParameter(msg) from None


def parse_duration(text: str) -> dt.timedelta:
    """Parse a duration.

    Args:
        text: a number with `s`, `m`, `h`, `d` or `w`.

    Raises:
        typer.BadParameter: the text is no duration, or the duration is too long.

    >>> parse_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    match = _DURATION.fullmatch(text)
    try:
        if match is not None:
            return dt.timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        pass
    msg = "expected a duration such as 2h or 7d"
    raise typer.BadParameter(msg)


SinceOption: Any = typer.Option(
    "--since",
    metavar="WHEN",
    parser=parse_time,
    help="Filter by time: ISO 8601 (UTC), or a duration such as 2h or 7d.",
)

AtOption: Any = typer.Option(
    "--at",
    metavar="WHEN",
    parser=parse_time,
    help="Answer for this time instead of now: ISO 8601 (UTC), or a duration before now.",
)
