"""Maintenance of the ledger's tables: compact small files, delete files past their retention.

Two compactions of one table that start from the same version both commit, and every row is then
there twice (delta-rs 1.6.6). So a compaction holds a lease, an application transaction in the
table's own log: at an odd version the lease is held, at an even one it is free. This works on any
storage, because only one of two concurrent commits can take it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deltawitness.commit.log import CommitLog, open_log
from deltawitness.commit.reader import parse_commit
from deltawitness.error_types import is_conflict
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.ledger.drain.drain import append
from deltawitness.ledger.tables.schema import (
    LedgerRoot,
    LedgerTable,
    commit_properties,
)
from deltawitness.run import suppressed
from deltawitness.semconv import LEASE_APP_ID, CacheOperation

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from deltalake import DeltaTable

__all__ = ["MaintenanceResult", "lease", "maintain", "optimize", "vacuum_table"]

LEASE_SECONDS = 3600.0
"""Seconds after which a lease expires, because its holder must be dead."""

RETENTION_HOURS = 168
"""Hours that an unreferenced file is retained for readers of older versions."""


@dataclass(frozen=True, slots=True)
class MaintenanceResult:
    """The result of maintaining one table.

    Attributes:
        table: its name.
        is_done: False if another process was maintaining it, or there is no table.
        files_added: files that compaction wrote.
        files_removed: files that compaction replaced.
        files_deleted: files that were deleted from the storage.
    """

    table: str
    is_done: bool
    files_added: int = 0
    files_removed: int = 0
    files_deleted: int = 0


def maintain(root: LedgerRoot, table: LedgerTable) -> None:
    """Maintain one table; report errors instead of raising them."""
    try:
        optimize(root, table)
    except Exception as error:  # noqa: BLE001 - the next maintenance tries again
        report("maintenance", error)


def optimize(root: LedgerRoot, table: LedgerTable) -> MaintenanceResult:
    """Compact one table and delete its unreferenced files past their retention.

    Args:
        root: location of the ledger.
        table: the table.

    Raises:
        OSError: the storage cannot be read or written.
        DeltaError: the table is damaged.
    """
    with suppressed(), lease(root, table) as opened:
        if opened is None:
            return MaintenanceResult(table.name, is_done=False)
        counts = opened.optimize.compact(
            commit_properties=commit_properties(CacheOperation.OPTIMIZE)
        )
        deleted = vacuum_table(opened)
        return MaintenanceResult(
            table.name,
            is_done=True,
            files_added=counts["numFilesAdded"],
            files_removed=counts["numFilesRemoved"],
            files_deleted=deleted,
        )


def vacuum_table(opened: DeltaTable) -> int:
    """Delete the files that no version of the retention needs; return their number.

    Args:
        opened: a table of the ledger, at its newest version.
    """
    deleted = opened.vacuum(
        retention_hours=RETENTION_HOURS,
        dry_run=False,
        commit_properties=commit_properties(CacheOperation.VACUUM),
    )
    return len(deleted)


@contextmanager
def lease(root: LedgerRoot, table: LedgerTable) -> Iterator[DeltaTable | None]:
    """Hold the maintenance lease of a table for the block.

    Args:
        root: location of the ledger.
        table: the table.

    Yields:
        The table at its newest version; None if it does not exist or another process has the lease.
    """
    taken = _acquire(root, table)
    if taken is None:
        yield None
        return
    try:
        yield root.open_table(table)
    finally:
        _release(root, table, taken)


def _acquire(root: LedgerRoot, table: LedgerTable) -> int | None:
    """Take the lease; return its version, or None if another process holds it or was faster."""
    opened = root.open_table(table)
    if opened is None:
        return None
    current = opened.transaction_version(LEASE_APP_ID) or 0
    if current % 2 and not _is_expired(open_log(root.uri_of(table), root.storage_options)):
        return None
    # From an expired (odd) version to the next odd one.
    version = current + 2 if current % 2 else current + 1
    try:
        _write_lease(opened, table, version)
    except Exception as error:
        if is_conflict(error):
            return None
        raise
    return version


def _release(root: LedgerRoot, table: LedgerTable, taken: int) -> None:
    def free(opened: DeltaTable) -> tuple[pa.Table, Mapping[str, int]]:
        is_own = opened.transaction_version(LEASE_APP_ID) == taken
        return table.schema.empty_table(), {LEASE_APP_ID: taken + 1} if is_own else {}

    append(root, table, free)


def _write_lease(opened: DeltaTable, table: LedgerTable, version: int) -> None:
    from deltalake import Transaction, write_deltalake  # noqa: PLC0415 - heavy

    transaction = Transaction(LEASE_APP_ID, version, now_ns() // 1_000_000)
    write_deltalake(
        opened,
        table.schema.empty_table(),
        mode="append",
        schema_mode="merge",
        commit_properties=commit_properties(CacheOperation.WRITE, [transaction]),
    )


def _is_expired(log: CommitLog) -> bool:
    """Return whether the lease was taken so long ago that its holder must be dead."""
    oldest = now_ns() // 1_000_000 - LEASE_SECONDS * 1000
    for version in reversed(log.versions()):
        raw = log.read(version) or b""
        made = parse_commit(version, raw).timestamp
        if made is not None and made < oldest:
            return True
        if _LEASE_TRANSACTION in raw:
            return False
    return True


_LEASE_TRANSACTION = f'"appId":"{LEASE_APP_ID}"'.encode()
