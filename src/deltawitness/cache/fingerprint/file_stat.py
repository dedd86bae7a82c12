"""Marks of the files that a result was made from."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from deltawitness.cache.fingerprint.model import FileInput
from deltawitness.hashing import canonical_uri

__all__ = ["FileGoneError", "file_input"]

_TICK_NS = 50_000_000
"""Time that a file system may give to two changes as one: a clock tick of the kernel, and to spare."""

_COARSE_TICK_NS = 2_000_000_000
"""The same for one that keeps whole seconds."""


class FileGoneError(Exception):
    """A file that cannot be looked at."""


def file_input(path: str | os.PathLike[str], source: str) -> FileInput:
    """Return the mark of a local file.

    Args:
        path: where it lies.
        source: the name of what it is read as.

    Raises:
        FileGone: there is no such file.
    """
    found = _stat_after_tick(path)
    place = hashlib.sha256(canonical_uri(path).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    # The time of the last change to its entry tells of a change whose own time was put back.
    changed = f"{found.st_mtime_ns}.{found.st_ctime_ns}"
    return FileInput(place, Path(path).name, found.st_size, changed, source)


def _stat_after_tick(path: str | os.PathLike[str]) -> os.stat_result:
    """Look at a file once another change of it would be seen: not within the tick of the last one."""
    while True:
        try:
            found = os.stat(path)  # noqa: PTH116 - of many files
        except OSError as error:
            raise FileGoneError from error
        changed = max(found.st_mtime_ns, found.st_ctime_ns)
        is_coarse = found.st_mtime_ns % 1_000_000_000 == 0 == found.st_ctime_ns % 1_000_000_000
        left = changed + (_COARSE_TICK_NS if is_coarse else _TICK_NS) - time.time_ns()
        if not 0 < left <= _COARSE_TICK_NS:
            return found  # also one of the future, by a clock that is not ours
        time.sleep(left / 1e9)
