"""SQL literals and predicates for queries of the tables of the ledger."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from deltawitness.sql_quoting import quote_literal

__all__ = ["is_in", "timestamp_literal"]


def timestamp_literal(time: dt.datetime) -> str:
    """Return a time as a literal of SQL.

    >>> print(timestamp_literal(dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)))
    arrow_cast('2024-02-29T12:00:00+00:00', 'Timestamp(Microsecond, Some("UTC"))')
    """
    text = time.astimezone(dt.UTC).isoformat()
    return f"arrow_cast('{text}', 'Timestamp(Microsecond, Some(\"UTC\"))')"


def is_in(name: str, values: Iterable[str]) -> str:
    """Return the predicate that a column has one of some values; false when there are none.

    >>> is_in("run_id", ["a", "b"])
    "run_id IN ('a', 'b')"
    """
    literals = ", ".join(map(quote_literal, values))
    return f"{name} IN ({literals})" if literals else "false"
