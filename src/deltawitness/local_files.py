"""Locks and descriptors of local files, on POSIX systems and on Windows.

A lock belongs to an open file. The operating system releases it when that file is closed, which also
happens when its process ends: no lock becomes stale.

- POSIX: `flock`. A forked child inherits the open file and with it the lock, until it closes its descriptor.
- Windows: a lock of the first byte, with `msvcrt.locking`. It has no shared mode: a reader that asks for
  a shared lock gets an exclusive one, so a second reader may take the first one for the owner. An open
  file cannot be deleted or renamed, nor can the folder that contains it.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

__all__ = [
    "BINARY",
    "OPEN_FILES_ARE_FIXED",
    "lock",
    "open_lock_file",
    "open_locked_file",
    "try_lock",
    "unlock",
]

BINARY: int = getattr(os, "O_BINARY", 0)
"""Flag for `os.open`: without it, Windows translates line ends."""

OPEN_FILES_ARE_FIXED = sys.platform == "win32"
"""Whether an open file and its folder can be neither deleted nor renamed."""

POLL_S = 0.05
"""Seconds between two attempts to get a lock on Windows."""

if sys.platform == "win32":
    import msvcrt

    def _attempt(descriptor: int, *, shared: bool, wait: bool) -> None:
        del shared  # there is no such mode
        while True:
            os.lseek(descriptor, 0, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError as error:
                if error.errno not in _HELD or not wait:
                    raise
            else:
                return
            time.sleep(POLL_S)

    def _release(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _attempt(descriptor: int, *, shared: bool, wait: bool) -> None:
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, mode if wait else mode | fcntl.LOCK_NB)

    def _release(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


_HELD = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK})
"""Error numbers of an attempt to get a lock that another open file has."""


def open_lock_file(path: Path) -> int:
    """Open a lock file, readable by its owner only, and create it if it does not exist.

    Args:
        path: the file. Its content is not used.

    Returns:
        The file descriptor. Closing it releases the lock.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o600)


def lock(descriptor: int) -> None:
    """Lock an open file, and wait until no other open file has the lock.

    Args:
        descriptor: a file descriptor.

    Raises:
        OSError: the file system has no locks.
    """
    _attempt(descriptor, shared=False, wait=True)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file, without waiting; return whether that succeeded.

    Args:
        descriptor: a file descriptor.
        shared: whether others can have a shared lock at the same time.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        _attempt(descriptor, shared=shared, wait=False)
    except OSError as error:
        if error.errno not in _HELD:
            raise
        return False
    return True


def open_locked_file(path: Path, *, shared: bool = False) -> int | None:
    """Open a lock file as :func:`open_lock_file` does, and lock it without waiting.

    Args:
        path: the file.
        shared: whether others can have a shared lock at the same time.

    Returns:
        The file descriptor; None if another open file has the lock.

    Raises:
        OSError: it cannot be opened, or the file system has no locks.
    """
    descriptor = open_lock_file(path)
    try:
        is_locked = try_lock(descriptor, shared=shared)
    except BaseException:
        os.close(descriptor)
        raise
    if is_locked:
        return descriptor
    os.close(descriptor)
    return None


def unlock(descriptor: int) -> None:
    """Release the lock of an open file, also where a forked child has inherited the open file.

    Args:
        descriptor: a file descriptor with the lock.

    Raises:
        OSError: the file system has no locks.
    """
    _release(descriptor)
