"""The progress line that `deltawitness run` draws on the terminal: its state, shared with the program.

The command draws the line; a process of the program erases it at the end of a write, before the program can
write its next output. Both hold the lock of a small file meanwhile, which says whether the line is drawn.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deltawitness.local_files import BINARY, open_lock_file, try_lock
from deltawitness.processes import lock_of_supervisor_above

__all__ = ["ERASE", "ProgressLine", "erase_progress_line"]

ERASE = b"\r\x1b[K"
"""Moves the cursor to the start of the line and erases the line."""

_NAME = "progress"
_DRAWN = b"d"
_ERASED = b"-"

LOCK_TIMEOUT = 0.02
"""Maximum seconds that a program waits for the command to have drawn the line."""

_STDERR = 2


def _path(lock: str) -> Path:
    return Path(lock).with_name(_NAME)


@contextmanager
def _locked(descriptor: int) -> Iterator[bool]:
    """Lock the file for the block within the time limit; yield whether that succeeded."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while not (has_lock := try_lock(descriptor)) and time.monotonic() < deadline:
        time.sleep(0.001)
    yield has_lock


class ProgressLine:
    """The command's side of the line.

    Args:
        lock: path of the supervisor's lock file, beside which the state is.
        write: writes bytes to the terminal.
    """

    def __init__(self, lock: str, write: Callable[[bytes], object]) -> None:
        self._path = _path(lock)
        self._write = write
        os.close(open_lock_file(self._path))

    def update(self, text: Callable[[], str | None]) -> None:
        """Draw the line, or erase it.

        Args:
            text: returns the text; None erases the line. It is called while no write can end the line.

        Raises:
            OSError: the terminal or the file cannot be written.
        """
        descriptor = os.open(self._path, os.O_RDWR | BINARY)
        try:
            with _locked(descriptor) as has_lock:
                if has_lock:
                    self._draw(descriptor, text())
        finally:
            os.close(descriptor)

    def _draw(self, descriptor: int, text: str | None) -> None:
        if text is not None:
            self._write(b"\r" + text.encode("utf-8", "replace") + b"\x1b[K")
            _set(descriptor, _DRAWN)
        elif _get(descriptor) == _DRAWN:
            self._write(ERASE)
            _set(descriptor, _ERASED)


def erase_progress_line() -> None:
    """Erase the line of the `deltawitness run` above this process, if it is drawn on this terminal.

    It never waits for the terminal, for example while the user has stopped its output.
    """
    lock = lock_of_supervisor_above()
    if not lock or sys.platform == "win32":
        return
    try:
        descriptor = os.open(_path(lock), os.O_RDWR | BINARY)
    except (OSError, ValueError):  # no line is drawn
        return
    try:
        with suppress(OSError, ValueError), _locked(descriptor) as has_lock:
            if has_lock and _get(descriptor) == _DRAWN and _is_writable():
                os.write(_STDERR, ERASE)
                _set(descriptor, _ERASED)
    finally:
        os.close(descriptor)


def _is_writable() -> bool:
    if sys.platform == "win32" or not os.isatty(_STDERR):
        return False
    is_in_foreground = (
        os.tcgetpgrp(_STDERR) == os.getpgrp()
    )  # else the write could stop the process
    return is_in_foreground and bool(select.select([], [_STDERR], [], 0)[1])


def _get(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, 1)


def _set(descriptor: int, state: bytes) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, state)
