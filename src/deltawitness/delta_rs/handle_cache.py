"""A cache of open tables, each reused only while opening the table again would give the same state.

Opening a table reads its log, which a cached handle has read already. But a stale handle is dangerous:
an overwrite through one leaves rows that others have added. So before each use, the cache checks that
the table's log has not changed since, and opens the table again if it has.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from deltawitness.commit.log import (
    CommitLog,
    commit_file,
    local_log_directory,
    open_log,
    read_commits,
    start_reads,
)
from deltawitness.forks import mark_delta_rs_used
from deltawitness.locations import canonical_uri

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["HandleCache"]

Identity: TypeAlias = tuple[int, ...] | bytes | None
"""Identity of a file's content: inode, modification time (ns) and size; a digest for a remote file."""

HANDLES_PER_TABLE = 4
"""Cached handles of one table: one per thread that writes to it at the same time."""


LISTED_AFTER_S = 600.0
"""Age in seconds after which a remote handle is compared with a listing of its log.

A younger handle is current while the next commit does not exist: versions have no gaps, and log cleanup
deletes only commits that are older than the table's log retention.
"""


@dataclass(slots=True)
class CachedHandle:
    """A handle, with the state of the log that it has read.

    Attributes:
        table: the open table.
        version: its version.
        commit: identity of the commit of that version.
        checkpoint: identity of the `_last_checkpoint` file; None for a remote table.
        listed: when its log was listed last, on the monotonic clock in seconds.
    """

    table: DeltaTable
    version: int
    commit: Identity
    checkpoint: Identity
    listed: float


@dataclass(slots=True)
class HandleLease:
    """A handle in use by one operation: by the block of a `with` statement, or until it is released.

    It is not changed after it is made. A frozen class, or a generator in place of the methods, would take
    longer, on the path of every write by URI.

    Attributes:
        handles: the cache to which it returns.
        key: its key in the cache.
        log: the table's log.
        directory: the local log directory; None for a remote table.
        table: the open table; None when there is no table.
        checkpoint: identity of the `_last_checkpoint` file when the table was opened.
        listed: when its log was listed last, on the monotonic clock in seconds.
        verified: the version and the identity of its commit, if both were compared just now.
    """

    handles: HandleCache
    key: tuple[object, ...]
    log: CommitLog
    directory: str | None
    table: DeltaTable | None
    checkpoint: Identity
    listed: float
    verified: tuple[int, Identity] | None = None

    def __enter__(self) -> DeltaTable | None:
        """Return the open table; None when there is no table."""
        return self.table

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Release the handle, unless the block has raised: then the handle is not used again."""
        if kind is None:
            self.release()

    def release(self) -> None:
        """Return the handle to the cache after an operation that succeeded; never raises."""
        if self.table is None:
            return
        version = self.table.version()
        try:
            if self.verified is not None and self.verified[0] == version:
                commit = self.verified[1]
            else:
                commit = _commit_identity(self.log, self.directory, version)
        except Exception:  # noqa: BLE001 - where the log cannot be read, only the handle is lost
            return
        if commit is not None and self.checkpoint == _checkpoint(self.directory):
            self.handles.put(
                self.key, CachedHandle(self.table, version, commit, self.checkpoint, self.listed)
            )


class HandleCache:
    """Caches open tables between writes.

    A handle is used by one thread at a time, never in a forked child, and never again after an
    exception. A handle is dropped when a checkpoint was written since it was opened: an append
    through an old handle gets slower with every commit.

    Args:
        capacity: tables whose handles are cached; the least recently used one is dropped first.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> handles = HandleCache()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_deltalake(folder, pa.table({"x": [1]}))
    ...     for _ in range(2):
    ...         with handles.lease(folder) as table:
    ...             write_deltalake(table, pa.table({"x": [2]}), mode="append")
    ...     table.version()
    2
    """

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._handles: OrderedDict[tuple[object, ...], list[CachedHandle]] = OrderedDict()

    def lease(
        self, uri: str | os.PathLike[str], storage_options: dict[str, str] | None = None
    ) -> HandleLease:
        """Lease a fresh handle, for a block or until it is released; one that is never released is dropped.

        Args:
            uri: the table's path or URI.
            storage_options: as for `DeltaTable`.

        Raises:
            OSError: the storage cannot be read.
        """
        key = _key(uri, storage_options)
        log = open_log(os.fspath(uri), storage_options)
        directory = local_log_directory(os.fspath(uri))
        cached = self._pop(key)
        if cached is not None and _is_fresh(cached, log, directory):
            return HandleLease(
                self,
                key,
                log,
                directory,
                cached.table,
                cached.checkpoint,
                cached.listed,
                None if directory is not None else (cached.version, cached.commit),
            )
        listed = time.monotonic()
        table = _open(uri, storage_options)
        return HandleLease(self, key, log, directory, table, _checkpoint(directory), listed)

    def start_check(
        self, uri: str | os.PathLike[str], storage_options: dict[str, str] | None = None
    ) -> None:
        """Start the reads with which the next lease of a remote table checks its cached handle.

        It does nothing outside of a block of :func:`~deltawitness.commit.early_reads.early_reads`.

        Args:
            uri: the table's path or URI.
            storage_options: as for `DeltaTable`.
        """
        location = os.fspath(uri)
        if local_log_directory(location) is not None or os.getpid() != self._pid:
            return
        with self._lock:
            idle = self._handles.get(_key(uri, storage_options))
            cached = idle[-1] if idle else None
        if cached is not None:
            start_reads(open_log(location, storage_options), _checked_versions(cached))

    def clear(self) -> None:
        """Drop every handle."""
        with self._lock:
            self._handles.clear()

    def _pop(self, key: tuple[object, ...]) -> CachedHandle | None:
        if os.getpid() != self._pid:
            # The engine's runtime does not survive a fork, and a thread of the parent may hold the lock.
            self._lock, self._pid = threading.Lock(), os.getpid()
            self._handles = OrderedDict()
        with self._lock:
            idle = self._handles.get(key)
            return idle.pop() if idle else None

    def put(self, key: tuple[object, ...], handle: CachedHandle) -> None:
        """Add a handle to the cache, and drop the least recently used beyond the capacity."""
        with self._lock:
            idle = self._handles.setdefault(key, [])
            self._handles.move_to_end(key)
            if len(idle) < HANDLES_PER_TABLE:
                idle.append(handle)
            while len(self._handles) > self._capacity:
                self._handles.popitem(last=False)


def _key(uri: str | os.PathLike[str], storage_options: dict[str, str] | None) -> tuple[object, ...]:
    return canonical_uri(uri), frozenset((storage_options or {}).items())


def _open(uri: str | os.PathLike[str], storage_options: dict[str, str] | None) -> DeltaTable | None:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy
    from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415 - heavy

    try:
        table = DeltaTable(uri, storage_options=storage_options)
    except TableNotFoundError:
        return None
    mark_delta_rs_used()
    return table


def _is_fresh(handle: CachedHandle, log: CommitLog, directory: str | None) -> bool:
    """Return whether a handle has the table's current state; a remote one is updated to it first.

    Locally, there must be no later commit and no new checkpoint, and the handle's own commit must be
    unchanged. Remotely, its own commit must be unchanged, and an update reads later ones. Two requests at
    the same time find that there is nothing to update: one for the next commit, one for the handle's own.
    Their order has no effect: a log only grows, unless the table is deleted, and a deletion is not atomic.
    """
    if directory is not None:
        return (
            _file_identity(f"{directory}{commit_file(handle.version + 1)}") is None
            and _file_identity(f"{directory}{commit_file(handle.version)}") == handle.commit
            and _checkpoint(directory) == handle.checkpoint
        )
    own, *later = read_commits(log, _checked_versions(handle))
    if _digest(own) != handle.commit:
        return False
    if not later or later[0] is not None:
        handle.listed = time.monotonic()
        handle.table.update_incremental()
    return True


def _commit_identity(log: CommitLog, directory: str | None, version: int) -> Identity:
    if directory is not None:
        return _file_identity(f"{directory}{commit_file(version)}")
    return _digest(log.read(version))


def _digest(content: bytes | None) -> bytes | None:
    return None if content is None else hashlib.sha256(content).digest()


def _checked_versions(handle: CachedHandle) -> list[int]:
    """Return the versions whose commits show whether a remote handle is current: its own, and the next.

    Without the next, a listing is due.
    """
    is_due = time.monotonic() - handle.listed > LISTED_AFTER_S
    return [handle.version] if is_due else [handle.version, handle.version + 1]


def _checkpoint(directory: str | None) -> Identity:
    # On an object store, a check costs a request.
    return None if directory is None else _file_identity(f"{directory}_last_checkpoint")


def _file_identity(path: str) -> Identity:
    try:
        found = os.stat(path)  # noqa: PTH116 - faster than pathlib, on the path of every write
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
