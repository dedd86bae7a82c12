"""Open several tables of a ledger, at the same time on an object store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deltawitness.ledger.tables.schema import LedgerRoot, LedgerTable
from deltawitness.thread_map import map_in_threads

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["open_tables"]


def open_tables(
    root: LedgerRoot, tables: Sequence[LedgerTable]
) -> dict[LedgerTable, DeltaTable | None]:
    """Open tables at their newest versions; None for a table that does not exist.

    Args:
        root: location of the ledger.
        tables: the tables.

    Raises:
        OSError: the storage cannot be read.
        DeltaError: a table is damaged.
    """
    if root.is_local or not tables:
        return {table: root.open_table(table) for table in tables}
    return dict(zip(tables, map_in_threads(root.open_table, tables, len(tables)), strict=True))
