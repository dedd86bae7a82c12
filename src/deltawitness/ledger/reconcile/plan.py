"""What a reconcile would do, and doing it: rows appended exactly once, marks moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from deltawitness.ledger.drain.drain import append
from deltawitness.ledger.reconcile.findings import (
    DifferingRow,
    PhantomRow,
    UnreadableTable,
    UnrecordedWrite,
)
from deltawitness.ledger.reconcile.inventory_index import index_inventory
from deltawitness.ledger.reconcile.runs_from_log import append_runs_from_log
from deltawitness.ledger.reconcile.writes import Write
from deltawitness.ledger.tables.schema import INVENTORY, TABLES, LedgerRoot
from deltawitness.run import suppressed
from deltawitness.semconv import LATE_APP_ID

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["ReconcilePlan"]


@dataclass(frozen=True, slots=True)
class ReconcilePlan:
    """How the ledger and the logs of tables compare, and what would make the ledger whole.

    Phantom and differing rows, and tables that cannot be read, are only told: the ledger is
    append-only.

    Attributes:
        missing: commits with our metadata whose writes have no row; :meth:`apply` gives them one.
        foreign: commits without, by other engines or unobserved; :meth:`apply` gives them rows.
        phantom: rows whose versions are not in the log.
        differing: rows that say otherwise than the log.
        unreadable: tables whose logs cannot be read.
        tables: those that were looked at.
        gone: tables that the inventory knows and that are there no more.
        commits: how many were read.
        unsettled: how many were left for a later pass: their processes may be about to tell of them.
    """

    missing: tuple[UnrecordedWrite, ...]
    foreign: tuple[UnrecordedWrite, ...]
    phantom: tuple[PhantomRow, ...]
    differing: tuple[DifferingRow, ...]
    unreadable: tuple[UnreadableTable, ...]
    tables: tuple[str, ...]
    gone: tuple[str, ...]
    commits: int
    unsettled: int
    _root: LedgerRoot = field(repr=False)
    _rows: pa.Table = field(repr=False)
    _writes: Sequence[Write] = field(repr=False)
    _marks: Mapping[str, int] = field(repr=False)
    _spools: Path = field(repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """How much was found of each kind."""
        return {
            "missing": len(self.missing),
            "foreign": len(self.foreign),
            "phantom": len(self.phantom),
            "differing": len(self.differing),
            "unreadable": len(self.unreadable),
        }

    @property
    def is_clean(self) -> bool:
        """Whether the ledger and the logs say the same."""
        return not any(self.counts.values())

    def apply(self) -> int:
        """Append the rows of what is missing and foreign, each once, whoever else does the same.

        Runs of these writes that no process has told of get a row as well, `reconstructed`.

        Returns:
            How many rows of writes were appended: less than were found when others were faster.

        Raises:
            OSError: the ledger's storage cannot be written.
            DeltaError: a table of the ledger is damaged, or too many write to it.
        """
        if not self._marks and not self._rows.num_rows:
            return 0
        with suppressed():
            for table in TABLES:
                self._root.open_or_create(table)
            found: list[pa.Table] = []

            def still_missing(inventory: DeltaTable) -> tuple[pa.Table, dict[str, int]]:
                rows, marks = self._still_missing(inventory)
                found[:] = [rows]
                return rows, marks

            count = append(self._root, INVENTORY, still_missing)[0]
            if count:
                append_runs_from_log(self._root, self._spools, found[0])
            return count

    def _still_missing(self, inventory: DeltaTable) -> tuple[pa.Table, dict[str, int]]:
        """Return what is not in the inventory by now, and the marks to leave."""
        rows = self._rows.filter(pa.array(self._are_new(inventory), pa.bool_()))
        marks = {
            app_id: mark
            for app_id, mark in self._marks.items()
            if mark > (inventory.transaction_version(app_id) or 0)
        }
        if rows.num_rows:
            # Two that add what they found, or one and a late drain: the second must look again.
            marks[LATE_APP_ID] = (inventory.transaction_version(LATE_APP_ID) or 0) + 1
        return rows, marks

    def _are_new(self, inventory: DeltaTable) -> list[bool]:
        ids: dict[str, set[str]] = {}
        for write in self._writes:
            ids.setdefault(write.uri, set()).update(write.ids)
        known = {uri: index_inventory(inventory, uri, ids[uri]) for uri in ids}
        return [not write.is_recorded(known[write.uri]) for write in self._writes]
