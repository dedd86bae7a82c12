"""The plan of a reconcile: its findings, and `apply()` to append the missing rows exactly once."""

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
from deltawitness.ledger.reconcile.inferred_runs import InferredRun
from deltawitness.ledger.reconcile.inventory_index import index_inventory
from deltawitness.ledger.reconcile.runs_from_log import append_runs_from_log
from deltawitness.ledger.reconcile.writes import Write
from deltawitness.ledger.tables.schema import INVENTORY, TABLES, LedgerRoot
from deltawitness.ledger.tables.shards import TableParts, with_shards
from deltawitness.run import suppressed
from deltawitness.semconv import LATE_APP_ID

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["ReconcilePlan"]


@dataclass(frozen=True, slots=True)
class ReconcilePlan:
    """The differences between the ledger and the logs of tables.

    Phantom and differing rows, and unreadable tables, are only reported: the ledger is append-only.

    Attributes:
        missing: writes with our metadata but without a row; :meth:`apply` appends rows for them.
        foreign: writes without our metadata (other engines, unobserved processes); :meth:`apply`
            appends rows for them.
        phantom: rows whose versions are not in the log.
        differing: rows that contradict the log.
        unreadable: tables whose logs cannot be read.
        tables: the tables that were compared.
        gone: tables in the inventory that no longer exist.
        commits: number of commits read.
        unsettled: number of commits left for a later reconcile, because their processes may still
            record them.
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
    _watermarks: Mapping[str, int] = field(repr=False)
    _spools: Path = field(repr=False)
    _runs: Mapping[str, InferredRun] = field(default_factory=dict, repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """The number of findings of each kind."""
        return {
            "missing": len(self.missing),
            "foreign": len(self.foreign),
            "phantom": len(self.phantom),
            "differing": len(self.differing),
            "unreadable": len(self.unreadable),
        }

    @property
    def is_clean(self) -> bool:
        """Whether the ledger and the logs agree."""
        return not any(self.counts.values())

    def apply(self) -> int:
        """Append rows for the missing and foreign writes, exactly once.

        Runs of these writes that no process recorded get a row too, with the status
        `reconstructed`.

        Returns:
            The number of rows of writes that were appended; rows that a concurrent process appended
            first are not counted.

        Raises:
            OSError: the ledger's storage cannot be written.
            DeltaError: a table of the ledger is damaged, or has too many concurrent writers.
        """
        return self._apply_with_runs()[0]

    def _apply_with_runs(self) -> tuple[int, int]:
        """Do what :meth:`apply` does; return the number of appended rows of writes, and of runs."""
        if not self._watermarks and not self._rows.num_rows:
            return 0, 0
        with suppressed():
            for table in TABLES:
                self._root.open_or_create(table)
            found: list[pa.Table] = []

            def still_missing(main: DeltaTable) -> tuple[pa.Table, dict[str, int]]:
                rows, transactions = self._still_missing(with_shards(self._root, INVENTORY, main))
                found[:] = [rows]
                return rows, transactions

            count = append(self._root, INVENTORY, still_missing)[0]
            if not count:
                return 0, 0
            inferred = {run.run_id: run for run in self._runs.values()}
            return count, append_runs_from_log(self._root, self._spools, found[0], inferred)

    def _still_missing(self, inventory: TableParts) -> tuple[pa.Table, dict[str, int]]:
        """Return the rows that the inventory lacks, and the application transactions to commit."""
        rows = self._rows.filter(pa.array(self._are_new(inventory), pa.bool_()))
        transactions = {
            app_id: version
            for app_id, version in self._watermarks.items()
            if version > (inventory.transaction_version(app_id) or 0)
        }
        if rows.num_rows:
            # Makes concurrent reconciles, or a reconcile and a late drain, conflict: the second one
            # reads the inventory again.
            transactions[LATE_APP_ID] = (inventory.transaction_version(LATE_APP_ID) or 0) + 1
        return rows, transactions

    def _are_new(self, inventory: TableParts) -> list[bool]:
        ids: dict[str, set[str]] = {}
        for write in self._writes:
            ids.setdefault(write.uri, set()).update(write.ids)
        indexes = {uri: index_inventory(inventory, uri, ids[uri]) for uri in ids}
        return [not write.is_recorded(indexes[write.uri]) for write in self._writes]
