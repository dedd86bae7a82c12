"""One computation at a time of each entry: among the threads of a process, and the processes of a machine.

The lock of a file is the operating system's: it goes with the process that holds it, so that
there is no stale one to be broken.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltawitness.internal import report

__all__ = ["alone"]


class _Locks:
    """A lock per entry, for the threads of this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[str, tuple[threading.RLock, int]] = {}

    @contextmanager
    def of(self, key: str) -> Iterator[None]:
        """Hold the lock of an entry for the block; a view may ask for itself inside."""
        with self._guard:
            lock, users = self._held.get(key, (threading.RLock(), 0))
            self._held[key] = lock, users + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._held[key]
                if users == 1:
                    del self._held[key]
                else:
                    self._held[key] = lock, users - 1


_locks = _Locks()


def _forget_locks() -> None:
    global _locks  # noqa: PLW0603 - a child must not wait for its parent's threads
    _locks = _Locks()


os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Be the only one on this machine in the block, of those who ask for the same name.

    Args:
        folder: a local folder for the files of the locks. Where it cannot be written, only the
            threads of this process wait for each other.
        name: the entry.
    """
    with _locks.of(f"{folder}/{name}"):
        descriptor = _locked(folder, name)
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _locked(folder: Path, name: str) -> int | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        report("cache", error)
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        report("cache", error)
        os.close(descriptor)
        return None
    return descriptor
