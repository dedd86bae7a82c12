"""Create the table of a write of a block, if it does not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deltawitness.app_transactions.block import BlockState, OnceWrite, outside_block
from deltawitness.app_transactions.commits import return_committed
from deltawitness.app_transactions.lookup import find_commit, has_committed, receipt_from
from deltawitness.commit.seams import STORAGE_OPTIONS
from deltawitness.error_types import classify, is_programs_own
from deltawitness.semconv import CONFLICT_TYPES, ErrorType

if TYPE_CHECKING:
    from deltalake._internal import RawDeltaTable

    from deltawitness.commit.outcome import RawCommit

__all__ = ["TABLE_ARGUMENTS", "create_once", "is_created_by", "open_or_create"]

Call = Callable[..., Any]

TABLE_ARGUMENTS = frozenset({"table_uri", STORAGE_OPTIONS, "configuration", "name", "description"})
"""Arguments of a write by URI that a write through an open table does not take, or ignores."""


def open_or_create(block: BlockState, arguments: dict[str, Any]) -> RawDeltaTable:
    """Open the table of a write; create it without rows if it does not exist.

    The commit that creates it has the block's transaction with a version below that of the write. By this
    version, a repeated block recognizes the table that it has created (:func:`is_created_by`).

    Args:
        block: the block.
        arguments: keyword arguments of `write_deltalake_rust`.
    """
    from deltalake import CommitProperties, DeltaTable, Transaction  # noqa: PLC0415 - heavy, and imported by the caller

    uri, options = arguments["table_uri"], arguments.get(STORAGE_OPTIONS)
    write = block.next_write(uri)
    if (found := _open_existing(uri, options)) is not None:
        return found
    properties = CommitProperties(
        app_transactions=[Transaction(write.app_id, write.number - 1)], max_commit_retries=0
    )
    try:
        with outside_block():
            DeltaTable.create(
                uri,
                arguments["batch_schema"],
                mode="error",
                storage_options=options,
                commit_properties=properties,
                partition_by=arguments.get("partition_by"),
                name=arguments.get("name"),
                description=arguments.get("description"),
                configuration=arguments.get("configuration"),
            )
    except Exception as error:
        if classify(error) not in {*CONFLICT_TYPES, ErrorType.TABLE_EXISTS}:
            raise
        # Otherwise another writer has created the table at the same time.
    table: RawDeltaTable = DeltaTable(uri, storage_options=options)._table  # noqa: SLF001 - as delta-rs does
    return table


def _open_existing(uri: str, options: dict[str, str] | None) -> RawDeltaTable | None:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy, and imported by the caller
    from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415 - as above

    try:
        table: RawDeltaTable = DeltaTable(uri, storage_options=options)._table  # noqa: SLF001 - as delta-rs does
    except TableNotFoundError:
        return None
    return table


def is_created_by(table: RawDeltaTable, write: OnceWrite) -> bool:
    """Return whether the block's key has created the table, and has not written to it yet."""
    return write.number == 1 and table.transaction_version(write.app_id) == 0


def create_once(  # noqa: PLR0913, PLR0917 - a call and what belongs to it
    block: BlockState,
    name: str,
    write: OnceWrite,
    write_id: str | None,
    location: tuple[str, dict[str, str] | None],
    call: Call,
) -> Any:
    """Call the engine to create a table, unless the block's key has created it.

    Args:
        block: the block.
        name: name of the patched callable.
        write: the creation, as a write of the block.
        write_id: the write id in the commit.
        location: URI and storage options of the table.
        call: calls the engine, which must not retry its commit.
    """
    table = _open_existing(*location)
    if table is not None and has_committed(table, write, block.commit_id):
        return return_committed(block, name, table, write, write_id)
    try:
        result = call()
    except Exception as error:
        if is_programs_own(error):
            raise
        table = _open_existing(*location)
        if table is None or not has_committed(table, write, block.commit_id):
            raise
        return return_committed(block, name, table, write, write_id)
    table = _open_existing(*location)
    commit: RawCommit | None = None if table is None else find_commit(table, write, block.commit_id)
    block.complete(write, receipt_from(commit, write, is_new=True))
    return result
