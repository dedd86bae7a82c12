"""Leases of tables on object stores, among the processes of all hosts that share a ledger.

A lease is an application transaction in the table `cache_leases_v1` of the ledger, one for each leased table:
at an odd version it is held, at an even one free, as the maintenance lease of the ledger's own tables. The
holder commits the next odd version every few seconds. A lease whose version has not changed for
`EXPIRY` seconds, by the clock of the process that waits, is that of a dead process and can be taken.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from deltawitness.error_types import is_conflict
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import guard, report
from deltawitness.ledger.tables.schema import (
    PARTITION,
    ColumnKind,
    LedgerRoot,
    LedgerTable,
    commit_properties,
)
from deltawitness.run import suppressed
from deltawitness.semconv import TABLE_LEASE_APP_ID_PREFIX, CacheOperation
from deltawitness.thread_start import start_thread

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["EXPIRY", "LEASES", "TableLease"]

RENEWAL = 8.0
"""Seconds between two commits of the holder."""

EXPIRY = 30.0
"""Seconds without such a commit after which a lease can be taken."""

POLL = 0.5
"""Seconds between two looks at a lease that another process holds."""

RELEASE_TIMEOUT = 10.0
"""Seconds that the holder waits until the lease is released. Without the release it expires."""

LEASES = LedgerTable(
    "cache_leases_v1",
    "leases",
    "No rows: its application transactions are leases of tables",
    (
        (PARTITION, ColumnKind.DAY, "not used"),
        ("table_id", ColumnKind.TEXT, "not used"),
    ),
)


class TableLease:
    """The lease of one table. A thread acquires, renews and releases it, so that no request delays the caller.

    Args:
        root: location of the ledger.
        table_id: id of the leased table.
    """

    def __init__(self, root: LedgerRoot, table_id: str) -> None:
        self._root = root
        self._app_id = f"{TABLE_LEASE_APP_ID_PREFIX}{table_id}"
        self._is_held = threading.Event()
        self._has_ended = threading.Event()
        self._stop = threading.Event()

    def acquire(self, timeout: float) -> bool:
        """Wait for the lease; return whether it was acquired in time.

        Args:
            timeout: seconds to wait. If the lease is acquired later, it is released at once.
        """
        thread = threading.Thread(target=self._run, name="deltawitness-lease", daemon=True)
        if not start_thread(thread):
            return False
        deadline = time.monotonic() + timeout
        while not self._is_held.wait(min(POLL, max(0.0, deadline - time.monotonic()))):
            if self._has_ended.is_set() or time.monotonic() >= deadline:
                self._stop.set()
                return False
        return True

    def release(self) -> None:
        """Release the lease, and wait for it for at most `RELEASE_TIMEOUT` seconds."""
        self._stop.set()
        self._has_ended.wait(RELEASE_TIMEOUT)

    def _run(self) -> None:
        try:
            with suppressed():
                self._hold()
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is no Exception
            report("lease", error)
        finally:
            self._has_ended.set()

    def _hold(self) -> None:
        version = self._take(self._root.open_or_create(LEASES))
        if version is None:
            return
        self._is_held.set()
        try:
            while not self._stop.wait(RENEWAL) and self._advance(version, 2):
                version += 2
        finally:
            with guard("lease"):
                self._advance(version, 1)

    def _advance(self, version: int, step: int) -> bool:
        """Renew or release the lease; return False if another process has taken it since."""
        table = self._root.open_or_create(LEASES)
        is_own = table.transaction_version(self._app_id) == version
        return is_own and self._commit(table, version + step)

    def _take(self, table: DeltaTable) -> int | None:
        """Return the odd version with which the lease was acquired; None if the caller no longer waits."""
        seen, since = -1, time.monotonic()
        while not self._stop.is_set():
            current = table.transaction_version(self._app_id) or 0
            if current != seen:
                seen, since = current, time.monotonic()
            is_free = current % 2 == 0
            if is_free or time.monotonic() - since > EXPIRY:
                version = current + (1 if is_free else 2)
                if self._commit(table, version):
                    return version
            else:
                self._stop.wait(POLL)
            table.update_incremental()
        return None

    def _commit(self, table: DeltaTable, version: int) -> bool:
        """Commit a version of the lease; return False if another process was faster."""
        from deltalake import Transaction, write_deltalake  # noqa: PLC0415 - heavy

        transaction = Transaction(self._app_id, version, now_ns() // 1_000_000)
        try:
            write_deltalake(
                table,
                LEASES.schema.empty_table(),
                mode="append",
                commit_properties=commit_properties(
                    CacheOperation.WRITE, [transaction], retries=15
                ),
            )
        except Exception as error:
            if is_conflict(error):
                return False
            raise
        return True
