"""Record the result of an engine call: what it returned or raised, and the commit that it made.

This runs on the caller's thread, so it reads no more than one file on a local disk. A remote commit is
read here only where the caller reads it next in any case, so that it is read once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltawitness.commit.engine_version import has_release
from deltawitness.commit.log import (
    TableLog,
    are_reads_reused,
    local_log_directory,
    open_log,
    read_local_commit,
    remember_read,
)
from deltawitness.commit.outcome import RawCommit
from deltawitness.error_types import classify, error_text_of, is_programs_own
from deltawitness.events import Failed
from deltawitness.internal_errors import guarded_value
from deltawitness.redaction import without_location
from deltawitness.semconv import ErrorType

if TYPE_CHECKING:
    from deltalake._internal import RawDeltaTable

    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["failure_from", "read_first_commit", "record_commit", "record_return", "table_log"]


def record_return(write: InFlightWrite, result: object) -> None:
    """Record what the engine returned: metrics as JSON text, or the files that a VACUUM deleted."""
    if isinstance(result, str):
        write.returned = result
    elif isinstance(result, list):
        write.files_deleted = len(result)
    if write.call is not None:
        write.response = result


def record_commit(write: InFlightWrite, location: str, table: RawDeltaTable, tail: int) -> None:
    """Record the version and the commit of a write that went through an open table.

    Args:
        write: the write, which reached the engine.
        location: the table's location as the engine spells it.
        table: the open table.
        tail: number of log versions to search when the version is not known.
    """
    seam = write.seam
    if (
        seam is not None
        and seam.moves
        and (seam.moves_since is None or has_release(seam.moves_since))
    ):
        version = write.version = table.version()
        if version == write.base:
            return
    directory = local_log_directory(location)
    if directory is None:
        log = write.log = table_log(write, table, tail)
        if write.version is not None and are_reads_reused():
            _share_commit(write, location, write.version, log.read(write.version))
    elif write.version is not None:
        read_commit(write, directory, write.version)


def read_commit(write: InFlightWrite, directory: str, version: int) -> None:
    """Read a commit from a local disk now, as the table may be deleted soon.

    Args:
        write: the write, which gets the commit.
        directory: the local log directory.
        version: the version to read.
    """
    content = read_local_commit(directory, version)
    if content is not None:
        write.commit = RawCommit(version, content)


def read_first_commit(write: InFlightWrite, location: str) -> None:
    """Read the first commit of a table that a write by URI may have created.

    Args:
        write: the write, which gets the commit; of a remote table only in a block of `reuse_reads`.
        location: the table's location.
    """
    directory = local_log_directory(location)
    if directory is not None:
        read_commit(write, directory, 0)
    elif are_reads_reused():
        content = open_log(location, write.storage_options).read(0)
        _share_commit(write, location, 0, content)


def _share_commit(write: InFlightWrite, location: str, version: int, content: bytes | None) -> None:
    """Record a remote commit, if it is the write's own, and let the caller's next read have it."""
    commit = None if content is None else RawCommit(version, content)
    if commit is not None and commit.is_of(write.commit_write_id):
        write.commit = commit
        remember_read(location, version, commit.content)


def table_log(write: InFlightWrite, table: RawDeltaTable, tail: int) -> TableLog:
    """Return the remote log of an open table, opened while no other thread uses the table.

    Args:
        write: the write, with the versions that are known of it.
        table: the open table.
        tail: number of log versions to search when the version is not known.
    """
    first = 0 if write.base is None else write.base + 1
    last = write.version or first + tail
    return TableLog(table, range(first, last + 1))


def failure_from(error: BaseException, location: str | None) -> Failed:
    """Return the outcome of a write that raised; whether it committed is not known yet.

    Args:
        error: what the engine raised.
        location: the table's location, which is removed from the text before it is classified.
    """
    kind, text = type(error), error_text_of(error)
    is_own = guarded_value("taxonomy", lambda: is_programs_own(error), True)  # noqa: FBT003 - then nothing is exported
    words = (
        "" if is_own else guarded_value("taxonomy", lambda: without_location(text, location), text)
    )
    return Failed(
        error_type=guarded_value("taxonomy", lambda: classify(error, words), ErrorType.OTHER),
        exception_type=f"{kind.__module__}.{kind.__qualname__}",
        message=text,
        is_programs_own=is_own,
    )
