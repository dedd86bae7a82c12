"""The own commits of Delta writes that went through an open table, or that created their table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from deltawitness.app_transactions import active_block
from deltawitness.commit.log import open_log
from deltawitness.commit.private_api import storage_options_of
from deltawitness.commit.receipts import OwnCommit, find_commit, own_commit, read_own_commit
from deltawitness.internal_errors import report

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["commit_of_creation", "commit_of_handle"]


def commit_of_handle(table: DeltaTable, writes: Sequence[InFlightWrite | None] = ()) -> OwnCommit:
    """Return the commit of the last write through an open table; never raises.

    After a write, the open table is at the version of that commit, also when others have committed
    since.

    Args:
        table: the table that the write went through.
        writes: the list of a `watch_writes` block around the write, whose commit is not read again.
    """
    if (commit := _commit_of_block()) is not None:
        return commit
    version = table.version()
    write = writes[0] if len(writes) == 1 else None
    raw = None if write is None else write.commit
    if raw is not None and raw.version == version:
        own = raw
        return _read(lambda: own_commit(own), OwnCommit(version))
    return _read(
        lambda: read_own_commit(open_log(table.table_uri, storage_options_of(table)), version),
        OwnCommit(version),
    )


def commit_of_creation(
    uri: str, storage_options: dict[str, str] | None, receipt_id: str
) -> OwnCommit:
    """Return the commit of a write that created its table; never raises.

    Args:
        uri: the table's path or URI.
        storage_options: as for `DeltaTable`.
        receipt_id: the receipt id in the commit of the write.
    """
    if (commit := _commit_of_block()) is not None:
        return commit
    return _read(lambda: find_commit(open_log(uri, storage_options), receipt_id), OwnCommit())


def _commit_of_block() -> OwnCommit | None:
    """Return the commit of the last write of the active `once` block; None outside of any."""
    block = active_block()
    if block is None or not block.receipts:
        return None
    receipt = block.receipts[-1]
    return OwnCommit(receipt.version, receipt.rows, receipt.is_new)


def _read(read: Callable[[], OwnCommit], otherwise: OwnCommit) -> OwnCommit:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - the write has committed, even if its log cannot be read
        report("receipt", error)
        return otherwise
