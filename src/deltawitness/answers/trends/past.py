"""The recent past of tables and jobs, read from the ledger with one query each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import compress, groupby, pairwise
from statistics import median
from typing import Any

from deltawitness.answers.committed_writes import CHANGES_ROWS, COMMITTED, KEEPS_ROWS
from deltawitness.answers.predicates import equal, recorded_job, scan
from deltawitness.answers.rows import TableVersion, seconds_of_run
from deltawitness.answers.run_report import undone_runs
from deltawitness.ids_and_clock import in_utc, now_ns
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in, timestamp_literal
from deltawitness.locations import last_segment
from deltawitness.semconv import UNDO_JOB, CacheScope
from deltawitness.sql_quoting import quote_literal

__all__ = ["PastRun", "PastWrites", "micros_of", "now", "past_runs", "past_writes", "time_of"]

HISTORY = 60
"""Number of runs of a job, and of writes of a table by a job, that are read."""

_FINISHED = ("ok", "error", "abandoned")


@dataclass(frozen=True, slots=True)
class PastWrites:
    """The writes of a table, one for each run, oldest first, as columns: a ledger may have 100,000 of them.

    Attributes:
        table_id: id of the table.
        table_uri: its location.
        table_name: its name; None if the ledger does not have it.
        job: name of the job.
        run_id: id of the run; None if there was none.
        first: time of the first write of the run, in microseconds since 1970.
        time: time of the last one.
        version: the last version.
        rows: number of added, updated and deleted rows; None if it is not known.
        has_changed: whether rows have changed.
        is_complete: whether the run ended with the status `ok`, or there was none.
        times_of_runs: all times of changes of long-lived runs, by id of the table and of the run.
    """

    table_id: Sequence[str | None]
    table_uri: Sequence[str | None]
    table_name: Sequence[str | None]
    job: Sequence[str | None]
    run_id: Sequence[str | None]
    first: Sequence[int]
    time: Sequence[int]
    version: Sequence[int | None]
    rows: Sequence[int | None]
    has_changed: Sequence[bool]
    is_complete: Sequence[bool]
    times_of_runs: Mapping[tuple[str | None, str | None], Sequence[int]] = field(
        default_factory=dict
    )

    def __len__(self) -> int:
        """Return the number of writes."""
        return len(self.time)

    def changes(self) -> list[int]:
        """Return the times that count as changes, oldest first: the last one of a batch, all of a long run."""
        changed = compress(
            zip(self.table_id, self.run_id, self.time, strict=True), self.has_changed
        )
        if not self.times_of_runs:
            return [time for _, _, time in changed]
        found = self.times_of_runs
        return sorted(
            each
            for table_id, run_id, time in changed
            for each in found.get((table_id, run_id), (time,))
        )

    def table(self, number: int) -> TableVersion:
        """Return the table at the version of a write; without a name, it has the end of its location."""
        uri = self.table_uri[number]
        name = self.table_name[number] or (uri and last_segment(uri))
        return TableVersion(self.version[number], name, uri, self.table_id[number])


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


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(micros: int) -> datetime:
    """Return the time that is a number of microseconds after the beginning of 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def micros_of(time: datetime) -> int:
    """Return the microseconds of a time since the beginning of 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


_ROWS = "coalesce(rows_added, 0) + coalesce(rows_updated, 0) + coalesce(rows_deleted, 0)"
_HAS_ROWS = "rows_added IS NOT NULL OR rows_updated IS NOT NULL OR rows_deleted IS NOT NULL"

_COLUMNS = (
    *(
        "event_date",
        "event_time",
        "table_id",
        "table_uri",
        "table_name",
        "job",
        "run_id",
        "write_id",
    ),
    *("version", "rows_added", "rows_updated", "rows_deleted", "result", "operation"),
    *("cache_operation", "scope", "mode"),
)
"""The columns that the conditions and the sums of past writes use."""

_ENTRIES = (CacheScope.VIEW, CacheScope.ARTIFACT, CacheScope.METADATA, CacheScope.LEDGER)
_NO_ENTRY = "NOT " + is_in("coalesce(scope, '')", [scope.value for scope in _ENTRIES])
"""The condition that a write is of no cache entry: entries are written when they are needed."""


def past_writes(
    ledger: LedgerListing, at: datetime, table: str | None = None
) -> dict[str, PastWrites]:
    """Return the last writes of each table by each job, oldest first, by id of the table.

    Args:
        ledger: the ledger to query.
        at: skips later writes.
        table: SQL predicate of the tables; None for all.
    """
    conditions = _conditions(at, undone_runs(ledger, at))
    written = [*conditions, *([] if table is None else [f"({table})"])]
    source = f"({scan(_COLUMNS)})" if table is None else "inventory"
    rows = ledger.arrow(
        "SELECT table_id, table_uri, table_name, found.job, found.run_id,"  # noqa: S608 - quoted
        f" {_micros('first')} AS first, {_micros('time')} AS time, version,"
        " CASE WHEN is_counted THEN changed END AS rows, has_changed,"
        " coalesce(found.run_id IS NULL OR runs.status = 'ok', false) AS is_complete"
        " FROM (SELECT *, row_number() OVER"
        " (PARTITION BY table_id, job ORDER BY time DESC) AS place FROM (SELECT table_id,"
        " max(table_uri) AS table_uri, max(table_name) AS table_name, job, max(run_id) AS run_id,"
        " min(event_time) AS first, max(event_time) AS time, max(version) AS version,"
        f" CAST(sum({_ROWS}) AS BIGINT) AS changed, bool_and({_HAS_ROWS}) AS is_counted,"
        f" bool_or({CHANGES_ROWS}) AS has_changed"
        f" FROM {source} WHERE {' AND '.join(written)}"
        " GROUP BY table_id, job, coalesce(run_id, write_id))) AS found"
        " LEFT JOIN runs ON runs.run_id = found.run_id"
        f" WHERE place <= {HISTORY} ORDER BY table_id, time, version"
    )
    columns: dict[str, Any] = {
        name: column.to_pylist()
        for name, column in zip(rows.schema.names, rows.columns, strict=True)
    }
    return _with_changes(ledger, dict(_by_table(columns)), conditions)


def _by_table(columns: Mapping[str, Any]) -> Iterator[tuple[str, PastWrites]]:
    """Yield the writes of each table, which follow each other in the columns."""
    start = 0
    for identity, same in groupby(columns["table_id"]):
        end = start + sum(1 for _ in same)
        yield str(identity), PastWrites(**{name: each[start:end] for name, each in columns.items()})
        start = end


def _micros(name: str) -> str:
    """Return the microseconds of a time since 1970, which cost less to read than times."""
    return f"CAST(arrow_cast({name}, 'Timestamp(Microsecond, None)') AS BIGINT)"


def _conditions(at: datetime, undone: Collection[str]) -> list[str]:
    """Return the conditions of the writes that are learned from."""
    no_undo = [f"coalesce(job, '') <> {quote_literal(UNDO_JOB)}", *_none_of(undone)]
    return [f"({COMMITTED})", f"NOT {KEEPS_ROWS}", _until("event_time", at), _NO_ENTRY, *no_undo]


def _none_of(runs: Collection[str]) -> list[str]:
    return ["NOT " + is_in("coalesce(run_id, '')", sorted(runs))] if runs else []


def _with_changes(
    ledger: LedgerListing, found: dict[str, PastWrites], conditions: Sequence[str]
) -> dict[str, PastWrites]:
    """Return the writes with all changes of long-lived runs, such as those of a service."""
    long = [pair for writes in found.values() for pair in _long_lived(writes)]
    if not long:
        return found
    times: dict[tuple[str | None, str | None], list[int]] = {}
    keys = ", ".join(f"({_quoted(table_id)}, {_quoted(run_id)})" for table_id, run_id in long)
    rows = ledger.query(
        f"SELECT table_id, run_id, {_micros('event_time')} AS time FROM"  # noqa: S608 - quoted
        " (SELECT table_id, run_id, event_time, row_number() OVER"
        " (PARTITION BY table_id, run_id ORDER BY event_time DESC) AS place FROM inventory"
        f" JOIN (VALUES {keys}) AS wanted(wanted_table, wanted_run)"
        " ON wanted_table = table_id AND wanted_run = run_id"
        f" WHERE {' AND '.join(conditions)} AND {CHANGES_ROWS})"
        f" WHERE place <= {HISTORY} ORDER BY event_time"
    )
    for row in rows:
        times.setdefault((row["table_id"], row["run_id"]), []).append(row["time"])
    return {identity: replace(writes, times_of_runs=times) for identity, writes in found.items()}


def _long_lived(writes: PastWrites) -> Iterator[tuple[str | None, str | None]]:
    """Yield table and run of those that wrote for longer than half of the usual time between two runs."""
    gaps = [b - a for a, b in pairwise(writes.time)]
    batch = median(gaps) / 2 if gaps else 0.0
    for table_id, run_id, first, last in zip(
        writes.table_id, writes.run_id, writes.first, writes.time, strict=True
    ):
        if run_id is not None and last - first > batch:
            yield table_id, run_id


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
        *equal("job", recorded_job(job)),
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
    start, end = in_utc(row["start_time"]), row["end_time"]
    return PastRun(
        run_id=row["run_id"],
        start_time=start,
        seconds=seconds_of_run(start, None if end is None else in_utc(end), row["status"]),
        is_ok=row["status"] == "ok",
        rows=int(row["changed"] or 0),
        hits=int(row["hits"] or 0),
        error_type=row["error_type"],
        code_version=row["code_version"],
    )


def _until(name: str, at: datetime) -> str:
    # The partition column is compared too, so that files are skipped.
    return f"event_date <= DATE '{at.date()}' AND {name} <= {timestamp_literal(at)}"
