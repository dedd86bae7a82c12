"""Look up whether a write of a block has committed, and find its commit."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from deltawitness.commit.log import CommitLog, LocalLog, TableLog, local_log_directory
from deltawitness.commit.outcome import RawCommit, metrics_of
from deltawitness.commit.reader import parse_commit
from deltawitness.commit.receipts import Receipt
from deltawitness.semconv import Operation

if TYPE_CHECKING:
    from deltalake._internal import RawDeltaTable

    from deltawitness.app_transactions.block import OnceWrite

__all__ = ["find_commit", "has_committed", "has_landed", "receipt_from", "returned_metrics"]

MAX_SEARCHED = 256
"""Versions to search for the commit of a transaction, the newest first."""


def has_committed(table: RawDeltaTable, write: OnceWrite, commit_id: str | None = None) -> bool:
    """Return whether the snapshot of an open table contains a write's transaction, or a later one.

    Args:
        table: the open table.
        write: the write.
        commit_id: the id in the commit of the write, if other writes have the same transaction.
    """
    version = table.transaction_version(write.app_id)
    if version is None or version < write.number:
        return False
    return commit_id is None or find_commit(table, write, commit_id) is not None


def has_landed(table: RawDeltaTable, write: OnceWrite, commit_id: str | None = None) -> bool:
    """Refresh an open table after an error, and return whether it contains the write's transaction.

    False if the log cannot be read: the caller then raises the error of the write.
    """
    try:
        table.update_incremental()
        return has_committed(table, write, commit_id)
    except Exception:  # noqa: BLE001 - the error of the write itself is the one to raise
        return False


def find_commit(
    table: RawDeltaTable, write: OnceWrite, commit_id: str | None = None
) -> RawCommit | None:
    """Return the commit of a write's transaction; None when it is not among the newest versions.

    Args:
        table: the open table.
        write: the write.
        commit_id: the id in the commit of the write, if other writes have the same transaction.
    """
    with suppress(Exception):  # the write has committed, even if its log cannot be read
        last = table.version()
        versions = range(last, max(-1, last - MAX_SEARCHED), -1)
        log = _log_of(table, versions)
        for version in versions:
            content = log.read(version)
            if content is None:
                return None
            commit = RawCommit(version, content)
            if _has_transaction(content, write) and (commit_id is None or commit.is_of(commit_id)):
                return commit
    return None


def receipt_from(commit: RawCommit | None, write: OnceWrite, *, is_new: bool) -> Receipt:
    """Return the receipt of a write from its commit."""
    if commit is None:
        return Receipt(table_id=write.table_id, is_new=is_new)
    rows = None
    with suppress(Exception):  # the write has committed, even if its metrics cannot be read
        rows = metrics_of(Operation.WRITE, [commit]).rows_added
    return Receipt(commit.version, rows, write.table_id, is_new)


_RETURNED = {"update": "num_updated_rows", "delete": "num_deleted_rows"}
"""The operation metric that callers of a method expect in its result."""


def returned_metrics(seam: str, commit: RawCommit | None) -> str | None:
    """Return the result of a call whose write had committed before: the commit's operation metrics, as JSON.

    Args:
        seam: name of the patched callable.
        commit: the commit; None if it was not found, which gives a count of 0 rows.
    """
    if seam not in {"update", "delete", "merge_execute"}:
        return None
    found: dict[str, Any] = {}
    if commit is not None:
        with suppress(Exception):  # as above
            found = dict(parse_commit(commit.version, commit.content).operation_metrics)
    if seam in _RETURNED:
        found.setdefault(_RETURNED[seam], 0)
    return json.dumps(found)


def _log_of(table: RawDeltaTable, versions: range) -> CommitLog:
    directory = local_log_directory(table.table_uri())
    return TableLog(table, versions) if directory is None else LocalLog(directory)


def _has_transaction(content: bytes, write: OnceWrite) -> bool:
    if write.app_id.encode() not in content:
        return False
    for line in content.splitlines():
        if b'"txn"' in line:
            action = json.loads(line).get("txn") or {}
            if (action.get("appId"), action.get("version")) == (write.app_id, write.number):
                return True
    return False
