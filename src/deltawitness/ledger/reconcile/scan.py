"""Compare the ledger with the logs of tables, and build a reconcile plan.

The order of reads prevents two rows for one write: (1) the logs, (2) which processes live and what
their spools contain, (3) the inventory.

* A process creates its spool before its first commit. So the writer of a commit read in (1) either
  lives at (2), or will record nothing beyond what its spool contains then.
* What it has recorded is in its spool, or was in the inventory before the spool was emptied.
* A live process records a commit soon. So commits younger than `GRACE` are skipped while their
  writer may live.
* If an older commit is recorded after all, the drain checks the inventory for reconciled rows, and
  its commit conflicts with a concurrent reconcile through an application transaction.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.commit.parallel import LogReaders
from deltawitness.ids_and_clock import in_utc, now_ns
from deltawitness.ledger.drain.drain import GRACE
from deltawitness.ledger.drain.recorder import recorder_of
from deltawitness.ledger.reconcile.findings import (
    DifferingRow,
    PhantomRow,
    UnreadableTable,
    UnrecordedWrite,
)
from deltawitness.ledger.reconcile.inferred_runs import InferredRun, infer_runs
from deltawitness.ledger.reconcile.inventory_index import (
    index_inventory,
    indexed_ids,
    newest_versions,
)
from deltawitness.ledger.reconcile.log_reader import LogRead, Progress, read_log, versions_in
from deltawitness.ledger.reconcile.mismatches import differing_rows, phantom_rows
from deltawitness.ledger.reconcile.plan import ReconcilePlan
from deltawitness.ledger.reconcile.rows_from_log import row_from_log
from deltawitness.ledger.reconcile.targets import Target, targets_of
from deltawitness.ledger.reconcile.watermarks import app_id, incarnation_of, watermark_of
from deltawitness.ledger.reconcile.writes import Write, writes_of
from deltawitness.ledger.spool.reader import spooled_write_ids
from deltawitness.ledger.tables.arrow import operation_rows
from deltawitness.ledger.tables.schema import INVENTORY, LedgerRoot, Source
from deltawitness.ledger.tables.shards import TableParts, open_parts
from deltawitness.ledger.tables.write_rows import as_json
from deltawitness.redaction import redact_text
from deltawitness.semconv import EXPIRED_PROPERTY
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["ReconcilePlan", "plan_of"]

MANY_COMMITS = 100
"""Number of commits above which the recorded ones are looked up first, to skip computing their
metrics."""


def plan_of(  # noqa: PLR0913 - keyword-only options
    root: LedgerRoot,
    spools: Path,
    tables: Iterable[str | os.PathLike[str] | DeltaTable] | None = None,
    *,
    since: datetime | None = None,
    full: bool = False,
    search: bool = False,
    gap: timedelta | None = None,
    progress: Progress | None = None,
    settings: Settings,
) -> ReconcilePlan:
    """Compare a ledger with the logs of tables.

    Args:
        root: location of the ledger.
        spools: the local folder of all spools.
        tables: locations of tables, prefixes, globs, or open tables; all tables in the inventory when
            None.
        since: skip commits before this time. UTC without a time zone.
        full: read the logs from version 0 instead of the watermarks.
        search: if `tables` is None, also compare tables that are found beside those in the inventory.
        gap: infer runs of foreign commits, with this gap between two of them; use it with `full`.
        progress: called now and then with `(table, commits read, total commits)`.
        settings: whether table ids are keyed, and which table names may be recorded.

    Raises:
        OSError: the ledger's storage cannot be read.
        DeltaError: the inventory is damaged.
    """
    before = open_parts(root, [INVENTORY])[INVENTORY]
    targets, unreadable = targets_of(root, before, tables, search=search)
    scan = ReconcileScan(
        root=root,
        settings=settings,
        spools=spools,
        since=None if since is None else int(in_utc(since).timestamp() * 1000),
        unreadable=unreadable,
        expired=_expired_before(before),
    )
    with LogReaders() as readers:
        scan.read(targets, before, readers, full=full, progress=progress or _ignore_progress)
    if gap is not None:
        scan.runs = infer_runs(scan.logs, gap)
    waiting, has_grace = _writes_in_progress(root, spools)
    # Opened again: it now has the rows that were drained before the spools were read.
    inventory = open_parts(root, [INVENTORY])[INVENTORY]
    scan.newest = newest_versions(inventory)
    for found in scan.logs:
        scan.compare(found, inventory, waiting, has_grace=has_grace)
    return scan.plan()


def _ignore_progress(table: str, done: int, of: int) -> None:
    """Do nothing: the default for `progress`."""


def _expired_before(inventory: TableParts) -> int | None:
    """Return the time before which rows of the inventory were expired, in milliseconds since the epoch."""
    properties = {} if inventory.main is None else inventory.main.metadata().configuration
    day = properties.get(EXPIRED_PROPERTY)
    if day is None:
        return None
    return int(datetime.fromisoformat(f"{day}T00:00Z").timestamp()) * 1000


def _writes_in_progress(root: LedgerRoot, spools: Path) -> tuple[set[str], bool]:
    """Return the write ids in all spools, and whether processes may still record young commits."""
    own = recorder_of(root)
    is_writing = own is not None and own.is_writing
    waiting, has_owner = spooled_write_ids(spools, None if own is None else own.home)
    return waiting, has_owner or is_writing or not root.is_local


@dataclass(slots=True)
class ReconcileScan:
    """The state of a comparison, table by table."""

    root: LedgerRoot
    settings: Settings
    spools: Path
    since: int | None
    unreadable: list[UnreadableTable]
    expired: int | None = None
    """Milliseconds since the Unix epoch; rows of earlier writes were expired from the ledger."""
    logs: list[LogRead] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unsettled: int = 0
    writes: list[Write] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    missing: list[UnrecordedWrite] = field(default_factory=list)
    foreign: list[UnrecordedWrite] = field(default_factory=list)
    phantom: list[PhantomRow] = field(default_factory=list)
    differing: list[DifferingRow] = field(default_factory=list)
    watermarks: dict[str, int] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    runs: Mapping[str, InferredRun] = field(default_factory=dict)
    """Inferred runs of foreign commits, by the write id of the row."""
    _planned: set[str] = field(default_factory=set)
    _inventory_lock: threading.Lock = field(default_factory=threading.Lock)
    """Threads that read logs query the inventory one at a time: an open table is not safe to share."""

    # --- reading -------------------------------------------------------------------------------------

    def read(
        self,
        targets: Sequence[Target],
        inventory: TableParts,
        readers: LogReaders,
        *,
        full: bool,
        progress: Progress,
    ) -> None:
        """Read the logs of tables; record a table that cannot be read as a finding.

        Args:
            targets: the tables.
            inventory: the inventory.
            readers: the threads that read remote logs.
            full: read the logs from version 0 instead of the watermarks.
            progress: called with the number of commits read, by one thread at a time.
        """
        lock = threading.Lock()

        def show(table: str, done: int, of: int) -> None:
            with lock:
                progress(table, done, of)

        def read(target: Target) -> LogRead | UnreadableTable | None:
            try:
                return self._log_of(target, inventory, readers, full=full, progress=show)
            except Exception as error:  # noqa: BLE001 - any failure to read is a finding
                text = redact_text(str(error), location=target.location)
                return UnreadableTable(target.uri, text)

        is_remote = any(target.is_remote for target in targets)
        found = readers.map(read, targets, is_remote=is_remote)
        for target, result in zip(targets, found, strict=True):
            if isinstance(result, LogRead):
                self.logs.append(result)
            elif result is None:
                self._record_missing_log(target)
            else:
                self.unreadable.append(result)

    def _log_of(
        self,
        target: Target,
        inventory: TableParts,
        readers: LogReaders,
        *,
        full: bool,
        progress: Progress,
    ) -> LogRead | None:
        """Return the new part of a table's log; None if there is no log."""
        log = target.log()
        versions = versions_in(log)
        if not versions:
            return None
        incarnation = incarnation_of(target, log, versions)
        with self._inventory_lock:
            start = 0 if full else watermark_of(inventory, target.uri, incarnation.guid)
            if start > versions[-1] + 1:
                start = 0  # the log is shorter than at the watermark, which is invalid
            is_long = versions[-1] - start > MANY_COMMITS
            rows = indexed_ids(inventory, target.uri) if is_long else set()
        found = LogRead(target, incarnation.guid, incarnation.created_ms, start, versions)
        read_log(found, log, lambda ids: not rows.isdisjoint(ids), progress, readers)
        return found

    def _record_missing_log(self, target: Target) -> None:
        if target.is_requested:
            self.unreadable.append(UnreadableTable(target.uri, "there is no Delta log"))
        else:
            self.gone.append(target.uri)

    # --- comparing -----------------------------------------------------------------------------------

    def compare(
        self,
        found: LogRead,
        inventory: TableParts,
        waiting: AbstractSet[str],
        *,
        has_grace: bool,
    ) -> None:
        """Compare the log of a table with the inventory.

        Args:
            found: the log that was read.
            inventory: the inventory.
            waiting: write ids in spools.
            has_grace: whether to skip young commits, because their processes may still record them.
        """
        uri, now = found.target.uri, now_ns() // 1_000_000
        writes = writes_of(uri, found.commits)
        ids = {name for write in writes for name in write.ids}
        is_tail = found.start > 0
        if not writes and is_tail and self.newest.get(uri, -1) < found.start:
            return  # no new commits, and no new rows
        index = index_inventory(inventory, uri, ids, since=found.start)
        reconciled_up_to = found.versions[-1] + 1
        for write in writes:
            if write.is_recorded(index) or write.row_id in self._planned:
                continue
            if write.is_of(waiting) or (has_grace and write.is_younger(GRACE, now)):
                self.unsettled += len(write.commits)
                reconciled_up_to = min(reconciled_up_to, write.versions[0])
            elif not any(
                write.is_before(at) for at in (self.since, self.expired) if at is not None
            ):
                self._add(write, found)
        self._advance_watermark(found, reconciled_up_to)
        self.phantom += phantom_rows(found, index, self.since)
        self.differing += differing_rows(found, index, self.since)

    def _add(self, write: Write, found: LogRead) -> None:
        name = found.name_before(write.commits[0])
        row = row_from_log(write.commits, found.target, name, self.settings)
        run = self.runs.get(write.row_id)
        if run is not None:
            row |= {"run_id": run.run_id, "job": run.job, "source": Source.RECONSTRUCTED.value}
        self._planned.add(write.row_id)
        self.writes.append(write)
        self.rows.append(as_json(row).encode())
        (self.missing if write.is_witnessed else self.foreign).append(_unrecorded(write, row))

    def _advance_watermark(self, found: LogRead, reconciled_up_to: int) -> None:
        # With `since`, older commits have not been compared.
        if self.since is None and found.guid is not None and reconciled_up_to > found.start:
            self.watermarks[app_id(found.target.uri, found.guid)] = reconciled_up_to

    # --- the plan ------------------------------------------------------------------------------------

    def plan(self) -> ReconcilePlan:
        """Return the plan."""
        return ReconcilePlan(
            missing=tuple(self.missing),
            foreign=tuple(self.foreign),
            phantom=tuple(self.phantom),
            differing=tuple(self.differing),
            unreadable=tuple(self.unreadable),
            tables=tuple(found.target.uri for found in self.logs),
            gone=tuple(self.gone),
            commits=sum(len(found.commits) for found in self.logs),
            unsettled=self.unsettled,
            _root=self.root,
            _rows=operation_rows(self.rows),
            _writes=self.writes,
            _watermarks=self.watermarks,
            _spools=self.spools,
            _runs=self.runs,
        )


def _unrecorded(write: Write, row: dict[str, Any]) -> UnrecordedWrite:
    time = write.commits[0].time
    return UnrecordedWrite(
        table_uri=write.uri,
        write_id=write.row_id,
        versions=write.versions,
        operation=row["operation"],
        run_id=row["run_id"],
        engine=row["engine"],
        committed_at=None if time is None else datetime.fromtimestamp(time / 1000, tz=UTC),
    )
