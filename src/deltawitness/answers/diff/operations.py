"""The operations between two versions of a table, from its log and the ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deltawitness.answers.commits import log_metrics_of, message_of, predicate_of, time_of
from deltawitness.answers.diff.table_values import DiffOperation
from deltawitness.answers.lookup import NamedTable
from deltawitness.answers.rows import WriteRow
from deltawitness.answers.storage import storage_options_for
from deltawitness.commit.log import open_log
from deltawitness.commit.reader import parse_commit
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.operation_names import save_mode_of
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.semconv import CacheResult, CommitKey
from deltawitness.settings import Settings
from deltawitness.sql_quoting import quote_literal

__all__ = ["operations_between"]


def operations_between(
    ledger: LedgerListing, named: NamedTable, first: int, last: int, settings: Settings
) -> tuple[DiffOperation, ...]:
    """Return the operations after one version, up to another, in order.

    Args:
        ledger: the ledger to query; it may have no tables.
        named: the table.
        first: the version before the first operation.
        last: the version of the last operation.
        settings: the storage options of a remote table.

    Raises:
        OSError: the log or the ledger cannot be read.
    """
    log = open_log(named.location, storage_options_for(named.location, settings))
    rows = _rows(ledger, named, first, last)
    found = []
    for version in range(first + 1, last + 1):
        content = log.read(version)
        if content is not None:
            found.append(_of_commit(version, content, rows))
        elif version in rows.by_version:
            found.append(_of_row(version, rows.by_version[version]))
    return tuple(found)


class _Rows:
    """The ledger's rows of some versions, by id of the write and by version."""

    def __init__(self, rows: list[WriteRow]) -> None:
        self.by_write = {row.write_id: row for row in rows if row.write_id}
        self.by_version = {
            version: row for row in rows for version in row.versions or (row.version,)
        }


def _rows(ledger: LedgerListing, named: NamedTable, first: int, last: int) -> _Rows:
    if not ledger.has(INVENTORY):
        return _Rows([])
    conditions = [
        f"table_uri = {quote_literal(named.uri)}",
        is_in("result", (CacheResult.WRITE.value, CacheResult.ERROR.value)),
        # `version` is the last version of a write of several.
        f"version > {first}",
    ]
    rows = [WriteRow.of(row) for row in ledger.rows(INVENTORY, conditions, order="event_time")]
    return _Rows([row for row in rows if min(row.versions or (row.version or 0,)) <= last])


def _of_commit(version: int, content: bytes, rows: _Rows) -> DiffOperation:
    commit = parse_commit(version, content)
    keys = commit.witness
    metrics = log_metrics_of(commit, content)
    own = next((rows.by_write[each] for each in commit.write_ids if each in rows.by_write), None)
    found = DiffOperation(
        version=version,
        time=time_of(commit),
        operation=commit.operation,
        mode=save_mode_of(commit.operation_parameters.get("mode")),
        predicate=predicate_of(commit),
        run_id=_text(keys.get(CommitKey.RUN_ID)),
        job=_text(keys.get(CommitKey.JOB_NAME)),
        message=message_of(commit),
        rows_added=metrics.rows_added,
        rows_updated=metrics.rows_updated,
        rows_deleted=metrics.rows_deleted,
    )
    if own is None:
        return found
    names = ("run_id", "job", "message", "rows_added", "rows_updated", "rows_deleted")
    missing = {name: getattr(own, name) for name in names if getattr(found, name) is None}
    return replace(found, **missing)


def _of_row(version: int, row: WriteRow) -> DiffOperation:
    return DiffOperation(
        version=version,
        time=row.event_time,
        operation=row.operation,
        mode=row.mode,
        run_id=row.run_id,
        job=row.job,
        message=row.message,
        rows_added=row.rows_added,
        rows_updated=row.rows_updated,
        rows_deleted=row.rows_deleted,
        in_log=False,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
