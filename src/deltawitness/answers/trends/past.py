"""The recent past of tables and jobs, read from the ledger with one query each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby, pairwise
from statistics import median
from typing import Any

from deltawitness.answers.committed_writes import CHANGES_ROWS, COMMITTED, KEEPS_ROWS
from deltawitness.answers.predicates import equal
from deltawitness.answers.rows import TableVersion
from deltawitness.answers.run_report import undone_runs
from deltawitness.ids_and_clock import now_ns
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in, quote_literal, timestamp_literal
from deltawitness.locations import last_segment
from deltawitness.semconv import UNDO_JOB, CacheScope

__all__ = ["PastRun", "PastWrite", "now", "past_runs", "past_writes"]

HISTORY = 60
"""Number of runs of a job, and of writes of a table by a job, that are read."""

_FINISHED = ("ok", "error", "abandoned")


@dataclass(frozen=True, slots=True)
class PastWrite:
    """The writes of a table by a run.

    Attributes:
        table: the table, and the last version.
        job: name of the job.
        run_id: id of the run; None if there was none.
        first: time of the first write.
        time: time of the last write.
        rows: number of added, updated and deleted rows; None if it is not known.
        has_changed: whether rows have changed.
        is_named: whether the ledger has the table's name; else it is the end of its location.
        is_complete: whether the run ended with the status `ok`, or there was none.
        changes: the times that count as changes: the last one of a batch, all of a long-lived run.
    """

    table: TableVersion
    job: str | None
    run_id: str | None
    first: datetime
    time: datetime
    rows: int | None
    has_changed: bool
    is_named: bool
    is_complete: bool
    changes: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class PastRun:
    """A finished run.

    Attributes:
        run_id: its id.
        start_time: when it began.
        seconds: how long it took; None if that is not known.
        is_ok: whether it ended with the status `ok`.
        rows: number of added, updated and deleted rows.
        hits: number of results that the cache served.
        error_type: class of what ended it.
        code_version: commit or version of the program.
    """

    run_id: str
    start_time: datetime
    seconds: float | None
    is_ok: bool
    rows: int
    hits: int
    error_type: str | None
    code_version: str | None


def now() -> datetime:
    """Return the present time."""
    return datetime.fromtimestamp(now_ns() / 1e9, tz=UTC)


_ROWS = "coalesce(rows_added, 0) + coalesce(rows_updated, 0) + coalesce(rows_deleted, 0)"
_HAS_ROWS = "rows_added IS NOT NULL OR rows_updated IS NOT NULL OR rows_deleted IS NOT NULL"

_ENTRIES = (CacheScope.VIEW, CacheScope.ARTIFACT, CacheScope.METADATA, CacheScope.LEDGER)
_NO_ENTRY = "NOT " + is_in("coalesce(scope, '')", [scope.value for scope in _ENTRIES])
"""The condition that a write is of no cache entry: entries are written when they are needed."""


def past_writes(
    ledger: LedgerListing, at: datetime, table: str | None = None
) -> dict[str, list[PastWrite]]:
    """Return the last writes of each table by each job, oldest first, by id of the table.

    Args:
        ledger: the ledger to query.
        at: skips later writes.
        table: SQL predicate of the tables; None for all.
    """
    conditions = _conditions(at, undone_runs(ledger, at))
    written = [*conditions, *([] if table is None else [f"({table})"])]
    rows = ledger.query(
        "SELECT found.*, runs.status FROM (SELECT *, row_number() OVER"  # noqa: S608 - quoted
        " (PARTITION BY table_id, job ORDER BY time DESC) AS place FROM (SELECT table_id,"
        " max(table_uri) AS table_uri, max(table_name) AS table_name, job, max(run_id) AS run_id,"
        " min(event_time) AS first, max(event_time) AS time, max(version) AS version,"
        f" sum({_ROWS}) AS changed, bool_and({_HAS_ROWS}) AS is_counted,"
        f" bool_or({CHANGES_ROWS}) AS has_changed"
        f" FROM inventory WHERE {' AND '.join(written)}"
        " GROUP BY table_id, job, coalesce(run_id, write_id))) AS found"
        " LEFT JOIN runs ON runs.run_id = found.run_id"
        f" WHERE place <= {HISTORY} ORDER BY table_id, time, version"
    )
    found = {
        identity: [_write(row) for row in same]
        for identity, same in groupby(rows, key=lambda row: str(row["table_id"]))
    }
    return _with_changes(ledger, found, conditions)


def _conditions(at: datetime, undone: Collection[str]) -> list[str]:
    """Return the conditions of the writes that are learned from."""
    no_undo = [f"coalesce(job, '') <> {quote_literal(UNDO_JOB)}", *_none_of(undone)]
    return [f"({COMMITTED})", f"NOT {KEEPS_ROWS}", _until("event_time", at), _NO_ENTRY, *no_undo]


def _none_of(runs: Collection[str]) -> list[str]:
    return ["NOT " + is_in("coalesce(run_id, '')", sorted(runs))] if runs else []


def _write(row: Row) -> PastWrite:
    uri, time = row["table_uri"], _in_utc(row["time"])
    name = row["table_name"] or (uri and last_segment(uri))
    return PastWrite(
        table=TableVersion(row["version"], name, uri, row["table_id"]),
        job=row["job"],
        run_id=row["run_id"],
        first=_in_utc(row["first"]),
        time=time,
        rows=int(row["changed"]) if row["is_counted"] else None,
        has_changed=bool(row["has_changed"]),
        is_named=row["table_name"] is not None,
        is_complete=row["run_id"] is None or row["status"] == "ok",
        changes=(time,) if row["has_changed"] else (),
    )


def _with_changes(
    ledger: LedgerListing, found: dict[str, list[PastWrite]], conditions: Sequence[str]
) -> dict[str, list[PastWrite]]:
    """Return the writes with all changes of long-lived runs, such as those of a service."""
    long = [each for writes in found.values() for each in _long_lived(writes)]
    if not long:
        return found
    times: dict[tuple[str | None, str | None], list[datetime]] = {}
    keys = ", ".join(f"({_quoted(each.table.table_id)}, {_quoted(each.run_id)})" for each in long)
    rows = ledger.query(
        "SELECT * FROM (SELECT table_id, run_id, event_time, row_number() OVER"  # noqa: S608 - quoted
        " (PARTITION BY table_id, run_id ORDER BY event_time DESC) AS place FROM inventory"
        f" JOIN (VALUES {keys}) AS wanted(wanted_table, wanted_run)"
        " ON wanted_table = table_id AND wanted_run = run_id"
        f" WHERE {' AND '.join(conditions)} AND {CHANGES_ROWS})"
        f" WHERE place <= {HISTORY} ORDER BY event_time"
    )
    for row in rows:
        times.setdefault((row["table_id"], row["run_id"]), []).append(_in_utc(row["event_time"]))
    return {
        identity: [
            replace(each, changes=tuple(times.get((identity, each.run_id), each.changes)))
            for each in writes
        ]
        for identity, writes in found.items()
    }


def _long_lived(writes: Sequence[PastWrite]) -> Iterator[PastWrite]:
    """Yield the runs that wrote a table for longer than half of the usual time between two runs."""
    gaps = [(b.time - a.time).total_seconds() for a, b in pairwise(writes)]
    batch = median(gaps) / 2 if gaps else 0.0
    for each in writes:
        if each.run_id is not None and (each.time - each.first).total_seconds() > batch:
            yield each


def _quoted(text: str | None) -> str:
    return quote_literal(text or "")


def past_runs(
    ledger: LedgerListing, at: datetime, job: str | None = None
) -> Iterator[tuple[str, Sequence[PastRun]]]:
    """Yield the last finished runs of each job, oldest first, by name of the job.

    Args:
        ledger: the ledger to query.
        at: skips runs that ended later.
        job: skips other jobs.
    """
    where = [
        "job IS NOT NULL AND start_time IS NOT NULL",
        f"job <> {quote_literal(UNDO_JOB)}",
        is_in("status", _FINISHED),
        _until("start_time", at),
        f"coalesce(end_time, start_time) <= {timestamp_literal(at)}",
        *equal("job", job),
        *_none_of(undone_runs(ledger, at)),
    ]
    rows = ledger.query(
        "SELECT * FROM (SELECT run_id, job, start_time, end_time, status, error_type, code_version,"  # noqa: S608 - quoted
        f" {_ROWS} AS changed, coalesce(hits, 0) AS hits,"
        " row_number() OVER (PARTITION BY job ORDER BY start_time DESC, run_id DESC) AS place"
        f" FROM runs WHERE {' AND '.join(f'({each})' for each in where)})"
        f" WHERE place <= {HISTORY} ORDER BY job, start_time, run_id"
    )
    for name, same in groupby(rows, key=lambda row: str(row["job"])):
        yield name, [_run(row) for row in same]


def _run(row: Row) -> PastRun:
    start, end = _in_utc(row["start_time"]), row["end_time"]
    is_known = end is not None and row["status"] != "abandoned"  # its end is when that was found
    return PastRun(
        run_id=row["run_id"],
        start_time=start,
        seconds=(_in_utc(end) - start).total_seconds() if is_known else None,
        is_ok=row["status"] == "ok",
        rows=int(row["changed"] or 0),
        hits=int(row["hits"] or 0),
        error_type=row["error_type"],
        code_version=row["code_version"],
    )


def _until(name: str, at: datetime) -> str:
    # The partition column is compared too, so that files are skipped.
    return f"event_date <= DATE '{at.date()}' AND {name} <= {timestamp_literal(at)}"


def _in_utc(time: Any) -> datetime:
    found: datetime = time
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
