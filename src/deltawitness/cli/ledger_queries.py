"""Queries of the listing commands; they return rows as dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from deltawitness.cli.console import CommandError
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in, quote_literal, timestamp_literal
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.locations import canonical_uri
from deltawitness.report.summary import RunSummary, SummaryLine
from deltawitness.semconv import CacheOperation, CacheResult

__all__ = [
    "COUNTS",
    "Row",
    "RunReport",
    "find_run_id",
    "list_reads",
    "list_runs",
    "list_writes",
    "read_run",
    "rewritable_writes",
    "similar_run_ids",
]

COUNTS = (
    *("reads", "hits", "misses", "writes", "snapshots", "noops", "errors"),
    *("rows_added", "rows_updated", "rows_deleted", "files_added", "files_removed"),
    *("bytes_added", "bytes_removed", "retries", "dropped"),
)
"""Count columns of a run that can be summed over runs."""

_SUMMED = (
    *("rows_added", "rows_updated", "rows_deleted", "files_added", "files_removed"),
    *("bytes_added", "bytes_removed", "retries"),
)

_LAST_ASCII = 127
"""Code of the last character of ASCII; the next one is a character too."""

_SHOWN = 5
"""Maximum number of ids or names that an error message lists."""

# Times from logs have millisecond resolution: at equal times, the higher version is first.
_NEWEST_WRITES = "event_time DESC, version DESC"
_NEWEST_RUNS = "start_time DESC"


def list_runs(
    ledger: LedgerListing,
    *,
    job: str | None = None,
    status: str | None = None,
    since: datetime | None = None,
    limit: int,
) -> list[Row]:
    """Return finished runs, newest first."""
    conditions = [*_equal("job", job), *_equal("status", status), *_since("start_time", since)]
    return ledger.rows(RUNS, conditions, order=_NEWEST_RUNS, limit=limit)


def list_writes(
    ledger: LedgerListing,
    *,
    table: str | None = None,
    run: str | None = None,
    since: datetime | None = None,
    result: CacheResult | None = None,
    limit: int,
) -> list[Row]:
    """Return operations, newest first.

    Args:
        ledger: the ledger to query.
        table: the table's name, id (or an unambiguous prefix of it) or location.
        run: the id of the run, or an unambiguous prefix of it.
        since: skips earlier operations.
        result: skips operations with another result.
        limit: maximum number of rows.

    Raises:
        CommandError: the ledger has no such table or run, or the prefix is that of several.
    """
    conditions = [
        *_since("event_time", since),
        *_equal("result", None if result is None else result.value),
        *([] if run is None else _equal("run_id", find_run_id(ledger, run, "--run: "))),
        *([] if table is None else [_table_condition(ledger, table)]),
    ]
    return ledger.rows(INVENTORY, conditions, order=_NEWEST_WRITES, limit=limit)


def list_reads(ledger: LedgerListing, name: str, limit: int) -> list[Row]:
    """Return the last reads of a cache entry, newest first.

    Args:
        ledger: the ledger to query.
        name: name of the entry.
        limit: maximum number of rows.
    """
    conditions = [
        *_equal("cache_operation", CacheOperation.READ.value),
        *_equal("table_name", name),
    ]
    return ledger.rows(INVENTORY, conditions, order=_NEWEST_WRITES, limit=limit)


_MAINTENANCE = ("optimize", "vacuum", "checkpoint", "cleanup", "create", "snapshot")
"""Operations that change no row."""


def rewritable_writes(ledger: LedgerListing, prefix: str) -> tuple[str, list[Row]]:
    """Return the id of a run, and the writes of rows in it and in its child runs, oldest first.

    Args:
        ledger: the ledger to query.
        prefix: the id of the run, or an unambiguous prefix of it.

    Raises:
        CommandError: the ledger has no such run, or the prefix is that of several.
    """
    run_id = find_run_id(ledger, prefix)
    family = [
        run_id,
        *(row["run_id"] for rows in _children(ledger, run_id).values() for row in rows),
    ]
    conditions = [
        is_in("run_id", family),
        *_equal("result", CacheResult.WRITE.value),
        f"NOT {is_in('cache_operation', _MAINTENANCE)}",
    ]
    return run_id, ledger.rows(INVENTORY, conditions, order="event_time")


# --- one run -----------------------------------------------------------------------------------------


class RunReport:
    """The ledger's rows of one run and its child runs.

    Attributes:
        run: its row; for an unfinished run only the id, the job and the time of its first operation.
        children: the rows of its child runs at any depth, by the id of their parent.
        summary: the operations of the run and its child runs, by table.
        failed: the rows of their failed operations, oldest first.
    """

    def __init__(
        self, run: Row, children: dict[str, list[Row]], summary: RunSummary, failed: list[Row]
    ) -> None:
        self.run = run
        self.children = children
        self.summary = summary
        self.failed = failed

    def family(self) -> Iterator[Row]:
        """Yield the rows of the run and of its child runs."""
        yield self.run
        for rows in self.children.values():
            yield from rows

    def total(self) -> dict[str, int]:
        """Return the counts, summed over the run and its child runs."""
        return {name: sum(row[name] or 0 for row in self.family()) for name in COUNTS}


def read_run(ledger: LedgerListing, prefix: str) -> RunReport:
    """Return the ledger's rows of one run and its child runs.

    Args:
        ledger: the ledger to query.
        prefix: the id of the run, or an unambiguous prefix of it.

    Raises:
        CommandError: the ledger has no such run, or the prefix is that of several.
    """
    run_id = find_run_id(ledger, prefix)
    found = ledger.rows(RUNS, _equal("run_id", run_id), order=_NEWEST_RUNS)
    run = found[0] if found else _unfinished_run(ledger, run_id)
    children = _children(ledger, run_id)
    family = [run_id, *(child["run_id"] for rows in children.values() for child in rows)]
    is_of_family = is_in("run_id", family)
    failed = [is_of_family, *_equal("result", CacheResult.ERROR.value)]
    return RunReport(
        run,
        children,
        _summary(ledger, is_of_family, run),
        ledger.rows(INVENTORY, failed, order="event_time"),
    )


def find_run_id(ledger: LedgerListing, prefix: str, option: str = "") -> str:
    """Return the id of the run that a text identifies.

    Args:
        ledger: the ledger to query.
        prefix: the id, or an unambiguous prefix of it; an id that is also a prefix of others wins.
        option: starts the error message with the name of the option.

    Raises:
        CommandError: the ledger has no such run, or the prefix is that of several.
    """
    is_wanted = f"starts_with(run_id, {quote_literal(prefix)}){_and_between(prefix, prefix)}"
    rows = ledger.query(
        f"SELECT run_id FROM run_parts WHERE {is_wanted}"  # noqa: S608 - quoted above
        f" UNION SELECT run_id FROM inventory WHERE {is_wanted}"
    )
    found: list[str] = sorted(row["run_id"] for row in rows)
    if prefix in found:
        return prefix
    if not found:
        msg = f"{option}no run begins with {prefix}"
        raise CommandError(msg)
    if len(found) > 1:
        more = "" if len(found) <= _SHOWN else ", ..."
        msg = f"{option}{len(found)} runs begin with {prefix}: {', '.join(found[:_SHOWN])}{more}"
        raise CommandError(msg)
    return found[0]


def similar_run_ids(ledger: LedgerListing, rows: Iterable[Row]) -> list[str]:
    """Return the ids of all runs that share their first 13 characters with a run of some rows.

    A shortened id must differ from them.

    Args:
        ledger: the ledger to query.
        rows: rows of runs or of operations.
    """
    first = {row["run_id"][:13] for row in rows if row["run_id"]}
    if not first:
        return []
    starts = is_in("substr(run_id, 1, 13)", first) + _and_between(min(first), max(first))
    found = ledger.query(
        f"SELECT run_id FROM run_parts WHERE {starts}"  # noqa: S608 - quoted by is_in
        f" UNION SELECT run_id FROM inventory WHERE {starts}"
    )
    return [row["run_id"] for row in found]


def _and_between(first: str, last: str) -> str:
    """Return a condition for run ids from one prefix to another, by which the engine skips files.

    Args:
        first: the lowest prefix.
        last: the highest prefix.
    """
    if not last or ord(last[-1]) >= _LAST_ASCII:
        return ""
    after = last[:-1] + chr(ord(last[-1]) + 1)
    return f" AND run_id >= {quote_literal(first)} AND run_id < {quote_literal(after)}"


def _unfinished_run(ledger: LedgerListing, run_id: str) -> Row:
    """Return a row for a run without one: id, job and start time from its first operation, else None."""
    first = ledger.rows(INVENTORY, _equal("run_id", run_id), order="event_time", limit=1)[0]
    values = {"run_id": run_id, "job": first["job"], "start_time": first["event_time"]}
    return dict.fromkeys([*(name for name, *_ in RUNS.columns[1:]), "processes"]) | values


def _children(ledger: LedgerListing, run_id: str) -> dict[str, list[Row]]:
    children: dict[str, list[Row]] = {}
    level, seen = [run_id], {run_id}
    while level:
        found = ledger.rows(RUNS, [is_in("parent_run_id", level)], order="start_time")
        rows = [row for row in found if row["run_id"] not in seen]
        for row in rows:
            children.setdefault(row["parent_run_id"], []).append(row)
        level = [row["run_id"] for row in rows]
        seen.update(level)
    return children


def _summary(ledger: LedgerListing, condition: str, run: Row) -> RunSummary:
    """Return counts by table and operation, in the order of the first operation of each."""
    sums = ", ".join(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in _SUMMED)
    rows = ledger.query(
        "SELECT table_id, table_name, operation, mode, count(*) AS operations,"  # noqa: S608 - quoted
        " count(*) FILTER (WHERE result = 'error') AS errors,"
        f" sum(duration_ms) AS milliseconds, min(event_time) AS first, {sums}"
        f" FROM inventory WHERE {condition}"
        " GROUP BY table_id, table_name, operation, mode ORDER BY first, operation"
    )
    lines: dict[tuple[str, str, str], SummaryLine] = {}
    total = SummaryLine()
    for row in rows:
        line = _line(row)
        name = row["table_name"] or (row["table_id"] or "?")[:8]
        lines.setdefault((row["table_id"] or name, name, row["operation"]), SummaryLine()).join(
            line
        )
        total.join(line)
    tables = {table for table, _, _ in lines}
    return RunSummary(run["run_id"], run["job"], lines, total, len(tables), [])


def _line(row: Row) -> SummaryLine:
    line = SummaryLine(row["operations"], row["errors"], (row["milliseconds"] or 0.0) / 1000)
    if row["mode"] is not None:
        line.modes[row["mode"]] = None
    line.metrics.update({name: row[name] for name in _SUMMED if row[name]})
    return line


# --- parts of queries --------------------------------------------------------------------------------


def _equal(name: str, value: str | None) -> list[str]:
    return [] if value is None else [f"{name} = {quote_literal(value)}"]


def _since(name: str, time: datetime | None) -> list[str]:
    if time is None:
        return []
    # The partition column is compared too, so that most files are skipped.
    return [f"event_date >= DATE '{time.date()}'", f"{name} >= {timestamp_literal(time)}"]


def _table_condition(ledger: LedgerListing, table: str) -> str:
    """Return the predicate for the rows of a table.

    Raises:
        CommandError: no row of the ledger is of such a table, or the prefix is that of several ids.
    """
    exact = (
        f"table_name = {quote_literal(table)} OR table_id = {quote_literal(table)}"
        f" OR table_uri = {quote_literal(canonical_uri(table))}"
    )
    if ledger.query(f"SELECT 1 AS one FROM inventory WHERE {exact} LIMIT 1"):  # noqa: S608 - quoted
        return exact
    prefix = quote_literal(table)
    rows = ledger.query(
        f"SELECT DISTINCT table_id FROM inventory WHERE starts_with(table_id, {prefix})"  # noqa: S608
    )
    if len(rows) == 1 and table:
        return f"table_id = {quote_literal(rows[0]['table_id'])}"
    if len(rows) > 1 and table:
        msg = f"--table: {len(rows)} table ids begin with {table}: give more of the id"
        raise CommandError(msg)
    msg = f"--table: the ledger has no table {table!r}{_last_written_tables(ledger)}"
    raise CommandError(msg)


def _last_written_tables(ledger: LedgerListing) -> str:
    rows = ledger.query(
        "SELECT table_name, max(event_time) AS last FROM inventory"
        " WHERE table_name IS NOT NULL GROUP BY table_name ORDER BY last DESC"
    )
    names = [row["table_name"] for row in rows]
    more = ", ..." if len(names) > _SHOWN else ""
    return f"; it has {', '.join(names[:_SHOWN])}{more}" if names else ""
