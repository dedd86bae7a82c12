"""Counts of abandoned runs: the operations in the ledger that no recorded end of a run includes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from deltawitness.ledger.tables.arrow import query
from deltawitness.ledger.tables.run_rows import TALLIED, Tally
from deltawitness.ledger.tables.schema import PARTITION
from deltawitness.ledger.tables.shards import TableParts
from deltawitness.sql_quoting import quote_literal

__all__ = ["RunKey", "last_ends", "run_key", "tallies_of"]

Row = dict[str, Any]

RunKey: TypeAlias = tuple[object, object, object]


def run_key(row: Row) -> RunKey:
    """Return what identifies the part of a run in one process."""
    return row["run_id"], row["host"], row["pid"]


def _rows_of_runs(table: TableParts, columns: str, started: Sequence[Row]) -> list[Row]:
    """Query rows of some runs from a table of the ledger.

    Args:
        table: the table.
        columns: further columns to select.
        started: start rows of the runs.
    """
    if not table.exists:
        return []
    first = min(run["start_time"] for run in started)
    since = datetime.fromtimestamp(first / 1e6, tz=UTC).date()
    names = ", ".join(quote_literal(name) for name in {run["run_id"] for run in started})
    rows: list[Row] = query(
        table,
        f"SELECT run_id, host, pid, {columns} FROM ledger WHERE run_id IN ({names})"
        f" AND {PARTITION} >= {quote_literal(since.isoformat())}",
    ).to_pylist()
    return rows


def last_ends(table: TableParts, started: Sequence[Row]) -> dict[RunKey, int]:
    """Return the last recorded end of each run in its process, in microseconds since the epoch."""
    ends: dict[RunKey, int] = {}
    for row in _rows_of_runs(table, "end_time", started):
        ends[run_key(row)] = max(_microseconds(row["end_time"]), ends.get(run_key(row), 0))
    return ends


def tallies_of(
    table: TableParts, started: Sequence[Row], ended: Mapping[RunKey, int]
) -> dict[RunKey, Tally]:
    """Tally the operations of each run's process that no recorded end of the run includes.

    Args:
        table: the inventory.
        started: start rows of the runs.
        ended: recorded ends; a thread may have gone on writing after one.
    """
    tallies = {run_key(run): Tally() for run in started}
    columns = f"event_time, duration_ms, {', '.join(TALLIED)}"
    for row in _rows_of_runs(table, columns, started):
        tally = tallies.get(run_key(row))
        end = _microseconds(row["event_time"]) + (row["duration_ms"] or 0.0) * 1000
        if tally is not None and end >= ended.get(run_key(row), 0):
            tally.add(row)
    return tallies


def _microseconds(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1e6)
