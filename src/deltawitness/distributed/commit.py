"""Add the staged files to the table: one commit, found in the log again after any error.

The commit has an application transaction: that of the enclosing `once` block or of the `key`, else one of
the run. `deltawitness.app_transactions` looks it up before and after the call of the engine.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from deltawitness.app_transactions import BlockState, active_block, once, use_block
from deltawitness.app_transactions.lookup import find_commit, has_committed, receipt_from
from deltawitness.commit.log import open_log
from deltawitness.commit.outcome import RawCommit, metrics_of, search_commits
from deltawitness.commit.reader import parse_commit
from deltawitness.commit.receipts import with_receipt_id
from deltawitness.distributed.request import Request
from deltawitness.distributed.result import DistributedWriteResult
from deltawitness.distributed.staging import StagedPart
from deltawitness.distributed.target import Target, describes_same_table, open_table
from deltawitness.error_types import classify
from deltawitness.events import CommitMetrics, Landed
from deltawitness.exceptions import ConfigurationError
from deltawitness.internal_errors import report
from deltawitness.locations import table_id
from deltawitness.run import current_run, is_suppressed
from deltawitness.semconv import CONFLICT_TYPES, RUN_APP_ID_PREFIX, CommitKey, ErrorType, Operation

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable
    from deltalake.transaction import AddAction, RemoveAction

__all__ = ["Commit", "commit", "earlier_commit", "transaction_block"]

DEADLINE_S = 60.0
"""Seconds for which an append is committed again after its first conflict."""

TAIL = 64
"""Versions to search for a commit that has no transaction."""


@dataclass(slots=True)
class Commit:
    """A commit that is about to be made.

    Attributes:
        target: the table.
        request: the write.
        receipt_id: identifies the commit in its metadata.
        parts: the staged parts.
        schema: the schema of the table as Delta JSON.
        properties: the commit properties of the program, with the receipt id.
    """

    target: Target
    request: Request
    receipt_id: str
    parts: Sequence[StagedPart]
    schema: str
    properties: CommitProperties = field(init=False)

    def __post_init__(self) -> None:
        """Add the receipt id to the properties."""
        self.properties = with_receipt_id(self.request.commit_properties, self.receipt_id)

    def adds(self) -> list[AddAction]:
        """Return the add actions for the engine, in the order of the parts."""
        from deltalake.transaction import AddAction  # noqa: PLC0415 - heavy

        return [
            AddAction(
                path=unquote(add["path"]),  # the engine encodes it again
                size=add["size"],
                partition_values=add["partitionValues"],
                modification_time=add["modificationTime"],
                data_change=True,
                stats=add["stats"],
            )
            for part in sorted(self.parts, key=lambda each: each.number)
            for add in part.adds
        ]


@contextmanager
def transaction_block(target: Target, key: str | None, receipt_id: str) -> Iterator[None]:
    """Run a block whose commit has the transaction of the key, of the enclosing block or of the run.

    Args:
        target: the table.
        key: the key of the write.
        receipt_id: identifies the commit in its metadata.

    Raises:
        ConfigurationError: the key is empty, or there are a key and a block.
        OnceError: there is a key, and writes are suppressed or delta-rs is not instrumented.
    """
    outer = active_block()
    if key is not None:
        if outer is not None:
            msg = "key: the enclosing once block has a key; pass none"
            raise ConfigurationError(msg)
        with once(key):
            yield
    elif outer is not None or is_suppressed():
        yield
    else:
        with use_block(_block_of_run(target, receipt_id)):
            yield


def _block_of_run(target: Target, receipt_id: str) -> BlockState:
    table = table_id(target.uri)
    app_id = f"{RUN_APP_ID_PREFIX}{current_run().run_id}/{table}"
    raw = None if target.table is None else target.table._table  # noqa: SLF001 - as delta-rs does
    last = 0 if raw is None else raw.transaction_version(app_id) or 0
    return BlockState.of_run(app_id, receipt_id, table, last, DEADLINE_S)


def earlier_commit(target: Target) -> DistributedWriteResult | None:
    """Return the result of the commit that the key of the active block has made already; None if it has not.

    The write is then complete in the block.
    """
    block = active_block()
    if block is None or block.commit_id is not None or target.table is None:
        return None
    raw = target.table._table  # noqa: SLF001 - as delta-rs does
    write = block.next_write(target.uri)
    if not has_committed(raw, write):
        return None
    found = find_commit(raw, write)
    block.complete(write, receipt_from(found, write, is_new=False))
    return _result_of(target, found, is_new=False)


def commit(planned: Commit) -> DistributedWriteResult:
    """Make the commit and return its result.

    Raises:
        deltalake.exceptions.DeltaError: the engine's error; the commit is not in the log, as far as that
            can be read.
    """
    target = planned.target
    if target.table is None:
        try:
            _create(planned)
        except Exception as error:
            if not _is_lost_race(planned, error):
                raise
            target.table = open_table(target.uri, target.storage_options)
            if target.table is None or not _fits(planned, target.table):
                raise
            _add(planned, target.table)
    else:
        _add(planned, target.table)
    return _result(planned)


def _is_lost_race(planned: Commit, error: Exception) -> bool:
    """Return whether another writer has created the table, to which the rows are to be appended."""
    lost = {*CONFLICT_TYPES, ErrorType.TABLE_EXISTS}
    return planned.request.mode == "append" and classify(error) in lost


def _fits(planned: Commit, table: DeltaTable) -> bool:
    """Return whether files that were staged for a new table can be added to one that appeared meanwhile."""
    from deltalake import Schema  # noqa: PLC0415 - heavy

    return (
        table.schema() == Schema.from_json(planned.schema)
        and table.metadata().partition_columns == planned.target.partition_by(planned.request)
        and not table.metadata().configuration
    )


def _create(planned: Commit) -> None:
    from deltalake import Schema  # noqa: PLC0415 - heavy
    from deltalake.transaction import create_table_with_add_actions  # noqa: PLC0415 - as above

    target, request = planned.target, planned.request
    properties = copy.copy(planned.properties)
    properties.max_commit_retries = (
        0  # a retry would add the rows to a table that another writer created
    )
    create_table_with_add_actions(
        target.uri,
        Schema.from_json(planned.schema),
        planned.adds(),
        mode="error",
        partition_by=target.partition_by(request),
        name=request.name,
        description=request.description,
        configuration=target.configuration(request) or None,
        storage_options=target.storage_options,
        commit_properties=properties,
    )


def _add(planned: Commit, table: DeltaTable) -> None:
    from deltalake import Schema  # noqa: PLC0415 - heavy

    request, block = planned.request, active_block()
    partition_by = table.metadata().partition_columns
    newest = _check_unchanged(planned, table)
    if request.mode == "append" or _has_key(newest, planned.target.uri):
        table = newest  # but an overwrite replaces the rows of the version at its start
        if block is not None:
            block.can_repeat = lambda _: request.mode == "append" and _is_unchanged(planned, table)
    actions: list[AddAction | RemoveAction] = [*planned.adds()]
    replacing = request.mode == "overwrite"
    try:
        table.create_write_transaction(
            actions,
            "overwrite" if replacing else "append",
            Schema.from_json(planned.schema),
            partition_by,
            request.partition_filters(partition_by) if replacing else None,
            commit_properties=planned.properties,
        )
    finally:
        if block is not None:
            block.can_repeat = None


def _check_unchanged(planned: Commit, table: DeltaTable) -> DeltaTable:
    """Return the table at its newest version.

    Raises:
        CommitFailedError: the schema, the properties or the protocol of the table have changed since the
            files were staged for them. delta-rs does not notice every such change.
    """
    newest = open_table(planned.target.uri, planned.target.storage_options)
    if newest is not None and (
        describes_same_table(newest, table) or _has_key(newest, planned.target.uri)
    ):
        return newest
    from deltalake.exceptions import CommitFailedError  # noqa: PLC0415 - heavy

    msg = (
        "Metadata changed since last commit: the schema or the properties of the table are not those that"
        " the parts were written for; nothing was committed, call again"
    )
    raise CommitFailedError(msg)


def _has_key(table: DeltaTable, uri: str) -> bool:
    """Return whether the key of the active block has made the write meanwhile, so that there is no commit."""
    block = active_block()
    if block is None or block.commit_id is not None:
        return False
    return has_committed(table._table, block.next_write(uri))  # noqa: SLF001 - as delta-rs does


def _is_unchanged(planned: Commit, table: DeltaTable) -> bool:
    newest = open_table(planned.target.uri, planned.target.storage_options)
    return newest is not None and describes_same_table(newest, table)


def _result(planned: Commit) -> DistributedWriteResult:
    """Return the result of a commit that is in the log."""
    try:
        found, is_new = _find(planned, active_block())
    except Exception as error:  # noqa: BLE001 - the commit is made, even if its log cannot be read
        report("receipt", error)
        found, is_new = None, True
    result = _result_of(planned.target, found, is_new=is_new)
    if not is_new:
        return result
    adds = [add for part in planned.parts for add in part.adds]
    return replace(
        result,
        rows=_sum([part.rows for part in planned.parts]),
        files=len(adds),
        bytes=sum(add["size"] for add in adds),
        parts=len(planned.parts),
    )


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _find(planned: Commit, block: BlockState | None) -> tuple[RawCommit | None, bool]:
    """Return the commit, and whether this call has made it."""
    target = planned.target
    log = open_log(target.uri, target.storage_options)
    if block is None:
        base = None if target.table is None else target.table.version()
        commits = search_commits(log, planned.receipt_id, base, TAIL).commits
        return (commits[-1] if commits else None), True
    receipt = block.receipts[-1]
    content = None if receipt.version is None else log.read(receipt.version)
    if receipt.version is None or content is None:
        return None, receipt.is_new
    return RawCommit(receipt.version, content), receipt.is_new


def _result_of(target: Target, found: RawCommit | None, *, is_new: bool) -> DistributedWriteResult:
    metrics, keys = CommitMetrics(), {}
    if found is not None:
        metrics = metrics_of(Operation.WRITE, [found])
        keys = dict(parse_commit(found.version, found.content).witness)
    return DistributedWriteResult(
        version=None if found is None else found.version,
        rows=metrics.rows_added,
        files=metrics.files_added,
        bytes=metrics.bytes_added,
        parts=keys.get(CommitKey.PARTS),
        landed=Landed.YES,
        write_id=keys.get(CommitKey.WRITE_ID),
        is_new=is_new,
        table_id=table_id(target.uri),
    )
