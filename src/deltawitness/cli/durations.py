"""Moments as people give them: a time, or how long ago."""

from __future__ import annotations

import datetime as dt
import re

import typer

from deltawitness.ids_and_clock import now_ns

__all__ = ["SinceOption", "parse_duration", "parse_time"]

_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_time(text: str) -> dt.datetime:
    """Return a moment; one without a zone is in UTC.

    Args:
        text: a time in ISO 8601, or a number with `s`, `m`, `h`, `d` or `w`: so long ago.

    Raises:
        typer.BadParameter: it is neither.

    >>> parse_time("2024-02-29").isoformat()
    '2024-02-29T00:00:00+00:00'
    """
    try:
        if _SPAN.fullmatch(text):
            return dt.datetime.fromtimestamp(now_ns() / 1e9, tz=dt.UTC) - parse_duration(text)
        given = dt.datetime.fromisoformat(text)
        return given.replace(tzinfo=dt.UTC) if given.tzinfo is None else given.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        msg = "expected a time such as 2024-02-29T12:00, or a duration such as 2h or 7d"
        raise typer.BadParameter(msg) from None


def parse_duration(text: str) -> dt.timedelta:
    """Return a span of time.

    Args:
        text: a number with `s`, `m`, `h`, `d` or `w`.

    Raises:
        typer.BadParameter: it is none.

    >>> parse_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    span = _SPAN.fullmatch(text)
    try:
        if span is not None:
            return dt.timedelta(**{_UNITS[span[2]]: float(span[1])})
    except OverflowError:
        pass
    msg = "expected a duration such as 2h or 7d"
    raise typer.BadParameter(msg)


SinceOption = typer.Option(
    "--since",
    metavar="WHEN",
    parser=parse_time,
    help="Filter by time: ISO 8601 (UTC), or a duration such as 2h or 7d.",
)
