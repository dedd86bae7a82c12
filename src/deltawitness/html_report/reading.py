"""Read what the report shows from the ledger: sums by SQL, and a bounded number of rows."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from deltawitness.answers.lists import rows_of_runs
from deltawitness.answers.predicates import NEWEST_RUNS, NEWEST_WRITES, equal, is_since
from deltawitness.answers.rows import RunRow, WriteRow
from deltawitness.answers.trends.overdue import read_overdue
from deltawitness.answers.trends.regressions import read_regressions
from deltawitness.answers.trends.values import OverdueResult, RegressionResult
from deltawitness.exceptions import LedgerLookupError
from deltawitness.html_report.content import (
    CacheCount,
    ErrorCount,
    InputEdge,
    LaneCount,
    ReportContent,
    ReportScope,
    TableCount,
)
from deltawitness.ids_and_clock import now_ns
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.literals import is_in, quote_literal, timestamp_literal
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.locations import last_segment, strip_credentials
from deltawitness.semconv import CacheResult, CacheScope, ErrorType

__all__ = ["MAX_BARS", "MAX_EVENTS", "MAX_LANES", "read_content"]

MAX_EVENTS = 5_000
"""Maximum number of operations that the report has one by one; the others are only in the sums."""

MAX_FAILED = 1_000
"""Maximum number of failed operations among them that are older than the newest ones."""

MAX_BARS = 2_000
"""Maximum number of operations for which the timeline has a bar for each."""

MAX_LANES = 30
"""Maximum number of tables in the timeline."""

MAX_RUNS = 200
MAX_CONFLICTS = 50
MAX_TABLES = 500
MAX_EDGES = 200
PARTS = 160
"""Number of parts of the time if the timeline has a bar for each part of it."""

_PLACE = "coalesce(table_uri, table_id)"
_COLUMNS = (
    *("event_time", "run_id", "write_id", "job", "operation", "cache_operation", "mode", "policy"),
    *("key", "result", "reason", "table_uri", "table_id", "table_name", "version"),
    *("rows_added", "rows_updated", "rows_deleted", "files_added", "files_removed", "bytes_added"),
    *("retries", "duration_ms", "error_type", "exception_type", "error_message", "landed"),
    *("message", "code_file", "code_line", "source", "expectation_result"),
)
"""The columns of an operation that the report shows."""
_CONFLICTS = (ErrorType.COMMIT_CONFLICT.value, ErrorType.CONCURRENT_TRANSACTION.value)


def read_content(ledger: LedgerListing, scope: ReportScope) -> ReportContent:
    """Return everything that the report shows.

    Args:
        ledger: the ledger to query.
        scope: which operations and runs the report is about.

    Raises:
        OSError: the ledger's storage cannot be read.
        DeltaError: a table of the ledger is damaged.
    """
    where = _where(scope)
    at = dt.datetime.fromtimestamp(now_ns() / 1e9, tz=dt.UTC)
    results, first, last = _results(ledger, where)
    tables = _tables(ledger, where)
    runs, statuses, dropped = _runs(ledger, scope)
    has_lanes = sum(results.values()) > MAX_BARS and first is not None and last is not None
    regressions, overdue = _trends(ledger, scope, runs, tables)
    events = _events(ledger, where)
    conflicts = _conflicts(ledger, where)
    ghosts, ghost_start = _previous_run(ledger, scope, runs)
    cache, saved = _cache(ledger, where)
    return ReportContent(
        at=at,
        scope=scope,
        root=strip_credentials(ledger.root.uri),
        results=results,
        first_time=first,
        last_time=last,
        statuses=statuses,
        dropped=dropped,
        runs=runs,
        regressions=regressions,
        overdue=overdue,
        tables=tables,
        lanes=_lanes(ledger, where, tables, first, last) if has_lanes and first and last else (),
        parts=PARTS,
        ghosts=ghosts,
        ghost_start=ghost_start,
        errors=_errors(ledger, where),
        cache=cache,
        saved_seconds=saved,
        edges=_edges(ledger, where),
        events=events,
        conflicts=conflicts,
        rivals=_rivals(ledger, conflicts),
    )


def _where(scope: ReportScope) -> str:
    """Return the condition of the operations; those of the ledger's own tables do not count."""
    conditions = [
        f"(scope IS NULL OR scope <> '{CacheScope.LEDGER.value}')",
        *([] if not scope.family else [is_in("run_id", scope.family)]),
        *equal("job", scope.job),
        *is_since("event_time", scope.since),
    ]
    return " AND ".join(conditions)


def _utc(time: dt.datetime) -> dt.datetime:
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


def _results(
    ledger: LedgerListing, where: str
) -> tuple[dict[str, int], dt.datetime | None, dt.datetime | None]:
    """Return the number of operations by result, and the time of the first and of the last one."""
    rows = ledger.query(
        "SELECT result, count(*) AS count, min(event_time) AS first, max(event_time) AS last"  # noqa: S608 - quoted
        f" FROM inventory WHERE {where} GROUP BY result"
    )
    results = Counter[str]()
    for row in rows:
        results[row["result"] or "unknown"] += row["count"]
    times = [(_utc(row["first"]), _utc(row["last"])) for row in rows if row["first"]]
    if not times:
        return dict(results), None, None
    return dict(results), min(first for first, _ in times), max(last for _, last in times)


def _tables(ledger: LedgerListing, where: str) -> list[TableCount]:
    """Return the sums by table: those with errors first, then the last written ones."""
    sums = ("rows_added", "rows_updated", "rows_deleted", "files_added", "bytes_added", "retries")
    summed = ", ".join(f"CAST(coalesce(sum({name}), 0) AS BIGINT) AS {name}" for name in sums)
    rows = ledger.query(
        f"SELECT {_PLACE} AS place, last_value(table_name ORDER BY event_time) AS name,"  # noqa: S608 - quoted
        " count(*) AS operations,"
        f" count(*) FILTER (WHERE result = '{CacheResult.WRITE.value}') AS writes,"
        f" count(*) FILTER (WHERE result = '{CacheResult.ERROR.value}') AS errors,"
        " min(version) AS first_version, max(version) AS last_version,"
        f" {summed}, coalesce(sum(duration_ms), 0.0) AS duration_ms, max(event_time) AS last_time"
        f" FROM inventory WHERE {where} AND {_PLACE} IS NOT NULL GROUP BY {_PLACE}"
        f" ORDER BY errors DESC, last_time DESC LIMIT {MAX_TABLES}"
    )
    return [
        TableCount(
            **{
                **row,
                "name": row["name"] or last_segment(row["place"]) or row["place"],
                "last_time": _utc(row["last_time"]),
            }
        )
        for row in rows
    ]


def _runs(ledger: LedgerListing, scope: ReportScope) -> tuple[list[RunRow], dict[str, int], int]:
    """Return the newest runs and the newest failed ones, the number of runs by status, and dropped events."""
    conditions = [
        *([] if not scope.family else [is_in("run_id", scope.family)]),
        *equal("job", scope.job),
        *is_since("start_time", scope.since),
    ]
    where = " AND ".join(conditions) or "true"
    counted = ledger.query(
        "SELECT status, count(*) AS count, CAST(coalesce(sum(dropped), 0) AS BIGINT) AS dropped"  # noqa: S608 - quoted
        f" FROM runs WHERE {where} GROUP BY status"
    )
    newest = rows_of_runs(ledger, conditions, order=NEWEST_RUNS, limit=MAX_RUNS)
    is_failed = "status IN ('error', 'abandoned')"
    failed = (
        rows_of_runs(ledger, [*conditions, is_failed], order=NEWEST_RUNS, limit=MAX_RUNS)
        if len(newest) == MAX_RUNS
        else []
    )
    by_id = {row["run_id"]: RunRow.of(row) for row in [*newest, *failed]}
    statuses = {row["status"] or "not ended": row["count"] for row in counted}
    return list(by_id.values()), statuses, sum(row["dropped"] for row in counted)


def _trends(
    ledger: LedgerListing,
    scope: ReportScope,
    runs: Sequence[RunRow],
    tables: Sequence[TableCount],
) -> tuple[RegressionResult | None, OverdueResult]:
    """Return what is worse than before, of the jobs and tables of the report."""
    jobs = {scope.job} if scope.job else {run.job for run in runs} if scope.run_id else None
    try:
        regressions = read_regressions(ledger, scope.job)
    except LedgerLookupError:
        regressions = None
    overdue = read_overdue(ledger)
    if jobs is None:
        return regressions, overdue
    places = {table.place for table in tables}
    if regressions is not None:
        chosen = tuple(each for each in regressions.regressions if each.job in jobs)
        regressions = RegressionResult(at=regressions.at, jobs=len(jobs), regressions=chosen)
    return regressions, OverdueResult(
        at=overdue.at,
        tables=tuple(
            each
            for each in overdue.tables
            if (each.table.uri or each.table.table_id) in places or each.job in jobs
        ),
        volumes=tuple(each for each in overdue.volumes if each.job in jobs),
        empty_runs=tuple(each for each in overdue.empty_runs if each.job in jobs),
    )


def _events(ledger: LedgerListing, where: str) -> list[WriteRow]:
    """Return the newest operations and the newest failed ones, newest first."""
    newest = list(_rows(ledger, [where], MAX_EVENTS))
    if len(newest) == MAX_EVENTS and newest[-1].event_time is not None:
        is_older = f"event_time < {timestamp_literal(newest[-1].event_time)}"
        is_failed = f"result = '{CacheResult.ERROR.value}'"
        newest += _rows(ledger, [where, is_failed, is_older], MAX_FAILED)
    return newest


def _rows(ledger: LedgerListing, conditions: Iterable[str], limit: int) -> Iterator[WriteRow]:
    columns = ", ".join(_COLUMNS)
    found = ledger.query(
        f"SELECT {columns} FROM inventory WHERE {' AND '.join(conditions)}"  # noqa: S608 - quoted
        f" ORDER BY {NEWEST_WRITES} LIMIT {limit}"
    )
    for row in found:
        if row["event_time"] is not None:
            yield WriteRow(**{**row, "event_time": _utc(row["event_time"])})


def _lanes(
    ledger: LedgerListing,
    where: str,
    tables: Sequence[TableCount],
    first: dt.datetime,
    last: dt.datetime,
) -> list[LaneCount]:
    """Return the number of operations in each part of the time, by table and result."""
    start = int(first.timestamp() * 1_000_000)
    step = max(int((last - first).total_seconds() * 1_000_000) // PARTS + 1, 1)
    micros = "CAST(arrow_cast(event_time, 'Timestamp(Microsecond, None)') AS BIGINT)"
    places = is_in(_PLACE, [table.place for table in tables[:MAX_LANES]])
    rows = ledger.query(
        f"SELECT {_PLACE} AS place, ({micros} - {start}) / {step} AS part, result,"  # noqa: S608 - quoted
        f" count(*) AS count FROM inventory WHERE {where} AND {places}"
        f" GROUP BY {_PLACE}, ({micros} - {start}) / {step}, result"
    )
    return [
        LaneCount(row["place"], int(row["part"]), row["result"] or "unknown", row["count"])
        for row in rows
    ]


def _previous_run(
    ledger: LedgerListing, scope: ReportScope, runs: Sequence[RunRow]
) -> tuple[list[WriteRow], dt.datetime | None]:
    """Return the operations and the start of the run of the same job before the run of the report."""
    run = next((each for each in runs if each.run_id == scope.run_id), None)
    if run is None or run.job is None or run.start_time is None:
        return [], None
    before = f"start_time < {timestamp_literal(run.start_time)}"
    found = rows_of_runs(ledger, [*equal("job", run.job), before], order=NEWEST_RUNS, limit=1)
    if not found:
        return [], None
    is_of_run = f"run_id = {quote_literal(found[0]['run_id'])}"
    return list(_rows(ledger, [is_of_run], MAX_BARS)), _utc(found[0]["start_time"])


def _errors(ledger: LedgerListing, where: str) -> list[ErrorCount]:
    rows = ledger.query(
        "SELECT error_type, landed, count(*) AS count, max(event_time) AS last_time,"  # noqa: S608 - quoted
        " last_value(error_message ORDER BY event_time) AS message,"
        f" count(DISTINCT {_PLACE}) AS tables FROM inventory"
        f" WHERE {where} AND result = '{CacheResult.ERROR.value}'"
        " GROUP BY error_type, landed ORDER BY count DESC, last_time DESC"
    )
    return [ErrorCount(**{**row, "last_time": _utc(row["last_time"])}) for row in rows]


def _cache(ledger: LedgerListing, where: str) -> tuple[list[CacheCount], float | None]:
    """Return the reads of the cache, and an estimate of the seconds that hits have saved.

    A hit has saved the mean time of the misses of its key, less its own time.
    """
    hit, miss = (quote_literal(result.value) for result in (CacheResult.HIT, CacheResult.MISS))
    rows = ledger.query(
        "SELECT policy, result, reason, count(*) AS count,"  # noqa: S608 - quoted
        " coalesce(sum(duration_ms), 0.0) AS duration_ms FROM inventory"
        f" WHERE {where} AND result IN ({hit}, {miss}) GROUP BY policy, result, reason"
        " ORDER BY policy, result, count DESC"
    )
    saved = ledger.query(
        "SELECT sum(hits * missed - used) AS saved FROM (SELECT key,"  # noqa: S608 - quoted
        f" count(*) FILTER (WHERE result = {hit}) AS hits,"
        f" avg(duration_ms) FILTER (WHERE result = {miss}) AS missed,"
        f" coalesce(sum(duration_ms) FILTER (WHERE result = {hit}), 0.0) AS used"
        f" FROM inventory WHERE {where} AND key IS NOT NULL AND result IN ({hit}, {miss})"
        " GROUP BY key)"
    )
    value = saved[0]["saved"] if saved else None
    return [CacheCount(**row) for row in rows], None if value is None else max(value / 1000, 0.0)


def _edges(ledger: LedgerListing, where: str) -> list[InputEdge]:
    """Return which table was made from which; without a plan, the tables that the run had read before."""
    there = ledger.columns(INVENTORY)
    found: dict[tuple[str, str], InputEdge] = {}
    for name, is_inferred in (("inputs", False), ("run_inputs", True)):
        if name in there:
            for edge in _edges_of(ledger, where, name, is_inferred=is_inferred):
                found.setdefault((edge.source, edge.target), edge)
    return sorted(found.values(), key=lambda edge: -edge.count)[:MAX_EDGES]


def _edges_of(
    ledger: LedgerListing, where: str, name: str, *, is_inferred: bool
) -> Iterator[InputEdge]:
    rows = ledger.query(
        "SELECT source, target, last_value(source_version ORDER BY event_time) AS source_version,"  # noqa: S608 - quoted
        " last_value(version ORDER BY event_time) AS target_version, count(*) AS count FROM"
        " (SELECT coalesce(i['uri'], i['table_id']) AS source, i['version'] AS source_version,"
        f" target, version, event_time FROM (SELECT {_PLACE} AS target, version, event_time,"
        f" unnest({name}) AS i FROM inventory WHERE {where} AND version IS NOT NULL))"
        " WHERE source <> target GROUP BY source, target"
    )
    for row in rows:
        yield InputEdge(
            row["source"],
            row["source_version"],
            row["target"],
            row["target_version"],
            row["count"],
            is_inferred,
        )


def _conflicts(ledger: LedgerListing, where: str) -> list[WriteRow]:
    """Return the newest operations that committed after a retry, or failed because of another commit."""
    collided = f"(retries > 0 OR {is_in('error_type', _CONFLICTS)})"
    return list(_rows(ledger, [where, collided], MAX_CONFLICTS))


def _rivals(
    ledger: LedgerListing, conflicts: Sequence[WriteRow]
) -> dict[str, tuple[WriteRow, ...]]:
    """Return the commits that others have made while an operation ran, by the id of the operation."""
    asked = [each for each in conflicts if each.write_id and each.table_uri and each.event_time]
    if not asked:
        return {}
    spans = {each.write_id: _span(each) for each in asked}
    first = min(start for start, _ in spans.values())
    last = max(end for _, end in spans.values())
    begin, end = timestamp_literal(first - _LONGEST), timestamp_literal(last)
    conditions = [
        is_in("table_uri", sorted({each.table_uri or "" for each in asked})),
        "version IS NOT NULL",
        f"event_time BETWEEN {begin} AND {end}",
    ]
    others = list(_rows(ledger, conditions, MAX_EVENTS))
    found: dict[str, tuple[WriteRow, ...]] = {}
    for each in asked:
        rivals = tuple(other for other in others if _has_collided(each, other))
        if rivals and each.write_id:
            found[each.write_id] = rivals[:_SHOWN_RIVALS]
    return found


_LONGEST = dt.timedelta(hours=1)
"""Time before an operation in which the commits that collided with it have begun."""

_SHOWN_RIVALS = 5


def _span(each: WriteRow) -> tuple[dt.datetime, dt.datetime]:
    """Return when an operation began and ended."""
    start = each.event_time or dt.datetime.fromtimestamp(0, tz=dt.UTC)
    return start, start + dt.timedelta(milliseconds=each.duration_ms or 0)


def _has_collided(each: WriteRow, other: WriteRow) -> bool:
    """Return whether another operation committed the table between the start and the end of an operation."""
    if other.table_uri != each.table_uri or other.write_id == each.write_id:
        return False
    if each.version is not None and other.version is not None and each.retries:
        return each.version - each.retries <= other.version < each.version
    (start, end), (_, other_end) = _span(each), _span(other)
    return start <= other_end <= end
