"""Read the version and the rows of a write from its own commit, also without an open table."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from deltawitness.commit.log import CommitLog
from deltawitness.commit.outcome import RawCommit, rows_added_of, search_commits
from deltawitness.events import CommitMetrics, Landed
from deltawitness.semconv import RECEIPT_ID, CacheResult, ErrorType, Operation

if TYPE_CHECKING:
    from deltalake import CommitProperties

__all__ = [
    "OwnCommit",
    "Receipt",
    "find_commit",
    "own_commit",
    "read_own_commit",
    "with_receipt_id",
]

MAX_SEARCHED = 64
"""Versions of a new table's log to search: delta-rs retries a commit at most 15 times, after conflicts."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a write has committed.

    Receipts of a `once` block have the first four attributes; :func:`deltawitness.receipts` and
    :func:`deltawitness.last_commit` set all of them.

    Attributes:
        version: version of the commit, the last of several; None without a commit, or if it was not found.
        rows: number of added rows; None when the commit does not report it.
        table_id: id of the table (:func:`deltawitness.table_id`); None where it is not needed.
        is_new: whether this write made the commit. False in a `once` block whose key had made it.
        table: URI of the table in the form of the ledger, without credentials.
        table_name: name of the table, as in telemetry.
        operation: the engine's operation.
        result: `write`, `noop` for a write that made no commit, or `error`.
        versions: every version that the write committed.
        files: number of added data files.
        retries: attempts to commit after the first.
        metrics: all counts of the write.
        error_type: type of the error of a write that failed; None for any other write.
        landed: whether the commit of a write that failed is in the log; None for any other write.
        write_id: id of the write; also in the commit.
        run_id: id of the run that the write belongs to.
        traceparent: W3C trace context of the write's span; None without a trace.
    """

    version: int | None = None
    rows: int | None = None
    table_id: str | None = None
    is_new: bool = True
    table: str | None = None
    table_name: str | None = None
    operation: Operation | None = None
    result: CacheResult | None = None
    versions: tuple[int, ...] = ()
    files: int | None = None
    retries: int | None = None
    metrics: CommitMetrics | None = None
    error_type: ErrorType | None = None
    landed: Landed | None = None
    write_id: str | None = None
    run_id: str | None = None
    traceparent: str | None = None


class OwnCommit(NamedTuple):
    """The commit of one write. A named tuple, because each write of a pipeline makes one.

    Attributes:
        version: its version; None if there is none, or if it was not found.
        rows: number of rows that it added; None if it does not report it.
        is_new: whether the write made it. False in a `once` block whose key had made it.
    """

    version: int | None = None
    rows: int | None = None
    is_new: bool = True


def read_own_commit(log: CommitLog, version: int) -> OwnCommit:
    """Return the commit of a write whose version is known.

    Args:
        log: the table's log.
        version: version of the write's commit.

    Raises:
        OSError: the storage cannot be read.
    """
    content = log.read(version)
    return OwnCommit(version) if content is None else own_commit(RawCommit(version, content))


def own_commit(commit: RawCommit) -> OwnCommit:
    """Return the commit of a write from its content."""
    return OwnCommit(commit.version, rows_added_of(commit))


def find_commit(log: CommitLog, commit_id: str) -> OwnCommit:
    """Return the commit of a write that created its table, also when others have committed since.

    Another writer may have created the table at the same time: then delta-rs appends to that table, so
    the version is not always 0.

    Args:
        log: the table's log.
        commit_id: the write id or the receipt id in the commit.

    Raises:
        OSError: the storage cannot be read.
    """
    for version in range(MAX_SEARCHED):
        content = log.read(version)
        if content is None:
            break
        commit = RawCommit(version, content)
        if commit.is_of(commit_id):  # such a write makes one commit
            return own_commit(commit)
    found = search_commits(log, commit_id, None, MAX_SEARCHED).commits
    return own_commit(found[-1]) if found else OwnCommit()


def with_receipt_id(properties: CommitProperties | None, receipt_id: str) -> CommitProperties:
    """Return a copy of commit properties with a receipt id in the commit metadata.

    Args:
        properties: the caller's properties; None for none.
        receipt_id: identifies the commit of this write.
    """
    from deltalake import CommitProperties  # noqa: PLC0415 - heavy, and imported by the caller

    if properties is None:
        return CommitProperties(custom_metadata={RECEIPT_ID: receipt_id})
    extended = copy.copy(properties)
    extended.custom_metadata = {RECEIPT_ID: receipt_id, **(properties.custom_metadata or {})}
    return extended
