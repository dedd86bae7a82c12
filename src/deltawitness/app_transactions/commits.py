"""Call the engine for a write of a block, unless the write has committed.

After an error of the engine, the log says whether the write has committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deltawitness.app_transactions.block import BlockState, OnceWrite, note_skipped
from deltawitness.app_transactions.lookup import (
    find_commit,
    has_committed,
    has_landed,
    receipt_from,
    returned_metrics,
)
from deltawitness.app_transactions.retries import Retries
from deltawitness.error_types import is_conflict, is_programs_own

if TYPE_CHECKING:
    from deltalake._internal import RawDeltaTable

__all__ = ["WRITE_TRANSACTION", "catch_up", "commit_once", "return_committed"]

Call = Callable[..., Any]

WRITE_TRANSACTION = "create_write_transaction"
"""The seam after whose commit the open table is still at its version from before the call."""

_REPEATABLE = frozenset({"update", "delete"})
"""Methods whose arguments can be used again: they read no stream of rows."""


def commit_once(  # noqa: PLR0913, PLR0917 - a call and what belongs to it
    block: BlockState,
    name: str,
    table: RawDeltaTable,
    write: OnceWrite,
    write_id: str | None,
    call: Call,
) -> Any:
    """Call the engine, unless the write has committed; return the result of the call.

    If the engine raises although the write has committed, the result is made from the commit.

    Args:
        block: the block.
        name: name of the seam.
        table: the open table.
        write: the write.
        write_id: the write id in the commit.
        call: calls the engine.
    """
    retries = Retries(block.deadline)
    catch_up(block, table, write)
    while True:
        if has_committed(table, write, block.commit_id):
            return return_committed(block, name, table, write, write_id)
        base = table.version()
        try:
            result = call()
        except Exception as error:
            if is_programs_own(error):
                raise
            if has_landed(table, write, block.commit_id):
                return return_committed(block, name, table, write, write_id)
            if not is_conflict(error):
                raise
            if _is_repeatable(block, name, table) and retries.wait():
                continue
            block.conflict = error
            raise
        # Without a new version there is no commit, except after a write transaction.
        has_commit = table.version() != base or (
            name == WRITE_TRANSACTION and has_landed(table, write, block.commit_id)
        )
        commit = find_commit(table, write, block.commit_id) if has_commit else None
        block.complete(write, receipt_from(commit, write, is_new=True), has_commit=has_commit)
        return result


def _is_repeatable(block: BlockState, name: str, table: RawDeltaTable) -> bool:
    """Return whether a call that lost against another commit can be repeated."""
    if name == WRITE_TRANSACTION:
        return block.can_repeat is not None and block.can_repeat(table)
    return name in _REPEATABLE


def catch_up(block: BlockState, table: RawDeltaTable, write: OnceWrite) -> None:
    """Refresh an open table that is older than the block's last commit: its write would conflict with it."""
    if block.last_committed(write) > (table.transaction_version(write.app_id) or 0):
        table.update_incremental()


def return_committed(
    block: BlockState, name: str, table: RawDeltaTable, write: OnceWrite, write_id: str | None
) -> str | None:
    """Record a write whose commit is in the log, and return the result of its call, made from the commit."""
    commit = find_commit(table, write, block.commit_id)
    commit_id = block.commit_id or write_id
    is_new = commit is not None and commit_id is not None and commit.is_of(commit_id)
    block.complete(write, receipt_from(commit, write, is_new=is_new))
    if not is_new:
        note_skipped(write_id)
    return returned_metrics(name, commit)
