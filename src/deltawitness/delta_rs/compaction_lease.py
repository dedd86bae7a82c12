"""Guard compactions: one at a time on a table among observed processes, and each from the newest version.

Two compactions that start from the same version both commit in delta-rs 1.6.6, and every row is then in
the table twice. So an observed compaction takes a lease, and then updates its handle to the newest version.

- Table on a local disk: a lock of the folder of its log, without a file of ours (on Windows and NFS, where a
  folder cannot be locked, of a file in the user's state folder). It is released when the process ends.
- Table on an object store: a lock of a file in the user's state folder for the processes of this host, and
  a lease in the ledger for those of other hosts, if the ledger is on an object store as well
  and its mode is not `forward`.

The wait has a limit. After it the compaction proceeds and a warning is logged. If rows are doubled
nevertheless, because something that is not observed has compacted the table, an error is logged.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from deltawitness.commit.duplicates import find_duplicate_rewrites
from deltawitness.commit.log import TableLog, local_log_directory, open_log
from deltawitness.internal_errors import guard, report
from deltawitness.ledger.tables.locations import is_enabled, root_of
from deltawitness.local_files import open_lock_file, try_lock, unlock
from deltawitness.locations import last_segment, strip_credentials, table_id
from deltawitness.semconv import (
    DELTA_TABLE_ID,
    DIAGNOSTIC_COMPACTION_UNGUARDED,
    DIAGNOSTIC_ROWS_DOUBLED,
)
from deltawitness.settings import LedgerMode, Settings, state_folder

if TYPE_CHECKING:
    from deltalake._internal import RawDeltaTable

    from deltawitness.ledger.drain.table_lease import TableLease

__all__ = ["COMPACTIONS", "CompactionGuard"]

Call = Callable[..., Any]

COMPACTIONS = frozenset({"compact_optimize", "z_order_optimize"})
"""Names of the methods of `RawDeltaTable` that compact."""

_POLL = 0.02
"""Seconds between two attempts to get a lock."""

_logger = logging.getLogger("deltawitness.compaction")


class CompactionGuard:
    """Wraps the methods that compact a table.

    Args:
        settings: how long to wait for the lease, and where the ledger is.
        only_when: called before each compaction; returns whether it is observed.
        diagnose: records a diagnostic event by its name and properties.
    """

    def __init__(
        self,
        settings: Settings,
        only_when: Callable[[], bool],
        diagnose: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        self._settings = settings
        self._diagnose = diagnose
        self._only_when = only_when

    def guard(self, name: str, original: Call) -> Call:
        """Return a callable with the lease around it; unchanged if it does not compact.

        Args:
            name: name of the callable.
            original: the callable.
        """
        wait = self._settings.compaction_wait
        if name not in COMPACTIONS or not wait:
            return original

        @functools.wraps(original)
        def guarded(table: RawDeltaTable, *args: Any, **kwargs: Any) -> Any:
            if not self._only_when():
                return original(table, *args, **kwargs)
            with self._lease(table, wait):
                first = _update(table)
                result = original(table, *args, **kwargs)
                self._report_doubled_rows(table, first)
            return result

        return guarded

    @contextmanager
    def _lease(self, table: RawDeltaTable, wait: float) -> Iterator[None]:
        """Hold the lease of a table for the block, if it can be acquired in time."""
        deadline = time.monotonic() + wait
        descriptor: int | None = None
        remote: TableLease | None = None
        try:  # its end also follows an interrupt of the wait
            try:
                uri = table.table_uri()
                descriptor, is_held = _lock(uri, deadline)
                remote = self._remote_lease(uri) if is_held else None
                if remote is not None:
                    is_held = remote.acquire(max(0.0, deadline - time.monotonic()))
                if not is_held:
                    self._report_unguarded(uri, wait)
            except Exception as error:  # noqa: BLE001 - the lease never changes the write
                report("lease", error)
            yield
        finally:
            with guard("lease"):
                if remote is not None:
                    remote.release()
            if descriptor is not None:
                with suppress(OSError):
                    unlock(descriptor)  # a forked child may have the descriptor
                with suppress(OSError):
                    os.close(descriptor)

    def _report_unguarded(self, uri: str, wait: float) -> None:
        """Report that a compaction proceeds without the lease."""
        _logger.warning(
            "%s: another process compacts the table, or has not released its lease after %.0f s;"
            " the compaction proceeds. Run `deltawitness doctor %s` to check for doubled rows.",
            last_segment(uri) or "table",
            wait,
            strip_credentials(uri),
        )
        self._diagnose(
            DIAGNOSTIC_COMPACTION_UNGUARDED, {DELTA_TABLE_ID: self._id(uri), "wait_s": wait}
        )

    def _remote_lease(self, uri: str) -> TableLease | None:
        """Return the lease in the ledger; None if the table or the ledger is on a local disk."""
        if local_log_directory(uri) is not None or not is_enabled(self._settings):
            return None
        root = root_of(self._settings)
        if root.is_local or self._settings.ledger_mode is LedgerMode.FORWARD:
            return None  # a process in the mode `forward` commits nothing to the ledger
        from deltawitness.ledger.drain.table_lease import TableLease  # noqa: PLC0415 - heavy

        return TableLease(root, table_id(uri))

    def _id(self, uri: str) -> str:
        return table_id(uri, key=self._settings.table_id_key)

    def _report_doubled_rows(self, table: RawDeltaTable, first: int | None) -> None:
        """Report it if a commit since a version was another compaction of the same files."""
        with guard("lease"):
            last = table.version()
            if first is None or last <= first + 1:
                return
            uri, versions = table.table_uri(), range(first + 1, last + 1)
            is_local = local_log_directory(uri) is not None
            log = open_log(uri) if is_local else TableLog(table, versions)
            found = next(find_duplicate_rewrites(log, list(versions)), None)
            if found is None:
                return
            _logger.error(
                "%s: version %d has compacted files that version %d had compacted already, so their rows"
                " are in the table twice: restore version %d. Run `deltawitness doctor %s`.",
                last_segment(uri) or "table",
                found.second,
                found.first,
                found.second - 1,
                strip_credentials(uri),
            )
            self._diagnose(
                DIAGNOSTIC_ROWS_DOUBLED,
                {
                    DELTA_TABLE_ID: self._id(uri),
                    "first": found.first,
                    "second": found.second,
                    "restore_version": found.second - 1,
                },
            )


def _lock(uri: str, deadline: float) -> tuple[int | None, bool]:
    """Lock the log folder of a table, or the file for its leases on this host.

    Args:
        uri: location of the table.
        deadline: the time of `time.monotonic()` at which the wait ends.

    Returns:
        The open file, None if nothing can be locked, and whether the caller may compact: False if another
        process has the lock. Where nothing can be locked, there is nothing to wait for.
    """
    for open_file in (_open_log_folder, _open_lease_file):
        try:
            descriptor = open_file(uri)
        except OSError:
            continue
        if descriptor is None:
            continue
        try:
            return descriptor, _wait_for(descriptor, deadline)
        except OSError:  # this file system has no locks, or none of folders, as NFS
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    return None, True


def _open_log_folder(uri: str) -> int | None:
    directory = local_log_directory(uri)
    return None if directory is None or sys.platform == "win32" else os.open(directory, os.O_RDONLY)


def _open_lease_file(uri: str) -> int | None:
    folder = state_folder() / "deltawitness" / "leases"
    folder.mkdir(parents=True, exist_ok=True)
    return open_lock_file(folder / f"{table_id(uri)}.lock")


def _wait_for(descriptor: int, deadline: float) -> bool:
    while not try_lock(descriptor):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True


def _update(table: RawDeltaTable) -> int | None:
    """Update a handle to the newest version and return it; None if that fails."""
    try:
        table.update_incremental()
        return int(table.version())
    except Exception as error:  # noqa: BLE001 - then the engine raises the same error, or none
        report("lease", error)
        return None
