"""Find the version that a RESTORE has made the content of its table again."""

from __future__ import annotations

from typing import Protocol

from deltawitness.commit.reader import CommitMetadata
from deltawitness.semconv import Operation

__all__ = ["restored_version", "version_at", "version_restored_by_time"]

_DIGITS = 18
"""Maximum number of digits of a parameter: a log may contain any text."""


class _Clock(Protocol):
    def modified_ms(self, version: int) -> int | None:
        """Return when the file of a commit was written, in milliseconds since the Unix epoch."""


def restored_version(commit: CommitMetadata) -> int | None:
    """Return the version that the parameters of a RESTORE name.

    Returns:
        None for another operation, for a RESTORE to a time, whose commit does not have the version, and
        for a version that is not before the commit.

    >>> restored_version(CommitMetadata(3, "RESTORE", operation_parameters={"version": "1"}))
    1
    """
    version = _parameter(commit, "version")
    return version if version is not None and version < commit.version else None


def version_restored_by_time(commit: CommitMetadata, log: _Clock) -> int | None:
    """Return the version that a RESTORE to a time has restored.

    Delta-rs finds the version by the times of the files of the log. A copy of a table has other times, so
    this is right only while the files are those that the engine saw.

    Args:
        commit: the commit of the RESTORE.
        log: the log of the table.

    Returns:
        None for another commit, and where a file that the search needs is no longer there.

    Raises:
        OSError: the storage cannot be read.
    """
    wanted = _parameter(commit, "datetime")
    return None if wanted is None else version_at(log, commit.version - 1, wanted)


def version_at(log: _Clock, last: int, milliseconds: int) -> int | None:
    """Return the last version up to a time, found as delta-rs finds it: by halves, and 0 before the first.

    Args:
        log: the log of the table.
        last: the last version to consider.
        milliseconds: the time since the Unix epoch.

    Returns:
        None where a file that the search needs is no longer there.

    Raises:
        OSError: the storage cannot be read.
    """
    first, found = 0, 0
    while first <= last:
        middle = (first + last) // 2
        written = log.modified_ms(middle)
        if written is None:
            return None
        if written == milliseconds:
            return middle
        if written < milliseconds:
            found, first = middle, middle + 1
        else:
            last = middle - 1
    return found


def _parameter(commit: CommitMetadata, name: str) -> int | None:
    """Return a parameter of a RESTORE that is a number, or the text of one."""
    if commit.operation != Operation.RESTORE.value:
        return None
    text = str(commit.operation_parameters.get(name))
    is_number = len(text) <= _DIGITS and text.isascii() and text.isdecimal()
    return int(text) if is_number else None
