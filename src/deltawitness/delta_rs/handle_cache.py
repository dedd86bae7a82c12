"""Open tables that are kept, and handed out only while a fresh open would give the same.

Opening a table reads its log; a kept handle has it read. But a stale handle is dangerous: an
overwrite through one leaves the rows of others live. So before each use a kept handle proves that
nothing has happened to its table, and is opened anew when it cannot.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from deltawitness.commit.log import CommitLog, commit_file, local_log_directory, open_log
from deltawitness.forks import mark_delta_rs_used
from deltawitness.hashing import canonical_uri

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["HandleCache"]

Identity: TypeAlias = tuple[int, ...] | bytes | None
"""What tells a file from another at the same place: inode, change time and size, or a digest."""

HANDLES_PER_TABLE = 4
"""Handles of one table that may wait for use: one per thread that writes it at the same time."""


@dataclass(slots=True)
class CachedHandle:
    """A handle and the proof of what it has seen."""

    table: DeltaTable
    version: int
    commit: Identity
    checkpoint: Identity


@dataclass(frozen=True, slots=True)
class HandleLease:
    """A handle that is lent out.

    Attributes:
        table: the table, or None when there is none.
    """

    handles: HandleCache
    key: tuple[object, ...]
    log: CommitLog
    directory: str | None
    table: DeltaTable | None
    checkpoint: Identity

    def give_back(self) -> None:
        """Return the handle after an operation that succeeded; never raises, for it did succeed."""
        if self.table is None:
            return
        version = self.table.version()
        try:
            commit = _commit_identity(self.log, self.directory, version)
        except Exception:  # noqa: BLE001 - a log that cannot be read now costs the handle only
            return
        if commit is not None and self.checkpoint == _checkpoint(self.directory):
            self.handles.keep(self.key, CachedHandle(self.table, version, commit, self.checkpoint))


class HandleCache:
    """Keeps open tables between writes.

    A handle is used by one thread at a time, never in a forked child, and never again after an
    exception. A handle is given up when a checkpoint was made since it was opened: appending
    through an old one gets slower with every commit.

    Args:
        capacity: tables whose handles are kept; the least recently used goes first.

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
        self._kept: OrderedDict[tuple[object, ...], list[CachedHandle]] = OrderedDict()

    @contextmanager
    def lease(
        self, uri: str | os.PathLike[str], storage_options: dict[str, str] | None = None
    ) -> Iterator[DeltaTable | None]:
        """Lend a handle that is as good as one opened now, for one operation.

        Args:
            uri: where the table lies.
            storage_options: as for `DeltaTable`.

        Yields:
            The table, or None when there is none.

        Raises:
            OSError: the storage cannot be read.
        """
        lent = self.lend(uri, storage_options)
        yield lent.table
        # Not reached after an exception: whatever the handle has seen, it is not used again.
        lent.give_back()

    def lend(
        self, uri: str | os.PathLike[str], storage_options: dict[str, str] | None = None
    ) -> HandleLease:
        """Lend a handle until it is given back; one that never is, is forgotten.

        Args:
            uri: where the table lies.
            storage_options: as for `DeltaTable`.

        Raises:
            OSError: the storage cannot be read.
        """
        key = _key(uri, storage_options)
        log = open_log(os.fspath(uri), storage_options)
        directory = local_log_directory(os.fspath(uri))
        kept = self._take(key)
        if kept is not None and _is_fresh(kept, log, directory):
            return HandleLease(self, key, log, directory, kept.table, kept.checkpoint)
        table = _open(uri, storage_options)
        return HandleLease(self, key, log, directory, table, _checkpoint(directory))

    def clear(self) -> None:
        """Let go of every handle."""
        with self._lock:
            self._kept.clear()

    def _take(self, key: tuple[object, ...]) -> CachedHandle | None:
        if os.getpid() != self._pid:
            # The engine's runtime does not survive a fork, and a lock may be held by nobody.
            self._lock, self._pid = threading.Lock(), os.getpid()
            self._kept = OrderedDict()
        with self._lock:
            waiting = self._kept.get(key)
            return waiting.pop() if waiting else None

    def keep(self, key: tuple[object, ...], kept: CachedHandle) -> None:
        """Take a handle back, with the proof of what it has seen."""
        with self._lock:
            waiting = self._kept.setdefault(key, [])
            self._kept.move_to_end(key)
            if len(waiting) < HANDLES_PER_TABLE:
                waiting.append(kept)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)


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


def _is_fresh(kept: CachedHandle, log: CommitLog, directory: str | None) -> bool:
    """Tell whether a fresh open would give the same: nothing new, nothing replaced."""
    if directory is not None:
        return (
            _file_identity(f"{directory}{commit_file(kept.version + 1)}") is None
            and _file_identity(f"{directory}{commit_file(kept.version)}") == kept.commit
            and _checkpoint(directory) == kept.checkpoint
        )
    if _commit_identity(log, directory, kept.version) != kept.commit:
        return False
    kept.table.update_incremental()
    return True


def _commit_identity(log: CommitLog, directory: str | None, version: int) -> Identity:
    if directory is not None:
        return _file_identity(f"{directory}{commit_file(version)}")
    content = log.read(version)
    return None if content is None else hashlib.sha256(content).digest()


def _checkpoint(directory: str | None) -> Identity:
    # On an object store the handle is brought up to date anyway, and a look costs a request.
    return None if directory is None else _file_identity(f"{directory}_last_checkpoint")


def _file_identity(path: str) -> Identity:
    try:
        found = os.stat(path)  # noqa: PTH116 - microseconds count here
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
