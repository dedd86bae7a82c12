"""Expire old rows of the ledger: delete the days before a date, from every table.

The tables are append-only for their writers (`delta.appendOnly`). An expiry turns this off, deletes the
rows and turns it on again, while it holds the maintenance lease: a compaction that runs meanwhile would
restore rows. The first of these commits also stores the date in the table's properties, so that a
reconcile does not rebuild expired rows from the logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

from deltawitness.ledger.drain.drain import retry_conflicts
from deltawitness.ledger.drain.fold import fold
from deltawitness.ledger.drain.maintenance import lease, vacuum_table
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.schema import (
    PARTITION,
    RUNS,
    TABLES,
    LedgerRoot,
    LedgerTable,
    commit_properties,
)
from deltawitness.ledger.tables.shards import open_parts
from deltawitness.ledger.tables.write_plans import delete_plans_of_writes, plans_of_writes
from deltawitness.run import suppressed
from deltawitness.semconv import EXPIRED_PROPERTY, WRITE_PLAN_DIRECTORY, CacheOperation

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["MIN_AGE", "ExpireResult", "expire"]

MIN_AGE = timedelta(days=31)
"""Rows that are younger cannot be expired: a spool that has waited, and whose application transaction
expired too, is compared with the rows."""


@dataclass(frozen=True, slots=True)
class ExpireResult:
    """The result of expiring one table, or the stored plans of writes.

    Attributes:
        table: its name; `cache_plans` for the stored plans.
        rows: its rows before the expiry; of the stored plans, the files.
        expired: rows that were deleted; in a dry run, those that would be.
        retained: rows of runs before the date that stay, because they have later writes or ended later.
        is_done: whether the rows are deleted. False in a dry run, and if another process maintains the
            table.
        files_deleted: files past their retention that were deleted from the storage.
    """

    table: str
    rows: int
    expired: int
    retained: int = 0
    is_done: bool = False
    files_deleted: int = 0


def expire(
    root: LedgerRoot, before: date, *, apply: bool = False, vacuum: bool = False
) -> list[ExpireResult]:
    """Delete the rows of the days before a date, or count them.

    Shards are folded first. The row of a run stays while the ledger has later writes of the run. The
    stored plans of writes before the date are deleted as well.

    Args:
        root: location of the ledger.
        before: the first day that stays, in UTC.
        apply: delete the rows; otherwise only count them.
        vacuum: also delete files that no version of the last 7 days needs.

    Raises:
        OSError: the storage cannot be read or written.
        DeltaError: a table is damaged, or has too many concurrent writers.
    """
    if apply:
        fold(root)
    results = []
    with suppressed():
        for table, parts in open_parts(root, TABLES).items():
            if parts.exists:
                found = _count(root, table, before)
                results.append(
                    _expire(root, table, found, before, vacuum) if apply else found.result
                )
        if plans := plans_of_writes(root):
            results.append(_expire_plans(root, plans, before, apply=apply))
    return results


def _expire_plans(
    root: LedgerRoot, plans: Mapping[str, date | None], before: date, *, apply: bool
) -> ExpireResult:
    expired = [name for name, day in plans.items() if day is not None and day < before]
    if apply:
        delete_plans_of_writes(root, expired)
    return ExpireResult(WRITE_PLAN_DIRECTORY, len(plans), len(expired), is_done=apply)


@dataclass(frozen=True, slots=True)
class _Expired:
    result: ExpireResult
    predicate: str


def _count(root: LedgerRoot, table: LedgerTable, before: date) -> _Expired:
    listing, is_old = LedgerListing(root, TABLES), f"{PARTITION} < DATE '{before}'"
    source = "run_parts" if table is RUNS else table.alias
    retained = list(_retained_runs(listing, before)) if table is RUNS else []
    # A reconstructed run may lack an id in theory, and `NOT IN` is null for it.
    predicate = f"{is_old} AND NOT coalesce({is_in('run_id', retained)}, false)"
    if not retained:
        predicate = is_old
    (row,) = listing.query(
        f"SELECT count(*) AS rows, count(CASE WHEN {predicate} THEN 1 END) AS expired,"
        f" count(CASE WHEN {is_old} THEN 1 END) AS old FROM {source}"
    )
    return _Expired(
        ExpireResult(table.name, row["rows"], row["expired"], row["old"] - row["expired"]),
        predicate,
    )


def _retained_runs(listing: LedgerListing, before: date) -> Iterable[str]:
    day = f"DATE '{before}'"
    rows = listing.query(
        f"SELECT DISTINCT run_id FROM run_parts WHERE {PARTITION} < {day} AND (end_time >= {day}"
        f" OR run_id IN (SELECT run_id FROM inventory WHERE {PARTITION} >= {day}))"
    )
    return (row["run_id"] for row in rows if row["run_id"] is not None)


def _expire(
    root: LedgerRoot, table: LedgerTable, found: _Expired, before: date, vacuum: bool
) -> ExpireResult:
    counted, files = found.result, 0
    with lease(root, table) as opened:
        if opened is None:
            return counted
        if counted.expired:
            _set(root, table, {APPEND_ONLY: "false", EXPIRED_PROPERTY: before.isoformat()})
            try:
                retry_conflicts(lambda: _delete(_open(root, table), found.predicate))
            finally:
                _set(root, table, {APPEND_ONLY: "true"})
        if vacuum:
            files = vacuum_table(_open(root, table))
    return replace(counted, is_done=True, files_deleted=files)


APPEND_ONLY = "delta.appendOnly"


def _open(root: LedgerRoot, table: LedgerTable) -> DeltaTable:
    opened = root.open_table(table)
    assert opened is not None  # its lease is held
    return opened


def _set(root: LedgerRoot, table: LedgerTable, properties: dict[str, str]) -> None:
    def alter() -> None:
        _open(root, table).alter.set_table_properties(
            properties,
            raise_if_not_exists=False,
            commit_properties=commit_properties(CacheOperation.ALTER),
        )

    retry_conflicts(alter)


def _delete(opened: DeltaTable, predicate: str) -> None:
    opened.delete(predicate, commit_properties=commit_properties(CacheOperation.DELETE))
