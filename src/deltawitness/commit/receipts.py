"""What a write has committed, read from its own commit: also where nobody held the table open."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deltawitness.commit.log import CommitLog
from deltawitness.commit.outcome import RawCommit, metrics_of, search_commits
from deltawitness.semconv import RECEIPT_ID, Operation

if TYPE_CHECKING:
    from deltalake import CommitProperties

__all__ = ["Receipt", "find_receipt", "receipt_at", "with_receipt_id"]

SEARCHED = 64
"""Versions of a new table's log to look at: delta-rs commits again at most 15 times, each time after
somebody else."""

NO_TABLE = -1
"""The version of a table before its first commit."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a write of rows has committed.

    Attributes:
        version: the version; None when its commit could not be found.
        rows: the rows that it added; None when the commit does not say.
    """

    version: int | None = None
    rows: int | None = None


def receipt_at(log: CommitLog, version: int) -> Receipt:
    """Return the receipt of a write whose version is known.

    Args:
        log: the table's log.
        version: what the write committed.

    Raises:
        OSError: the storage cannot be read.
    """
    content = log.read(version)
    commits = [] if content is None else [RawCommit(version, content)]
    return Receipt(version, metrics_of(Operation.WRITE, commits).rows_added)


def find_receipt(log: CommitLog, commit_id: str) -> Receipt:
    """Return the receipt of a write that created its table, whoever has committed since.

    Another may have created the table a moment earlier: then delta-rs appends to that one, so that
    the version is not always 0.

    Args:
        log: the table's log.
        commit_id: the write id or the receipt id in the commit.

    Raises:
        OSError: the storage cannot be read.
    """
    found = search_commits(log, commit_id, NO_TABLE, SEARCHED).commits
    if not found:
        return Receipt()
    return Receipt(found[-1].version, metrics_of(Operation.WRITE, found[-1:]).rows_added)


def with_receipt_id(properties: CommitProperties | None, receipt_id: str) -> CommitProperties:
    """Return commit properties that put a receipt id into the commit.

    Args:
        properties: the caller's own, which are kept.
        receipt_id: tells this write's commit from any other.
    """
    from deltalake import CommitProperties  # noqa: PLC0415 - heavy, and there already

    if properties is None:
        return CommitProperties(custom_metadata={RECEIPT_ID: receipt_id})
    marked = copy.copy(properties)
    marked.custom_metadata = {RECEIPT_ID: receipt_id, **(properties.custom_metadata or {})}
    return marked
