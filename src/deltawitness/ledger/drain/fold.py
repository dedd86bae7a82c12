"""Fold shards: move their rows to the main tables of the ledger, each exactly once.

A fold of a shard's table makes two commits. The first appends the rows of the shard's version V to the
main table, with an application transaction "version V of this shard". The second deletes exactly the
files of V from the shard, with V as application transaction there; rows that writers append meanwhile
stay. A fold that dies between the two leaves versions that differ: readers then compare the rows by
key, and the next fold drops those that the main table has. Two folds of one version conflict in the
main table, and the second finds it done. So no lease is needed: a fold that dies blocks no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from deltawitness.error_types import is_conflict
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.ledger.drain.dedup import drop_present
from deltawitness.ledger.drain.drain import COMMITS_PER_MAINTENANCE, append
from deltawitness.ledger.drain.maintenance import vacuum_table
from deltawitness.ledger.tables.arrow import query
from deltawitness.ledger.tables.schema import TABLES, LedgerRoot, LedgerTable, commit_properties
from deltawitness.ledger.tables.shards import ROW_KEYS, fold_app_id, shard_names
from deltawitness.redaction import redact_text
from deltawitness.run import suppressed
from deltawitness.semconv import FOLDED_APP_ID, LATE_APP_ID, CacheOperation

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["FoldResult", "fold"]

DELETE_RETRIES = 15
"""Commit retries of a deletion. Writers of the shard append meanwhile, which is no conflict."""


@dataclass(frozen=True, slots=True)
class FoldResult:
    """The result of folding one table of a shard.

    Attributes:
        shard: name of the shard.
        table: name of the table.
        rows: rows appended to the main table.
        is_deleted: whether the rows were deleted from the shard; otherwise the next fold does it.
        error: why the table could not be folded, redacted; None if it was.
    """

    shard: str
    table: str
    rows: int
    is_deleted: bool
    error: str | None = None


def fold(root: LedgerRoot) -> list[FoldResult]:
    """Move the rows of all shards to the main tables.

    Tables without rows have no result. A table that cannot be folded is reported, and the others are folded.

    Args:
        root: location of the ledger.

    Raises:
        OSError: the shards cannot be listed.
    """
    results = []
    for name in shard_names(root):
        for table in TABLES:
            try:
                result = _fold_table(root.of_shard(name), table)
            except Exception as error:  # noqa: BLE001 - the others are folded nevertheless
                report("fold", error)
                result = FoldResult(name, table.name, 0, False, redact_text(str(error)))  # noqa: FBT003
            if result is not None:
                results.append(result)
    return results


def _fold_table(shard: LedgerRoot, table: LedgerTable) -> FoldResult | None:
    opened = shard.open_table(table)
    if opened is None or not opened.partitions():
        return None
    version, app_id = opened.version(), fold_app_id(opened)
    rows = _rows(opened)

    def missing(main: DeltaTable) -> tuple[pa.Table, Mapping[str, int]]:
        if (main.transaction_version(app_id) or 0) >= version:
            return rows.slice(0, 0), {}
        # Makes a concurrent reconcile conflict, which has read the rows in neither table.
        late = (main.transaction_version(LATE_APP_ID) or 0) + 1
        fresh = drop_present(main, rows, ROW_KEYS[table.name])
        return fresh, {app_id: version, LATE_APP_ID: late}

    with suppressed():
        count, _ = append(shard.of_shard(None), table, missing)
        before = opened.transaction_version(FOLDED_APP_ID) or 0
        is_deleted = _delete(opened, version)
        if version // COMMITS_PER_MAINTENANCE > before // COMMITS_PER_MAINTENANCE:
            _vacuum(shard, table)
    return FoldResult(shard.shard or "", table.name, count, is_deleted)


def _rows(opened: DeltaTable) -> pa.Table:
    """Return the rows of a shard's table, in the types of the table and sorted for file statistics."""
    schema = pa.schema(opened.schema().to_arrow())
    found = query(opened, "SELECT * FROM ledger").select(schema.names).cast(schema)
    return found.sort_by("run_id")


def _delete(opened: DeltaTable, version: int) -> bool:
    """Delete the rows of the open version from a shard; return whether that succeeded.

    A conflict means that another fold deleted them, or that there were too many concurrent writers.
    """
    from deltalake import Transaction  # noqa: PLC0415 - heavy

    transaction = Transaction(FOLDED_APP_ID, version, now_ns() // 1_000_000)
    try:
        opened.delete(
            commit_properties=commit_properties(
                CacheOperation.DELETE, [transaction], retries=DELETE_RETRIES
            )
        )
    except Exception as error:
        if is_conflict(error):
            return False
        raise
    return True


def _vacuum(shard: LedgerRoot, table: LedgerTable) -> None:
    """Delete files of a shard that no version of the retention needs; report errors."""
    try:
        opened = shard.open_table(table)
        if opened is not None:
            vacuum_table(opened)
    except Exception as error:  # noqa: BLE001 - a later fold tries again
        report("fold", error)
