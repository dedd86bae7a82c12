"""The columns of the lists, and the cells of their rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from deltawitness.answers.health.values import HealthFinding, TableHealth
from deltawitness.answers.rows import RunRow, WriteRow, seconds_of_run
from deltawitness.cache.entries.listing import CacheEntry
from deltawitness.report.format import number, operation, rows, seconds, size, text, timestamp

__all__ = [
    "CACHE",
    "FINDINGS",
    "HEALTH",
    "READS",
    "RUNS",
    "WRITES",
    "cache_cells",
    "finding_cells",
    "health_cells",
    "read_cells",
    "run_cells",
    "write_cells",
]

_MS = 1000
_ID = 13
"""Characters of the id of a run, which hold the time of a UUID of version 7."""


def _columns(names: str, numbers: str = "") -> tuple[tuple[str, bool], ...]:
    return tuple((name, name in numbers.split("|")) for name in names.split("|"))


RUNS = _columns(
    "run|job|status|started|seconds|writes|hits|misses|noops|errors|rows +|tables",
    "seconds|writes|hits|misses|noops|errors|rows +|tables",
)
WRITES = _columns(
    "time|table|operation|version|result|landed|rows|seconds|job|run", "version|seconds"
)
CACHE = _columns("scope|name|policy|version|made|state", "version")
READS = _columns("time|run|job|result|reason|seconds", "seconds")
HEALTH = _columns(
    "table|health|version|files|size|rows|commits|since checkpoint|old versions|orphans",
    "version|files|size|rows|commits|since checkpoint|old versions|orphans",
)
FINDINGS = _columns("severity|table|check|finding|command")


def run_cells(row: RunRow) -> Sequence[object]:
    """Return the cells of a run."""
    took = seconds_of_run(row.start_time, row.end_time, row.status)
    return (
        row.run_id[:_ID],
        row.job,
        row.status,
        timestamp(row.start_time),
        seconds(took),
        *(number(count) for count in (row.writes, row.hits, row.misses, row.noops, row.errors)),
        number(row.rows_added),
        number(row.tables_touched),
    )


def write_cells(row: WriteRow) -> Sequence[object]:
    """Return the cells of an operation."""
    return (
        timestamp(row.event_time),
        row.table_name or text(row.table_id)[:8],
        operation(row.operation or row.cache_operation, row.mode),
        row.version,
        _result(row),
        row.landed,
        rows(row.rows_added, row.rows_updated, row.rows_deleted),
        seconds(None if row.duration_ms is None else row.duration_ms / _MS),
        row.job,
        text(row.run_id)[:_ID],
    )


def _result(row: WriteRow) -> str:
    why = row.error_type or row.reason
    return text(row.result) + (f": {why}" if why else "")


def cache_cells(entry: CacheEntry) -> Sequence[object]:
    """Return the cells of an entry of the cache."""
    made = entry.made_at
    time = None if made is None else dt.datetime.fromtimestamp(made / _MS, tz=dt.UTC)
    state = entry.problem or "live"
    return entry.scope.value, entry.name, entry.policy, entry.version, timestamp(time), state


def read_cells(row: WriteRow) -> Sequence[object]:
    """Return the cells of a read of an entry: a hit, or a miss with its reason."""
    return (
        timestamp(row.event_time),
        text(row.run_id)[:_ID],
        row.job,
        row.result,
        row.reason,
        seconds(None if row.duration_ms is None else row.duration_ms / _MS),
    )


def health_cells(table: TableHealth) -> Sequence[object]:
    """Return the cells of a table."""
    return (
        table.name,
        "ok" if table.severity is None else table.severity.value,
        table.version,
        table.files,
        size(table.bytes),
        table.rows,
        table.commits,
        table.commits_since_checkpoint,
        size(table.held_bytes),
        size(table.orphan_bytes),
    )


def finding_cells(finding: HealthFinding) -> Sequence[object]:
    """Return the cells of a finding of `doctor`."""
    return (
        finding.severity.value,
        finding.table,
        finding.check.value,
        finding.text,
        finding.command,
    )
