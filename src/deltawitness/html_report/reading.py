"""Read what the report shows from the ledger: sums by SQL, and a bounded number of rows."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Sequence

from deltawitness.answers.lists import rows_of_runs
from deltawitness.answers.predicates import (
    NEWEST_RUNS,
    NEWEST_WRITES,
    equal,
    is_since,
    recorded_job,
    scan,
)
from deltawitness.answers.rows import RunRow, WriteRow
from deltawitness.answers.trends.overdue import read_overdue
from deltawitness.answers.trends.regressions import read_regressions
from deltawitness.answers.trends.values import OverdueResult, RegressionResult
from deltawitness.exceptions import LedgerLookupError
from deltawitness.html_report.content import FailedRun, ReportContent, ReportScope, TableCount
from deltawitness.html_report.edge_columns import with_columns
from deltawitness.html_report.sums import (
    INPUT_COLUMNS,
    MAX_TABLES,
    OPERATIONS,
    PARTS,
    OperationSums,
    ReasonSums,
    read_edges,
    read_lanes,
    read_reasons,
    read_run_tables,
    read_sums,
)
from deltawitness.ids_and_clock import in_utc, now_ns
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.literals import is_in, timestamp_literal
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.locations import strip_credentials
from deltawitness.semconv import CONFLICT_TYPES, CacheResult, CacheScope
from deltawitness.sql_quoting import quote_literal

__all__ = ["MAX_BARS", "MAX_CONFLICTS", "MAX_EVENTS", "read_content"]

MAX_EVENTS = 5_000
"""Maximum number of operations that the report has one by one; the others are only in the sums."""

MAX_FAILED = 1_000
"""Maximum number of failed operations among them that are older than the newest ones."""

MAX_BARS = 2_000
"""Maximum number of operations for which the timeline has a bar for each."""

MAX_RUNS = 200
MAX_FAILURES = 10
MAX_CONFLICTS = 50

_SHOWN = 5
"""Maximum number of failed operations of a run, and of commits that one collided with."""

_COLUMNS = (
    *("event_time", "run_id", "write_id", "job", "operation", "cache_operation", "mode", "policy"),
    *("key", "result", "reason", "table_uri", "table_id", "table_name", "version"),
    *("rows_added", "rows_updated", "rows_deleted", "files_added", "files_removed", "bytes_added"),
    *("retries", "duration_ms", "error_type", "exception_type", "error_message", "landed"),
    *("message", "code_file", "code_line", "source", "expectation_result"),
)
"""The columns of an operation that the report shows."""

_RUN_COLUMNS = (
    *("event_date", "run_id", "parent_run_id", "job", "start_time", "end_time", "status"),
    *("error_type", "code_version", "message", "writes", "errors", "hits", "dropped"),
    *("rows_added", "rows_updated", "rows_deleted"),
)
"""The columns of a run that the report, `regressions` and `overdue` use."""


def read_content(ledger: LedgerListing, scope: ReportScope) -> ReportContent:
    """Return everything that the report shows.

    Args:
        ledger: the ledger to query.
        scope: which operations and runs the report is about.

    Raises:
        OSError: the ledger's storage cannot be read.
        DeltaError: a table of the ledger is damaged.
    """
    at = dt.datetime.fromtimestamp(now_ns() / 1e9, tz=dt.UTC)
    _store(ledger, scope)
    sums = read_sums(ledger)
    runs, statuses, dropped = _runs(ledger, scope)
    reasons = read_reasons(ledger, sums.results)
    events = _events(ledger)
    conflicts = _conflicts(ledger) if _may_collide(sums, reasons) else []
    ghosts, ghost_start = _previous_run(ledger, scope, runs)
    lanes = read_lanes(ledger, sums) if sums.total > MAX_BARS else []
    edges = with_columns(ledger, read_edges(ledger))
    rivals = _rivals(ledger, conflicts)
    regressions, overdue = _chosen(*_trends(ledger, scope.job), scope, runs, sums.tables)
    return ReportContent(
        at=at,
        scope=scope,
        root=strip_credentials(ledger.root.uri),
        results=sums.results,
        first_time=sums.first,
        last_time=sums.last,
        statuses=statuses,
        dropped=dropped,
        runs=runs,
        failures=_failures(ledger, runs),
        regressions=regressions,
        overdue=overdue,
        tables=sums.tables,
        lanes=lanes,
        parts=PARTS,
        ghosts=ghosts,
        ghost_start=ghost_start,
        errors=reasons.errors,
        cache=reasons.cache,
        saved_seconds=reasons.saved_seconds,
        edges=edges,
        events=events,
        conflicts=conflicts,
        rivals=rivals,
    )


def _store(ledger: LedgerListing, scope: ReportScope) -> None:
    """Read the runs and the operations of the report once, with the columns that it needs."""
    runs = f"SELECT {', '.join(_RUN_COLUMNS)} FROM runs"  # noqa: S608 - names of columns
    ledger.store("runs", runs, "SELECT run_id FROM run_parts")
    there = [name for name in INPUT_COLUMNS if name in ledger.columns(INVENTORY)]
    columns = (*_COLUMNS, *there)
    chosen = f"SELECT {', '.join(columns)} FROM"
    if scope.family:  # the files say which runs they have
        ledger.store(OPERATIONS, f"{chosen} inventory WHERE {_where(scope)}")
        return
    source = scan((*columns, "event_date", "scope"), scope.since)
    ledger.store(
        OPERATIONS, f"{chosen} ({source}) WHERE {_where(scope)}", scan(["event_date"], scope.since)
    )


def _may_collide(sums: OperationSums, reasons: ReasonSums) -> bool:
    """Return whether an operation may have collided with another one."""
    failed = any(each.error_type in CONFLICT_TYPES for each in reasons.errors)
    return failed or any(table.retries for table in sums.tables) or len(sums.tables) == MAX_TABLES


def _where(scope: ReportScope) -> str:
    """Return the condition of the operations; those of the ledger's own tables do not count."""
    conditions = [
        f"(scope IS NULL OR scope <> '{CacheScope.LEDGER.value}')",
        *([] if not scope.family else [is_in("run_id", scope.family)]),
        *equal("job", recorded_job(scope.job)),
        *is_since("event_time", scope.since),
    ]
    return " AND ".join(conditions)


def _runs(ledger: LedgerListing, scope: ReportScope) -> tuple[list[RunRow], dict[str, int], int]:
    """Return the newest runs and the newest failed ones, the number of runs by status, and dropped events."""
    conditions = [
        *([] if not scope.family else [is_in("run_id", scope.family)]),
        *equal("job", recorded_job(scope.job)),
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
    ledger: LedgerListing, job: str | None
) -> tuple[RegressionResult | None, OverdueResult]:
    """Return what is worse than before; None if no run of the job has finished."""
    try:
        regressions = read_regressions(ledger, job)
    except LedgerLookupError:
        regressions = None
    return regressions, read_overdue(ledger)


def _chosen(
    regressions: RegressionResult | None,
    overdue: OverdueResult,
    scope: ReportScope,
    runs: Sequence[RunRow],
    tables: Sequence[TableCount],
) -> tuple[RegressionResult | None, OverdueResult]:
    """Return what is worse than before, of the jobs and tables of the report."""
    jobs = {scope.job} if scope.job else {run.job for run in runs} if scope.run_id else None
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


def _events(ledger: LedgerListing) -> list[WriteRow]:
    """Return the newest operations and the newest failed ones, newest first."""
    newest = list(_rows(ledger, [], MAX_EVENTS))
    if len(newest) == MAX_EVENTS and newest[-1].event_time is not None:
        is_older = f"event_time < {timestamp_literal(newest[-1].event_time)}"
        is_failed = f"result = '{CacheResult.ERROR.value}'"
        newest += _rows(ledger, [is_failed, is_older], MAX_FAILED)
    return newest


def _rows(
    ledger: LedgerListing, conditions: Sequence[str], limit: int, source: str = OPERATIONS
) -> Iterator[WriteRow]:
    where = " AND ".join(("event_time IS NOT NULL", *conditions))
    found = ledger.query(
        f"SELECT {', '.join(_COLUMNS)} FROM {source} WHERE {where}"  # noqa: S608 - quoted
        f" ORDER BY {NEWEST_WRITES} LIMIT {limit}"
    )
    for row in found:
        row["event_time"] = in_utc(row["event_time"])
        yield WriteRow(**row)


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
    return list(_rows(ledger, [is_of_run], MAX_BARS, INVENTORY.alias)), in_utc(
        found[0]["start_time"]
    )


def _failures(ledger: LedgerListing, runs: Sequence[RunRow]) -> list[FailedRun]:
    """Return the newest failed runs; not those that failed because of a child run."""
    failed = sorted(
        (each for each in runs if each.status in {"error", "abandoned"}),
        key=lambda each: each.start_time or _NEVER,
        reverse=True,
    )[: 2 * MAX_FAILURES]
    parents = {each.parent_run_id for each in failed}
    ids = [each.run_id for each in failed]
    if not ids:
        return []
    conditions = [is_in("run_id", ids), f"result = '{CacheResult.ERROR.value}'"]
    operations = defaultdict[str | None, list[WriteRow]](list)
    for row in _rows(ledger, conditions, MAX_FAILED):
        operations[row.run_id].append(row)
    tables = read_run_tables(ledger, ids)
    found = [
        FailedRun(each, tuple(operations[each.run_id][:_SHOWN]), tuple(tables.get(each.run_id, ())))
        for each in failed
        if each.run_id not in parents or operations[each.run_id]
    ]
    return found[:MAX_FAILURES]


_NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)


def _conflicts(ledger: LedgerListing) -> list[WriteRow]:
    """Return the newest operations that committed after a retry, or failed because of another commit."""
    collided = f"(retries > 0 OR {is_in('error_type', CONFLICT_TYPES)})"
    return list(_rows(ledger, [collided], MAX_CONFLICTS))


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
    others = list(_rows(ledger, conditions, MAX_EVENTS, INVENTORY.alias))
    found: dict[str, tuple[WriteRow, ...]] = {}
    for each in asked:
        rivals = tuple(other for other in others if _has_collided(each, other))
        if rivals and each.write_id:
            found[each.write_id] = rivals[:_SHOWN]
    return found


_LONGEST = dt.timedelta(hours=1)
"""Time before an operation in which the commits that collided with it have begun."""


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
