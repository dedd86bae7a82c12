"""Receipts of Delta writes that went through an open table, or that created their table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from deltawitness.app_transactions import active_block
from deltawitness.commit.log import open_log
from deltawitness.commit.private_api import storage_options_of
from deltawitness.commit.receipts import Receipt, find_receipt, receipt_at, receipt_in
from deltawitness.internal_errors import report

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["receipt_of_creation", "receipt_of_handle"]


def receipt_of_handle(table: DeltaTable, writes: Sequence[InFlightWrite | None] = ()) -> Receipt:
    """Return the receipt of the last write through an open table; never raises.

    After a write, the open table is at the version of that commit, also when others have committed
    since.

    Args:
        table: the table that the write went through.
        writes: the list of a `watch_writes` block around the write, whose commit is not read again.
    """
    if (receipt := _receipt_of_block()) is not None:
        return receipt
    version = table.version()
    write = writes[0] if len(writes) == 1 else None
    commit = None if write is None else write.commit
    if commit is not None and commit.version == version:
        own = commit
        return _read(lambda: receipt_in(own), Receipt(version))
    return _read(
        lambda: receipt_at(open_log(table.table_uri, storage_options_of(table)), version),
        Receipt(version),
    )


def receipt_of_creation(
    uri: str, storage_options: dict[str, str] | None, receipt_id: str
) -> Receipt:
    """Return the receipt of a write that created its table; never raises.

    Args:
        uri: the table's path or URI.
        storage_options: as for `DeltaTable`.
        receipt_id: the receipt id in the commit of the write.
    """
    if (receipt := _receipt_of_block()) is not None:
        return receipt
    return _read(lambda: find_receipt(open_log(uri, storage_options), receipt_id), Receipt())


def _receipt_of_block() -> Receipt | None:
    """Return the receipt of the last write of the active `once` block; None outside of any."""
    block = active_block()
    return block.receipts[-1] if block is not None and block.receipts else None


def _read(read: Callable[[], Receipt], otherwise: Receipt) -> Receipt:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - the write has committed, even if its log cannot be read
        report("receipt", error)
        return otherwise
