"""Entry locks: one computation of an entry at a time, among threads and processes of one machine.

The file lock is released by the operating system when its process ends, so that there are
no stale locks. A forked child inherits the open descriptor and would keep the lock held: it
closes inherited descriptors first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltawitness.forks import at_fork
from deltawitness.ids_and_clock import new_id
from deltawitness.internal_errors import report
from deltawitness.local_files import lock, open_lock_file

__all__ = ["entry_lock", "last_write", "record_write"]


_guard = threading.RLock()
"""Held briefly while the registry of locks changes, and during a fork."""


class _Locks:
    """A lock per entry for the threads of this process, and the open lock files."""

    def __init__(self) -> None:
        self._locks_by_key: dict[str, tuple[threading.RLock, int]] = {}
        self._thread = threading.local()
        self._files: set[int] = set()

    @contextmanager
    def hold(self, key: str) -> Iterator[bool]:
        """Hold the thread lock of an entry for the block; yield whether this thread held it already."""
        with _guard:
            lock, users = self._locks_by_key.get(key, (threading.RLock(), 0))
            self._locks_by_key[key] = lock, users + 1
        try:
            with lock:
                held = self._thread.__dict__.setdefault("keys", set())
                is_held = key in held
                held.add(key)
                try:
                    yield is_held
                finally:
                    if not is_held:
                        held.discard(key)
        finally:
            with _guard:
                lock, users = self._locks_by_key[key]
                if users == 1:
                    del self._locks_by_key[key]
                else:
                    self._locks_by_key[key] = lock, users - 1

    def open_file(self, path: Path) -> int:
        """Open a lock file; no fork can happen between the open and its registration here."""
        with _guard:
            descriptor = open_lock_file(path)
            self._files.add(descriptor)
            return descriptor

    def close(self, descriptor: int) -> None:
        """Close a lock file. Does nothing in a child forked since it was opened: there it is closed already."""
        with _guard:
            if descriptor in self._files:
                self._files.remove(descriptor)
                os.close(descriptor)

    def close_all(self) -> None:
        """Close all lock files. Other processes that have them open keep their locks."""
        for descriptor in self._files:
            os.close(descriptor)
        self._files.clear()


_locks = _Locks()


def _reset_in_child() -> None:
    """Drop all locks in a forked child: neither wait for threads of the parent nor hold locks for them."""
    global _locks  # noqa: PLW0603 - the registry of this process
    _guard.release()
    _locks.close_all()
    _locks = _Locks()


at_fork(
    before=_guard.acquire,
    after_in_parent=_guard.release,
    after_in_child=_reset_in_child,
)


@contextmanager
def entry_lock(folder: Path, name: str) -> Iterator[bool]:
    """Hold the entry's lock on this machine (threads and processes). Re-entrant for its holder.

    Args:
        folder: local folder for the lock files. If it cannot be written, the lock works only
            among the threads of this process.
        name: name of the entry.

    Yields:
        Whether the block is the first to hold the lock, and holds it among processes as well.
    """
    locks = _locks
    with locks.hold(f"{folder}/{name}") as is_held:
        # A second open() gets a separate lock and would deadlock with the first.
        descriptor = None if is_held else _lock_file(locks, folder, name)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                locks.close(descriptor)


def last_write(folder: Path, name: str) -> bytes:
    """Return the id of the last write under an entry's lock on this machine; empty without one.

    Args:
        folder: the folder of the lock files.
        name: name of the entry.
    """
    try:
        return _write_file(folder, name).read_bytes()
    except OSError:
        return b""


def record_write(folder: Path, name: str) -> None:
    """Record that an entry was written under its lock: call it after the commit, before the release.

    Args:
        folder: the folder of the lock files.
        name: name of the entry.
    """
    try:
        _write_file(folder, name).write_bytes(new_id().encode())
    except OSError as error:
        report("cache", error)


def _write_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.written"


def _lock_file(locks: _Locks, folder: Path, name: str) -> int | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = locks.open_file(folder / f"{name}.lock")
    except OSError as error:
        report("cache", error)
        return None
    try:
        lock(descriptor)
    except BaseException as error:
        locks.close(descriptor)
        if not isinstance(error, OSError):
            raise
        report("cache", error)
        return None
    return descriptor
