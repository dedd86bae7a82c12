"""Segments into the ledger's tables, each exactly once.

The mark of a spool is an application transaction: its id and the number of its last segment that
is in the table. It is committed with the rows themselves, read through the same handle that the rows are
then written through, and read again after every conflict. So a segment whose process dies, or whose
commit landed although the engine raised, is either in the table with its mark, or in neither.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from deltawitness.error_types import classify
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.ledger.drain.dedup import without_recorded
from deltawitness.ledger.spool.reader import (
    AbandonedSpool,
    SegmentContents,
    adopt_batches,
    read_segment,
)
from deltawitness.ledger.spool.supervisor import ProcessEnd
from deltawitness.ledger.tables.arrow import (
    operation_rows,
    query,
    quote_literal,
    rows_from,
    valid_rows,
)
from deltawitness.ledger.tables.run_rows import TALLIED, RunStatus, Tally, run_row
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
from deltawitness.ledger.tables.write_rows import as_json, row_of_provisional
from deltawitness.run import suppressed
from deltawitness.semconv import LATE_APP_ID, CacheOperation, ErrorType

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["GRACE", "Drain", "DrainResult", "append"]

T = TypeVar("T")
Row = dict[str, Any]
Rows = Callable[["DeltaTable"], "tuple[pa.Table, Mapping[str, int]]"]

ATTEMPTS = 12
"""How often an append is tried before its segments are left for the next drain."""

FIRST_WAIT = 0.02
LONGEST_WAIT = 5.0
"""Seconds between two attempts: up to the first, doubled each time, up to the longest; how much of it
is waited is left to chance, so that those who met do not meet again."""

GRACE = 60.0
"""Seconds after which an operation that is still on its way into the ledger may have been found in
the log by a reconcile: younger ones are left alone there, older ones are looked up here."""

COMMITS_PER_MAINTENANCE = 100
"""Commits to a table of the ledger after which whoever made the last one looks after it."""

BATCH_BYTES = 64 << 20
"""Bytes of segments that go into one commit."""


@dataclass(slots=True)
class DrainResult:
    """What a drain has carried into the ledger.

    Attributes:
        operations: rows of the inventory.
        runs: rows of the run summary.
        snapshots: rows of the snapshot registry.
        segments: segments that are done with.
        adopted: spools of dead processes among them.
        damaged: lines that could not be read.
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
    """What goes into the tables together."""

    told: list[SegmentContents] = field(default_factory=list)
    abandoned: list[SegmentContents] = field(default_factory=list)
    """The last segments of dead processes: the runs that they say are open never ended."""
    emptied: list[AbandonedSpool] = field(default_factory=list)
    """The spools of dead processes that hold nothing more than this."""


class Drain:
    """Carries segments into the tables of a ledger.

    Args:
        root: where the ledger lies.
        tail: versions of a table's log to look through for the commit of a note without a row.

    Attributes:
        due: tables that have had so many commits that they are worth maintaining.
    """

    def __init__(self, root: LedgerRoot, *, tail: int) -> None:
        self._root = root
        self._tail = tail
        self.due: list[LedgerTable] = []

    def drain_segments(self, paths: Sequence[Path]) -> DrainResult:
        """Drain sealed segments of a process that lives; their files are the caller's to delete.

        Raises:
            OSError: a segment or the ledger's storage cannot be read or written.
            DeltaError: a table of the ledger is damaged, or too many write to it.
        """
        done = DrainResult()
        for paths_of_batch in _batches(paths):
            done += self._write_batch(Batch([read_segment(path) for path in paths_of_batch]))
        return done

    def drain_spools(self, *spools: AbandonedSpool) -> DrainResult:
        """Drain the spools of dead processes, and delete them.

        Raises:
            OSError: a segment or the ledger's storage cannot be read or written.
            DeltaError: a table of the ledger is damaged, or too many write to it.
        """
        done = DrainResult()
        batch, size = Batch(), 0
        for spool in spools:
            open_runs: dict[str, Row] = {}
            end = ProcessEnd.read_from(spool.home)
            for path in spool.segments:
                if size >= BATCH_BYTES:
                    done += self._write_batch(batch)
                    batch, size = Batch(), 0
                told = read_segment(path)
                if end is not None:
                    told.process_end = end
                    told.runs = [end.row_with_exit(run) for run in told.runs]
                # Not the last one's alone: the process may have died before it had told them there.
                told.open_runs = open_runs = told.runs_open_after(open_runs)
                batch.told.append(told)
                size += path.stat().st_size
            batch.abandoned += batch.told[-1:] if spool.segments else []
            batch.emptied.append(spool)
        return done + self._write_batch(batch)

    def drain_abandoned(self, folder: Path, exclude: Path | None = None) -> DrainResult:
        """Drain the spools of all dead processes; one that cannot be drained stays and is told.

        Args:
            folder: where the spools of all processes lie.
            exclude: the one of this process.
        """
        done = DrainResult()
        for spools in adopt_batches(folder, exclude):
            try:
                done += self.drain_spools(*spools)
            except Exception:  # noqa: BLE001 - whose fault it is, is seen one by one
                done += self._drain_one_by_one(spools)
        return done

    def _drain_one_by_one(self, spools: Sequence[AbandonedSpool]) -> DrainResult:
        done = DrainResult()
        for spool in spools:
            if not spool.home.exists():
                continue  # one of those that were drained before the one that cannot be
            try:
                done += self.drain_spools(spool)
            except Exception as error:  # noqa: BLE001 - the others are drained all the same
                report("drain", error)
        return done

    def _write_batch(self, batch: Batch) -> DrainResult:
        with suppressed():
            operations = self._append_operations(batch.told)
            runs = self._append_runs(batch)
            snapshots = self._append_rows(
                SNAPSHOTS, [(told, told.snapshots) for told in batch.told if told.snapshots]
            )
        for spool in batch.emptied:
            spool.delete()
        return DrainResult(
            operations,
            runs,
            snapshots,
            segments=len(batch.told),
            adopted=len(batch.emptied),
            damaged=sum(told.damaged for told in batch.told),
        )

    # --- the inventory ---------------------------------------------------------------------------------

    def _append_operations(self, batch: Sequence[SegmentContents]) -> int:
        # Made once, before the loop: looking for the commit of a note may take a while.
        parts = [
            (told, _valid_rows(told, operation_rows, self._json_rows(told)))
            for told in batch
            if told.rows or told.notes
        ]
        if not parts:
            return 0
        oldest = min(map(_oldest, [rows for _, rows in parts if rows.num_rows]), default=0)

        def rows(table: DeltaTable) -> tuple[pa.Table, Mapping[str, int]]:
            fresh, marks = without_recorded(table, INVENTORY, parts)
            # Runs together, so that the statistics of a file tell which runs are in it.
            found = pa.concat_tables([_EMPTY, *fresh]).sort_by(
                [("run_id", "ascending"), ("event_time", "ascending")]
            )
            # Asked at each attempt, and with room for what the commit takes and for clocks.
            if found.num_rows and now_ns() // 1000 - oldest > GRACE * 1e6 / 2:
                found = _without_reconciled(table, found)
                marks = {**marks, LATE_APP_ID: (table.transaction_version(LATE_APP_ID) or 0) + 1}
            return found, marks

        return self._append(INVENTORY, rows)

    def _json_rows(self, told: SegmentContents) -> list[bytes]:
        completed = (as_json(row_of_provisional(note, self._tail)).encode() for note in told.notes)
        return [*(line.body for line in told.rows), *completed]

    # --- runs and snapshots -----------------------------------------------------------------------------

    def _append_runs(self, batch: Batch) -> int:
        ends = [(told, told.runs) for told in batch.told]
        ends += zip(batch.abandoned, self._abandoned(batch), strict=True)
        return self._append_rows(RUNS, ends)

    def _abandoned(self, batch: Batch) -> Iterator[list[Row]]:
        """Yield the rows of the runs that each of the last segments has left open."""
        left = [run for told in batch.abandoned for run in told.open_runs.values()]
        tallies: dict[_RunKey, Tally] = {}
        if left:
            ended = _last_ends(self._root.open_table(RUNS), left)
            for run in (run for told in batch.told for run in told.runs):
                ended[_run_key(run)] = max(run.get("end_time") or 0, ended.get(_run_key(run), 0))
            tallies = _tallies_of(self._root.open_table(INVENTORY), left, ended)
        at = now_ns() // 1000
        for told in batch.abandoned:
            rows = [
                run_row(run, tallies[_run_key(run)], status=RunStatus.ABANDONED, end_time=at)
                for run in told.open_runs.values()
            ]
            end = told.process_end
            yield rows if end is None else [end.row_with_exit(run) for run in rows]

    def _append_rows(
        self, table: LedgerTable, told: Sequence[tuple[SegmentContents, list[Row]]]
    ) -> int:
        parts = [
            (of, _valid_rows(of, partial(rows_from, table), rows)) for of, rows in told if rows
        ]
        if not parts:
            return 0

        def rows(opened: DeltaTable) -> tuple[pa.Table, Mapping[str, int]]:
            fresh, marks = without_recorded(opened, table, parts)
            return pa.concat_tables([table.schema.empty_table(), *fresh]), marks

        return self._append(table, rows)

    def _append(self, table: LedgerTable, rows: Rows) -> int:
        count, version = append(self._root, table, rows)
        if count and version % COMMITS_PER_MAINTENANCE == 0:
            self.due.append(table)
        return count


_EMPTY = INVENTORY.schema.empty_table()


def _valid_rows(
    told: SegmentContents, make: Callable[[Sequence[T]], pa.Table], rows: Sequence[T]
) -> pa.Table:
    found, bad = valid_rows(make, rows)
    told.damaged += bad
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


def append(root: LedgerRoot, table: LedgerTable, rows: Rows) -> tuple[int, int]:
    """Append rows to a table of the ledger exactly once.

    Args:
        root: where the ledger lies.
        table: which table.
        rows: returns the rows that are still to be appended to the table as it now is, and the
            marks (application id to version) to leave; no marks means that nothing is to be done.

    Returns:
        How many rows were appended, and the version of the table then.

    Raises:
        DeltaError: it failed, or others kept committing in between, as often as it was tried.
        OSError: the storage cannot be read or written.
    """
    for attempt in itertools.count(1):
        try:
            return _append_once(root, table, rows)
        except Exception as error:
            if attempt == ATTEMPTS or classify(error) not in _TRANSIENT:
                raise
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
        time.sleep(random.uniform(0, wait))  # noqa: S311 - nothing is encrypted
    raise AssertionError  # the loop ends by itself


_TRANSIENT = frozenset(
    {
        ErrorType.COMMIT_CONFLICT,
        ErrorType.CONCURRENT_TRANSACTION,
        ErrorType.TABLE_EXISTS,
        ErrorType.STORAGE_UNREACHABLE,
    }
)
"""Errors that may be gone at the next attempt."""


def _append_once(root: LedgerRoot, table: LedgerTable, rows: Rows) -> tuple[int, int]:
    from deltalake import Transaction, write_deltalake  # noqa: PLC0415 - heavy

    opened = root.open_or_create(table)
    fresh, marks = rows(opened)
    if not marks:
        return 0, opened.version()
    milliseconds = now_ns() // 1_000_000
    write_deltalake(
        opened,
        fresh,
        mode="append",
        schema_mode="merge",
        commit_properties=commit_properties(
            CacheOperation.WRITE,
            [Transaction(app_id, at, milliseconds) for app_id, at in marks.items()],
        ),
    )
    return int(fresh.num_rows), opened.version()


def _oldest(rows: pa.Table) -> int:
    """Return when the oldest operation began, in microseconds since the Unix epoch."""
    return int(pc.min(rows["event_time"].cast(pa.int64())).as_py() or 0)


def _without_reconciled(table: DeltaTable, rows: pa.Table) -> pa.Table:
    """Return the rows without those that a reconcile has found in the tables' logs meanwhile."""
    # A day earlier, since a clock that is set back between start and commit puts the commit before it.
    since = pc.min(rows[PARTITION]).as_py() - timedelta(days=1)
    known = query(
        table,
        f"SELECT write_id FROM ledger WHERE source = {quote_literal(Source.RECONCILED)}"
        f" AND {PARTITION} >= {quote_literal(since.isoformat())}",
    )["write_id"]
    return rows.filter(pc.invert(pc.is_in(rows["write_id"], value_set=known.combine_chunks())))


_RunKey = tuple[object, object, object]


def _run_key(row: Row) -> _RunKey:
    """Return what the operations that one process has made in one run have in common."""
    return row["run_id"], row["host"], row["pid"]


def _rows_of_runs(table: DeltaTable | None, columns: str, started: Sequence[Row]) -> list[Row]:
    """Return what a table of the ledger has of some runs."""
    if table is None:
        return []
    first = min(run["start_time"] for run in started)
    since = datetime.fromtimestamp(first / 1e6, tz=UTC).date()
    names = ", ".join(quote_literal(name) for name in {run["run_id"] for run in started})
    rows: list[Row] = query(
        table,
        f"SELECT run_id, host, pid, {columns} FROM ledger WHERE run_id IN ({names})"
        f" AND {PARTITION} >= {quote_literal(since.isoformat())}",
    ).to_pylist()
    return rows


def _last_ends(table: DeltaTable | None, started: Sequence[Row]) -> dict[_RunKey, int]:
    """Return when each run was last told to have ended in the same process, in microseconds."""
    ends: dict[_RunKey, int] = {}
    for row in _rows_of_runs(table, "end_time", started):
        ends[_run_key(row)] = max(_microseconds(row["end_time"]), ends.get(_run_key(row), 0))
    return ends


def _tallies_of(
    table: DeltaTable | None, started: Sequence[Row], ended: Mapping[_RunKey, int]
) -> dict[_RunKey, Tally]:
    """Return what the operations of each run add up to that the process has made and not told so far.

    Args:
        table: the inventory.
        started: the runs.
        ended: when they were told to have ended: a thread may have gone on after that.
    """
    tallies = {_run_key(run): Tally() for run in started}
    columns = f"event_time, duration_ms, {', '.join(TALLIED)}"
    for row in _rows_of_runs(table, columns, started):
        tally = tallies.get(_run_key(row))
        end = _microseconds(row["event_time"]) + (row["duration_ms"] or 0.0) * 1000
        if tally is not None and end >= ended.get(_run_key(row), 0):
            tally.add(row)
    return tallies


def _microseconds(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.timestamp() * 1e6)
