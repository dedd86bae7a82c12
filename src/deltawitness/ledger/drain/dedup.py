"""Deduplicate a batch: by application transactions, and by rows once transactions may have expired.

delta-rs drops an application transaction after the table's `setTransactionRetentionDuration`,
measured with the clocks of its writer and its reader. So rows older than half of that time, also
rows with a wrong clock, are also compared with the table's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from deltawitness.ids_and_clock import now_ns
from deltawitness.ledger.spool.reader import SegmentContents
from deltawitness.ledger.tables.arrow import query
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.schema import INVENTORY, PARTITION, RUNS, SNAPSHOTS, LedgerTable
from deltawitness.sql_quoting import quote_literal

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["drop_present", "without_recorded"]

TRANSACTION_LIFETIME = timedelta(days=15)
"""For this long the application transaction of a segment certainly exists: half of the tables'
transaction retention."""

KEY_COLUMNS: dict[str, tuple[str, ...]] = {
    INVENTORY.name: ("write_id",),
    RUNS.name: ("run_id", "host", "pid", "start_time"),
    SNAPSHOTS.name: ("run_id", "snapshot", "event_time"),
}
"""The columns that identify a row of a segment, by table. The end time of a run is no part of its key, as
it is in `ROW_KEYS`, by which the rows of a shard and of the ledger are compared."""


def without_recorded(
    opened: DeltaTable, table: LedgerTable, parts: Sequence[tuple[SegmentContents, pa.Table]]
) -> tuple[list[pa.Table], dict[str, int]]:
    """Return the rows that a table does not contain, and the application transactions to commit.

    Args:
        opened: the table at its current version.
        table: its definition.
        parts: the rows of each segment.

    Returns:
        The rows by segment, and the new transaction versions by application id.
    """
    fresh: list[pa.Table] = []
    transactions: dict[str, int] = {}
    for contents, rows in parts:
        if contents.number > (opened.transaction_version(contents.app_id) or 0):
            columns = KEY_COLUMNS[table.name]
            is_old = _is_old(rows)
            fresh.append(drop_present(opened, rows, columns, of_runs=True) if is_old else rows)
            transactions[contents.app_id] = max(
                contents.number, transactions.get(contents.app_id, 0)
            )
    return fresh, transactions


def _first_day(rows: pa.Table) -> datetime:
    day = pc.min(rows[PARTITION]).as_py()
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _is_old(rows: pa.Table) -> bool:
    now = datetime.fromtimestamp(now_ns() / 1e9, tz=UTC)
    return rows.num_rows > 0 and now - _first_day(rows) > TRANSACTION_LIFETIME


MAX_NAMED_RUNS = 1000
"""Up to this number of runs a query lists them; for more, the rows of all runs are read."""


def drop_present(
    opened: DeltaTable, rows: pa.Table, columns: Sequence[str], *, of_runs: bool = False
) -> pa.Table:
    """Return the rows that a table does not contain, by key.

    Args:
        opened: the table at its current version.
        rows: the rows.
        columns: the columns of the key.
        of_runs: read only rows of the same runs. Rows that a reconcile added may name another run.
    """
    if not rows.num_rows:
        return rows
    named = rows["run_id"].drop_null().unique().to_pylist()
    runs = is_in("run_id", named) if of_runs and len(named) <= MAX_NAMED_RUNS else "true"
    # A day earlier: a reconcile dates the row of a write by its commit, and clocks differ.
    since = (_first_day(rows) - timedelta(days=1)).date().isoformat()
    present = query(
        opened,
        f"SELECT {', '.join(columns)} FROM ledger WHERE ({runs} OR run_id IS NULL)"
        f" AND {PARTITION} >= {quote_literal(since)}",
    )
    keys = set(_keys(present, columns))
    return rows.filter(pa.array([key not in keys for key in _keys(rows, columns)], pa.bool_()))


def _keys(rows: pa.Table, columns: Sequence[str]) -> list[tuple[object, ...]]:
    return list(zip(*(rows[name].to_pylist() for name in columns), strict=True))
