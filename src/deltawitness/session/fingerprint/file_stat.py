"""File identities for fingerprints: size, mtime and ctime."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from deltawitness.locations import canonical_uri
from deltawitness.session.fingerprint.model import FileInput

__all__ = ["FileGoneError", "file_input"]

_TICK_NS = 50_000_000
"""Longest time in which two changes of a file may get the same mtime: a kernel tick, with a margin."""

_COARSE_TICK_NS = 2_000_000_000
"""The same for file systems with timestamps in seconds."""


class FileGoneError(Exception):
    """A file that cannot be read with `stat`."""


def file_input(path: str | os.PathLike[str], source: str) -> FileInput:
    """Return the fingerprint input of a local file.

    Args:
        path: path of the file.
        source: name of the table that it is read as.

    Raises:
        FileGoneError: there is no such file.
    """
    found = _stat_after_tick(path)
    place = hashlib.sha256(canonical_uri(path).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    # With ctime: it moves even when a program resets mtime.
    changed = f"{found.st_mtime_ns}.{found.st_ctime_ns}"
    return FileInput(place, Path(path).name, found.st_size, changed, source)


def _stat_after_tick(path: str | os.PathLike[str]) -> os.stat_result:
    """Stat a file, and wait until its mtime and ctime are older than one filesystem tick.

    A later change then must alter one of them.

    Raises:
        FileGoneError: there is no such file.
    """
    while True:
        try:
            found = os.stat(path)  # noqa: PTH116 - faster than pathlib for many files
        except OSError as error:
            raise FileGoneError from error
        changed = max(found.st_mtime_ns, found.st_ctime_ns)
        is_coarse = found.st_mtime_ns % 1_000_000_000 == 0 == found.st_ctime_ns % 1_000_000_000
        left = changed + (_COARSE_TICK_NS if is_coarse else _TICK_NS) - time.time_ns()
        if not 0 < left <= _COARSE_TICK_NS:
            return found  # also for times in the future, from another clock
        time.sleep(left / 1e9)
