"""Parts of the SQL queries of the ledger's tables."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from deltawitness.ledger.tables.literals import timestamp_literal
from deltawitness.redaction import redact_label
from deltawitness.sql_quoting import quote_literal

__all__ = [
    "NEWEST_RUNS",
    "NEWEST_WRITES",
    "begins_with",
    "equal",
    "has_operation",
    "has_version",
    "is_since",
    "recorded_job",
    "scan",
]

# Times from logs have millisecond resolution: at equal times, the higher version is first.
NEWEST_WRITES = "event_time DESC, version DESC"
NEWEST_RUNS = "start_time DESC"

_LAST_CHARACTER = "\U0010ffff"


def equal(name: str, value: str | None) -> list[str]:
    """Return the condition that a column has a value; no condition for None."""
    return [] if value is None else [f"{name} = {quote_literal(value)}"]


def recorded_job(job: str | None) -> str | None:
    """Return the name of a job as commits and the ledger have it; None for None."""
    return None if job is None else redact_label(job)


def is_since(name: str, time: datetime | None) -> list[str]:
    """Return the conditions that a time is not before another one; no condition for None."""
    if time is None:
        return []
    # The partition column is compared too, so that most files are skipped.
    return [f"event_date >= DATE '{time.date()}'", f"{name} >= {timestamp_literal(time)}"]


def scan(columns: Iterable[str], since: datetime | None = None) -> str:
    """Return a query of all operations since a day, to which conditions of an outer query are not moved.

    The engine prepares a condition for each file, which takes longer than to read all rows of a small file. The
    limit makes it filter the rows that it has read.

    Args:
        columns: names of the columns.
        since: skips earlier days; None reads all.
    """
    where = "" if since is None else f" WHERE event_date >= DATE '{since.date()}'"
    return f"SELECT {', '.join(columns)} FROM inventory{where} LIMIT {1 << 62}"  # noqa: S608 - names of columns


def begins_with(name: str, prefix: str, last: str | None = None) -> str:
    r"""Return the condition that a column begins with a text, or is between two texts.

    It is a range, with which the engine skips files by their statistics.

    Args:
        name: name of the column.
        prefix: the text; the first one of a range.
        last: the last text of a range, with which the values may begin.

    >>> begins_with("run_id", "01a").encode()
    b"run_id >= '01a' AND run_id < '01a\xf4\x8f\xbf\xbf'"
    """
    first, end = quote_literal(prefix), quote_literal((last or prefix) + _LAST_CHARACTER)
    return f"{name} >= {first} AND {name} < {end}"


def has_version(version: int) -> str:
    """Return the condition that an operation has committed a version."""
    # `version` is the last one, so the first comparison lets the engine skip files.
    return f"version >= {version} AND (version = {version} OR array_has(versions, {version}))"


def has_operation(text: str) -> str:
    """Return the condition that a row is of an operation, as a log, a listing or the cache names it.

    Args:
        text: such as `DELETE`, `WRITE append` or `optimize`, in any case.
    """
    name = quote_literal(" ".join(text.split()).upper())
    return (
        f"upper(operation) = {name} OR upper(cache_operation) = {name}"
        f" OR upper(concat_ws(' ', operation, mode)) = {name}"
    )
