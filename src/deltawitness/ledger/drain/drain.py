"""Append segments to the ledger's tables, each exactly once.

Each spool has an application transaction in each table: its id, and the number of the last segment
in the table. It is committed together with the rows, read from the same table handle that the rows
are then written through, and read again after every conflict. So if a process dies, or a commit
lands although the engine raised, a segment is in the table with its transaction, or neither is.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from deltawitness.error_types import classify
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.ledger.drain.abandoned import RunKey, last_ends, run_key, tallies_of
from deltawitness.ledger.drain.dedup import without_recorded
from deltawitness.ledger.spool.host import live_segments, mark_drained
from deltawitness.ledger.spool.reader import (
    AbandonedSpool,
    SegmentContents,
    adopt_batches,
    read_segment,
)
from deltawitness.ledger.spool.supervisor import ProcessEnd
from deltawitness.ledger.tables.arrow import operation_rows, query, rows_from, valid_rows
from deltawitness.ledger.tables.run_rows import RunStatus, Tally, run_row
from deltawitness.ledger.tables.schema import (
    INVENTORY,
    PARTITION,
    RUNS,
    SNAPSHOTS,
    LedgerRoot,
    LedgerTable,
    Source,
    commit_properties,
)
from deltawitness.ledger.tables.shards import open_parts
from deltawitness.ledger.tables.write_rows import as_json, row_of_provisional
from deltawitness.run import suppressed
from deltawitness.semconv import CONFLICT_TYPES, LATE_APP_ID, CacheOperation, ErrorType
from deltawitness.sql_quoting import quote_literal

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "COMMITS_PER_MAINTENANCE",
    "GRACE",
    "Drain",
    "DrainResult",
    "append",
    "retry_conflicts",
]

T = TypeVar("T")
Row = dict[str, Any]
Rows = Callable[["DeltaTable"], "tuple[pa.Table, Mapping[str, int]]"]

ATTEMPTS = 12
"""Attempts of an append before its segments are left for the next drain."""

FIRST_WAIT = 0.02
LONGEST_WAIT = 5.0
"""Bounds in seconds of the wait between two attempts; it doubles each time. The wait is a random
share of it, so that processes in conflict do not conflict again."""

GRACE = 60.0
"""Seconds after which a reconcile may add the row of an operation whose drain is still pending. A
reconcile skips younger commits; a drain looks up older operations before it appends them."""

COMMITS_PER_MAINTENANCE = 100
"""Number of commits to a table after which the process of the last one maintains it."""

BATCH_BYTES = 64 << 20
"""Bytes of segments that are committed together."""


@dataclass(slots=True)
class DrainResult:
    """What a drain appended to the ledger.

    Attributes:
        operations: rows of the inventory.
        runs: rows of the run summary.
        snapshots: rows of the snapshot registry.
        segments: number of drained segments.
        adopted: number of spools of dead processes that were drained and deleted.
        damaged: number of records that could not be read.
    """

    operations: int = 0
    runs: int = 0
    snapshots: int = 0
    segments: int = 0
    adopted: int = 0
    damaged: int = 0

    def __add__(self, other: DrainResult) -> DrainResult:
        return DrainResult(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(slots=True)
class Batch:
    """Segments that are appended together."""

    contents: list[SegmentContents] = field(default_factory=list)
    abandoned: list[SegmentContents] = field(default_factory=list)
    """The last segments of dead processes: their open runs were abandoned."""
    emptied: list[AbandonedSpool] = field(default_factory=list)
    """The spools of dead processes whose last segments are in this batch."""


class Drain:
    """Appends segments to the tables of a ledger.

    Args:
        root: location of the ledger.
        tail: number of versions of a table's log to search for the commit of a provisional record.

    Attributes:
        due: tables that have had enough commits to be maintained.
        conflicts: appends that were repeated because another process committed first.
    """

    def __init__(self, root: LedgerRoot, *, tail: int) -> None:
        self._root = root
        self._tail = tail
        self.conflicts: int = 0
        self.due: list[LedgerTable] = []

    def drain_segments(self, paths: Sequence[Path]) -> DrainResult:
        """Drain sealed segments of a live process. The caller deletes their files.

        Args:
            paths: paths of the segments, oldest first.

        Raises:
            OSError: a segment or the ledger's storage cannot be read or written.
            DeltaError: a table of the ledger is damaged, or has too many concurrent writers.
        """
        done = DrainResult()
        for paths_of_batch in _batches(paths):
            done += self._write_batch(Batch([read_segment(path) for path in paths_of_batch]))
        return done

    def drain_for_host(self, own: Sequence[Path], folder: Path, home: Path | None) -> DrainResult:
        """Drain sealed segments of this process and of other live processes on this host.

        The caller holds the lock of the drains on this host. The caller deletes the files of its
        segments; the owners of the others delete theirs.

        Args:
            own: segments of this process, oldest first.
            folder: the folder of all spools.
            home: the spool of this process.

        Raises:
            OSError: a segment or the ledger's storage cannot be read or written.
            DeltaError: a table of the ledger is damaged, or has too many concurrent writers.
        """
        others = live_segments(folder, home, shard=self._root.shard)
        if not others:
            return self.drain_segments(own)
        try:
            done = self.drain_segments([*own, *others])
        except Exception as error:  # noqa: BLE001 - a segment of another process may be the cause
            report("drain", error)
            return self.drain_segments(own)
        mark_drained(others)
        return done

    def drain_spools(self, *spools: AbandonedSpool) -> DrainResult:
        """Drain and delete the spools of dead processes, each to the shard that it names.

        Args:
            spools: the spools; the caller holds their locks.

        Raises:
            OSError: a segment or the ledger's storage cannot be read or written.
            DeltaError: a table of the ledger is damaged, or has too many concurrent writers.
        """
        by_shard: dict[str | None, list[AbandonedSpool]] = {}
        for spool in spools:
            by_shard.setdefault(spool.shard, []).append(spool)
        done = DrainResult()
        for shard, group in by_shard.items():
            drain = Drain(self._root.of_shard(shard), tail=self._tail)
            done += drain._drain_spools(group)
            self.due += drain.due
        return done

    def _drain_spools(self, spools: Sequence[AbandonedSpool]) -> DrainResult:
        """Drain and delete spools of the shard of this drain."""
        done = DrainResult()
        batch, size = Batch(), 0
        for spool in spools:
            open_runs: dict[str, Row] = {}
            end = ProcessEnd.read_from(spool.home)
            for path in spool.segments:
                if size >= BATCH_BYTES:
                    done += self._write_batch(batch)
                    batch, size = Batch(), 0
                contents = read_segment(path)
                if end is not None:
                    contents.process_end = end
                    contents.runs = [end.row_with_exit(run) for run in contents.runs]
                # Carried over: the process may have died before it repeated them in the last one.
                contents.open_runs = open_runs = contents.runs_open_after(open_runs)
                batch.contents.append(contents)
                size += path.stat().st_size
            batch.abandoned += batch.contents[-1:] if spool.segments else []
            batch.emptied.append(spool)
        return done + self._write_batch(batch)

    def drain_abandoned(self, folder: Path, exclude: Path | None = None) -> DrainResult:
        """Drain the spools of all dead processes; report and keep those that cannot be drained.

        Args:
            folder: the folder of all spools.
            exclude: the spool of this process.
        """
        done = DrainResult()
        for spools in adopt_batches(folder, exclude):
            try:
                done += self.drain_spools(*spools)
            except Exception:  # noqa: BLE001 - draining them one by one reports the faulty one
                done += self._drain_one_by_one(spools)
        return done

    def _drain_one_by_one(self, spools: Sequence[AbandonedSpool]) -> DrainResult:
        done = DrainResult()
        for spool in spools:
            if not spool.home.exists():
                continue  # drained before the faulty one
            try:
                done += self.drain_spools(spool)
            except Exception as error:  # noqa: BLE001 - the others are drained nevertheless
                report("drain", error)
        return done

    def _write_batch(self, batch: Batch) -> DrainResult:
        with suppressed():
            operations = self._append_operations(batch.contents)
            runs = self._append_runs(batch)
            snapshots = self._append_rows(
                SNAPSHOTS,
                [(segment, segment.snapshots) for segment in batch.contents if segment.snapshots],
            )
        for spool in batch.emptied:
            spool.delete()
        return DrainResult(
            operations,
            runs,
            snapshots,
            segments=len(batch.contents),
            adopted=len(batch.emptied),
            damaged=sum(segment.damaged for segment in batch.contents),
        )

    # --- the inventory ---------------------------------------------------------------------------------

    def _append_operations(self, batch: Sequence[SegmentContents]) -> int:
        # Built once, before the retries: searching a log for a commit may take a while.
        parts = [
            (segment, _valid_rows(segment, operation_rows, self._json_rows(segment)))
            for segment in batch
            if segment.rows or segment.provisional
        ]
        if not parts:
            return 0
        oldest = min(map(_oldest, [rows for _, rows in parts if rows.num_rows]), default=0)

        def rows(table: DeltaTable) -> tuple[pa.Table, Mapping[str, int]]:
            fresh, transactions = without_recorded(table, INVENTORY, parts)
            # Sorted by run, so that file statistics are selective.
            found = pa.concat_tables([_EMPTY, *fresh]).sort_by(
                [("run_id", "ascending"), ("event_time", "ascending")]
            )
            # Checked at each attempt; half of GRACE allows for the commit's duration and for clocks.
            # Readers and folds drop rows of a shard for which the main table has a reconciled row.
            is_main = self._root.shard is None
            if is_main and found.num_rows and now_ns() // 1000 - oldest > GRACE * 1e6 / 2:
                found = _without_reconciled(table, found)
                transactions = {
                    **transactions,
                    LATE_APP_ID: (table.transaction_version(LATE_APP_ID) or 0) + 1,
                }
            return found, transactions

        return self._append(INVENTORY, rows)

    def _json_rows(self, segment: SegmentContents) -> list[bytes]:
        completed = (
            as_json(row_of_provisional(record, self._tail)).encode()
            for record in segment.provisional
        )
        return [*(record.body for record in segment.rows), *completed]

    # --- runs and snapshots -----------------------------------------------------------------------------

    def _append_runs(self, batch: Batch) -> int:
        ends = [(segment, segment.runs) for segment in batch.contents]
        ends += zip(batch.abandoned, self._abandoned(batch), strict=True)
        return self._append_rows(RUNS, ends)

    def _abandoned(self, batch: Batch) -> Iterator[list[Row]]:
        """Yield the rows of abandoned runs for each last segment of a dead process."""
        left = [run for segment in batch.abandoned for run in segment.open_runs.values()]
        tallies: dict[RunKey, Tally] = {}
        if left:
            own = [] if self._root.shard is None else [self._root.shard]
            opened = open_parts(self._root, (RUNS, INVENTORY), own)
            ended = last_ends(opened[RUNS], left)
            for run in (run for segment in batch.contents for run in segment.runs):
                ended[run_key(run)] = max(run.get("end_time") or 0, ended.get(run_key(run), 0))
            tallies = tallies_of(opened[INVENTORY], left, ended)
        at = now_ns() // 1000
        for segment in batch.abandoned:
            rows = [
                run_row(run, tallies[run_key(run)], status=RunStatus.ABANDONED, end_time=at)
                for run in segment.open_runs.values()
            ]
            end = segment.process_end
            yield rows if end is None else [end.row_with_exit(run) for run in rows]

    def _append_rows(
        self, table: LedgerTable, rows_by_segment: Sequence[tuple[SegmentContents, list[Row]]]
    ) -> int:
        parts = [
            (segment, _valid_rows(segment, partial(rows_from, table), rows))
            for segment, rows in rows_by_segment
            if rows
        ]
        if not parts:
            return 0

        def rows(opened: DeltaTable) -> tuple[pa.Table, Mapping[str, int]]:
            fresh, transactions = without_recorded(opened, table, parts)
            return pa.concat_tables([table.schema.empty_table(), *fresh]), transactions

        return self._append(table, rows)

    def _append(self, table: LedgerTable, rows: Rows) -> int:
        count, version = append(self._root, table, rows, on_conflict=self._count_conflict)
        # A fold maintains a shard.
        if count and self._root.shard is None and version % COMMITS_PER_MAINTENANCE == 0:
            self.due.append(table)
        return count

    def _count_conflict(self) -> None:
        self.conflicts += 1


_EMPTY = INVENTORY.schema.empty_table()


def _valid_rows(
    segment: SegmentContents, make: Callable[[Sequence[T]], pa.Table], rows: Sequence[T]
) -> pa.Table:
    found, bad = valid_rows(make, rows)
    segment.damaged += bad
    return found


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in paths:
        batch.append(path)
        size += path.stat().st_size
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


# --- the exactly-once loop -------------------------------------------------------------------------


def append(
    root: LedgerRoot,
    table: LedgerTable,
    rows: Rows,
    *,
    on_conflict: Callable[[], object] = bool,
) -> tuple[int, int]:
    """Append rows to a table of the ledger exactly once; retry after conflicts.

    Args:
        root: location of the ledger.
        table: the table.
        rows: given the open table, returns the rows that it does not contain yet and the
            application transactions (id to version) to commit with them; without transactions
            nothing is committed.
        on_conflict: called before each further attempt.

    Returns:
        The number of appended rows, and the table's version.

    Raises:
        DeltaError: the append failed, or conflicted at every attempt.
        OSError: the storage cannot be read or written.
    """
    return retry_conflicts(lambda: _append_once(root, table, rows), on_conflict)


def retry_conflicts(act: Callable[[], T], on_conflict: Callable[[], object] = bool) -> T:
    """Call a function again after conflicts and other transient errors, with growing random waits.

    Args:
        act: opens the table again and commits once.
        on_conflict: called before each further attempt.

    Returns:
        What the function returns.

    Raises:
        DeltaError: it failed, or conflicted at every attempt.
        OSError: the storage cannot be read or written.
    """
    for attempt in itertools.count(1):
        try:
            return act()
        except Exception as error:
            if attempt == ATTEMPTS or classify(error) not in _TRANSIENT:
                raise
        on_conflict()
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
        time.sleep(random.uniform(0, wait))  # noqa: S311 - nothing is encrypted
    raise AssertionError  # unreachable: the loop has no end


_TRANSIENT = frozenset(
    {
        *CONFLICT_TYPES,
        ErrorType.TABLE_EXISTS,
        ErrorType.STORAGE_UNREACHABLE,
    }
)
"""Errors that may not recur at the next attempt."""


def _append_once(root: LedgerRoot, table: LedgerTable, rows: Rows) -> tuple[int, int]:
    from deltalake import Transaction, write_deltalake  # noqa: PLC0415 - heavy

    opened = root.open_or_create(table)
    fresh, transactions = rows(opened)
    if not transactions:
        return 0, opened.version()
    milliseconds = now_ns() // 1_000_000
    write_deltalake(
        opened,
        fresh,
        mode="append",
        schema_mode="merge",
        commit_properties=commit_properties(
            CacheOperation.WRITE,
            [Transaction(app_id, at, milliseconds) for app_id, at in transactions.items()],
        ),
    )
    return int(fresh.num_rows), opened.version()


def _oldest(rows: pa.Table) -> int:
    """Return the earliest start of the operations, in microseconds since the Unix epoch."""
    return int(pc.min(rows["event_time"].cast(pa.int64())).as_py() or 0)


def _without_reconciled(table: DeltaTable, rows: pa.Table) -> pa.Table:
    """Drop rows whose writes a reconcile has added to the inventory meanwhile."""
    # A day earlier: if the clock was set back meanwhile, the commit is dated before the start.
    since = pc.min(rows[PARTITION]).as_py() - timedelta(days=1)
    reconciled = query(
        table,
        f"SELECT write_id FROM ledger WHERE source = {quote_literal(Source.RECONCILED)}"
        f" AND {PARTITION} >= {quote_literal(since.isoformat())}",
    )["write_id"]
    return rows.filter(pc.invert(pc.is_in(rows["write_id"], value_set=reconciled.combine_chunks())))
