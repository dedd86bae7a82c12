"""One computation at a time of each entry: among the threads of a process, and the processes of a machine.

The lock of a file is the operating system's: it goes with the process that holds it, so that
there is no stale one to be broken. A child that is born meanwhile has the open file as well, and
would go on holding it: it closes it first of all.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltawitness.internal_errors import report

__all__ = ["entry_lock"]


_guard = threading.RLock()
"""Held for moments: whenever what is known of locks changes, and while a child is born."""


class _Locks:
    """A lock per entry for the threads of this process, and the open files of those of its machine."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[threading.RLock, int]] = {}
        self._mine = threading.local()
        self._files: set[int] = set()

    @contextmanager
    def of(self, key: str) -> Iterator[bool]:
        """Hold the lock of an entry for the block; tell whether this thread held it before."""
        with _guard:
            lock, users = self._held.get(key, (threading.RLock(), 0))
            self._held[key] = lock, users + 1
        try:
            with lock:
                mine = self._mine.__dict__.setdefault("keys", set())
                is_inside = key in mine
                mine.add(key)
                try:
                    yield is_inside
                finally:
                    if not is_inside:
                        mine.discard(key)
        finally:
            with _guard:
                lock, users = self._held[key]
                if users == 1:
                    del self._held[key]
                else:
                    self._held[key] = lock, users - 1

    def opened(self, path: Path) -> int:
        """Open the file of a lock, so that no child is born between that and its being known here."""
        with _guard:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self._files.add(descriptor)
            return descriptor

    def close(self, descriptor: int) -> None:
        """Close the file of a lock; in a child born since it was opened that is done already."""
        with _guard:
            if descriptor in self._files:
                self._files.remove(descriptor)
                os.close(descriptor)

    def close_all(self) -> None:
        """Close the files of all locks; whoever else has them open goes on holding them."""
        for descriptor in self._files:
            os.close(descriptor)
        self._files.clear()


_locks = _Locks()


def _forget_locks() -> None:
    """Let go, in a child, of what its parent's threads hold: not to wait for them, nor hold it for them."""
    global _locks  # noqa: PLW0603 - as said
    _guard.release()
    _locks.close_all()
    _locks = _Locks()


os.register_at_fork(
    before=_guard.acquire,
    after_in_parent=_guard.release,
    after_in_child=_forget_locks,
)


@contextmanager
def entry_lock(folder: Path, name: str) -> Iterator[None]:
    """Be the only one on this machine in the block, of those who ask for the same name.

    Whoever holds the lock may ask for it again inside.

    Args:
        folder: a local folder for the files of the locks. Where it cannot be written, only the
            threads of this process wait for each other.
        name: the entry.
    """
    locks = _locks
    with locks.of(f"{folder}/{name}") as is_inside:
        # Opened a second time the file would be another's, for whom it waits for ever.
        descriptor = None if is_inside else _locked(locks, folder, name)
        try:
            yield
        finally:
            if descriptor is not None:
                locks.close(descriptor)


def _locked(locks: _Locks, folder: Path, name: str) -> int | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = locks.opened(folder / f"{name}.lock")
    except OSError as error:
        report("cache", error)
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException as error:
        locks.close(descriptor)
        if not isinstance(error, OSError):
            raise
        report("cache", error)
        return None
    return descriptor
