"""Random histories of a small lakehouse, with the truth about each commit and each failure.

`build_history` writes real tables under observation, with several runs and jobs, failures, conflicts, writes that
nothing observes, and all common operations. A model in plain Python tracks the rows, so the
truth does not come from the code under test.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, RunContext, Settings, run, suppressed
from helpers.sql_operations import insert_select, overwrite_with_frame

CHECKPOINTS = 10
"""The interval of checkpoints in commits. A blocked checkpoint makes a write fail after its commit."""

AUTHOR = "team-lake"

MANY_ROWS = 2_000
"""Queries of more rows are skipped, because tables that read each other would grow without a limit."""

SCHEMA = pa.schema([("id", pa.int64()), ("value", pa.int64())])

Rows = dict[int, int]
"""The rows of a table: the values of the column `value` by those of the column `id`."""


@dataclass(frozen=True, slots=True)
class CommitTruth:
    """One commit.

    Attributes:
        table: name of the table.
        version: the version.
        operation: the operation, as the log spells it.
        mode: save mode of a WRITE.
        predicate: the predicate, if the operation has one.
        run: the run; None for a write that was not observed.
        message: the message of the write.
        rows_added: number of added rows; None if the log does not say.
        rows_updated: number of updated rows; None if the log does not say.
        rows_deleted: number of deleted rows; None if the log does not say.
        retries: number of commit attempts after the first; None if the log does not say.
        has_failed: whether the write raised after its commit.
        inputs: name and version of each table that it was made from: the restored version of a RESTORE,
            those that its query has read, else those that its run had read before.
        has_plan: whether the rows came from a query plan.
        rows: the rows of the table after the commit.
        restored: the version that a RESTORE has restored.
    """

    table: str
    version: int
    operation: str
    run: RunContext | None
    rows: Rows
    mode: str | None = None
    predicate: str | None = None
    message: str | None = None
    rows_added: int | None = None
    rows_updated: int | None = None
    rows_deleted: int | None = None
    retries: int | None = None
    has_failed: bool = False
    inputs: tuple[tuple[str, int], ...] = ()
    has_plan: bool = False
    restored: int | None = None

    @property
    def is_observed(self) -> bool:
        """Whether the write was observed."""
        return self.run is not None


@dataclass(frozen=True, slots=True)
class FailureTruth:
    """One operation that raised.

    Attributes:
        table: name of the table.
        operation: the operation.
        run: the run.
        error_type: type of the error.
        landed: whether the commit is in the log.
        version: the version of the commit, if it is.
    """

    table: str
    operation: str
    run: RunContext
    error_type: str
    landed: str
    version: int | None = None


@dataclass(slots=True)
class History:
    """What has happened.

    Attributes:
        lake: folder of the tables.
        root: the cache root of the ledger.
        commits: the commits, in order of time.
        failures: the failures, in order of time.
        runs: the runs that have written or failed, in order of their starts.
    """

    lake: Path
    root: str
    commits: list[CommitTruth] = field(default_factory=list)
    failures: list[FailureTruth] = field(default_factory=list)
    runs: list[RunContext] = field(default_factory=list)

    def uri(self, table: str) -> str:
        """Return the path of a table."""
        return str(self.lake / table)

    def of(self, table: str) -> list[CommitTruth]:
        """Return the commits of a table, by version."""
        return sorted((each for each in self.commits if each.table == table), key=_version)

    @property
    def tables(self) -> list[str]:
        """The names of the tables."""
        return list(dict.fromkeys(commit.table for commit in self.commits))


def _version(commit: CommitTruth) -> int:
    return commit.version


SHORTER_AFTER = 10
"""The last seed whose history has all of its runs: a hundred histories have to end in an hour."""


def build_history(
    folder: Path, seed: int, *, tables: int = 3, runs: int = 6, operations: int = 6
) -> History:
    """Write a random history, and return the truth about it.

    Args:
        folder: an empty folder for the tables and the ledger.
        seed: the same seed gives the same operations.
        tables: number of tables.
        runs: number of runs; some are opened inside another one. From seed 11 on, a history has half of them.
        operations: number of operations of each run.
    """
    history = History(folder / "lake", str(folder / "ledger"))
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=history.root, author=AUTHOR))
    try:
        writer = _Writer(history, random.Random(seed), [f"table_{n}" for n in range(tables)])
        for number in range(runs if seed <= SHORTER_AFTER else (runs + 1) // 2):
            writer.run(number, operations)
    finally:
        DeltaLakeInstrumentor().uninstrument()
    return history


class _Writer:
    """Makes random operations, and records the truth about them.

    Args:
        history: receives the truth.
        source: the source of randomness.
        names: names of the tables.
    """

    def __init__(self, history: History, source: random.Random, names: list[str]) -> None:
        self.history, self.source, self.names = history, source, names
        self.next_id = 0
        self.reads: dict[str, dict[str, int]] = {}
        self.current: RunContext | None = None

    def run(self, number: int, operations: int) -> None:
        """Make the operations of one run, some of them in an inner run."""
        source = self.source
        message = f"reason {number}" if source.random() < 0.7 else None
        with run(f"job_{number % 4}", message=message) as opened:
            self._enter(opened)
            for _ in range(operations):
                if source.random() < 0.15:
                    with run("inner") as inner:
                        self._enter(inner)
                        self.operation()
                    self.current = opened
                else:
                    self.operation()

    def _enter(self, opened: RunContext) -> None:
        self.current = opened
        self.history.runs.append(opened)

    def operation(self) -> None:
        """Make one operation on one table."""
        table = self.source.choice(self.names)
        if not self.history.of(table):
            self.create(table)
            return
        choices: list[tuple[int, Callable[[str], None]]] = [
            (6, self.append),
            (2, self.overwrite),
            (3, self.delete),
            (3, self.update),
            (3, self.merge),
            (2, self.optimize),
            (1, self.restore),
            (2, self.append_unobserved),
            (2, self.append_after_another),
            (2, self.copy),
            (2, self.insert_select),
            (2, self.overwrite_with_frame),
            (3, self.fail),
        ]
        weights = [weight for weight, _ in choices]
        self.source.choices([each for _, each in choices], weights)[0](table)

    # --- what the operations have in common ------------------------------------------------------------

    def rows(self, table: str) -> Rows:
        """Return a copy of the present rows of a table."""
        return dict(self.history.of(table)[-1].rows)

    def fresh(self) -> Rows:
        """Return new rows."""
        first, self.next_id = self.next_id, self.next_id + self.source.randint(1, 5)
        return {number: self.source.randrange(100) for number in range(first, self.next_id)}

    def record(
        self, table: str, operation: str, rows: Rows, *, is_last: bool = True, **more: Any
    ) -> None:
        """Record a commit of the current run; one that is not the last of its log is not checked."""
        assert self.current is not None
        known = {"run": self.current, "message": self.current.message, **more}
        if known["run"] is not None:
            reads = self.reads.get(self.current.run_id, {})
            known.setdefault("inputs", tuple(reads.items()))
        version = len(self.history.of(table))
        self.history.commits.append(CommitTruth(table, version, operation, rows=rows, **known))
        if is_last:
            log = Path(self.history.uri(table), "_delta_log")
            assert len(list(log.glob("*.json"))) == version + 1, (table, operation)

    def remember_read(self, *reads: tuple[str, int]) -> None:
        """Remember that the current run has read versions of tables."""
        assert self.current is not None
        self.reads.setdefault(self.current.run_id, {}).update(reads)

    def write(self, table: str, rows: Rows, **more: Any) -> None:
        """Write rows with delta-rs."""
        write_deltalake(self.history.uri(table), _data(rows), **more)

    # --- operations ------------------------------------------------------------------------------------

    def create(self, table: str) -> None:
        rows = self.fresh()
        self.write(table, rows, configuration={"delta.checkpointInterval": str(CHECKPOINTS)})
        self.record(table, "WRITE", rows, rows_added=len(rows), mode="error", retries=0)

    def append(self, table: str) -> None:
        fresh, version = self.fresh(), len(self.history.of(table))
        has_failed = (version + 1) % CHECKPOINTS == 0 and self.source.random() < 0.5
        if has_failed:
            blocked = f"{self.history.uri(table)}/_delta_log/{version:020d}.checkpoint.parquet"
            os.makedirs(blocked)
            with suppress(Exception):
                self.write(table, fresh, mode="append")
            self.failed(table, "WRITE", None, "yes", version)
        else:
            self.write(table, fresh, mode="append")
        more = {"mode": "append", "rows_added": len(fresh), "rows_deleted": 0, "retries": 0}
        self.record(table, "WRITE", {**self.rows(table), **fresh}, has_failed=has_failed, **more)

    def overwrite(self, table: str) -> None:
        fresh = self.fresh()
        self.write(table, fresh, mode="overwrite")
        self.record(table, "WRITE", fresh, mode="overwrite", rows_added=len(fresh), retries=0)

    def delete(self, table: str) -> None:
        rows = self.rows(table)
        if not rows:
            return
        bound = self.source.choice(sorted(rows))
        predicate = f"id <= {bound}"
        DeltaTable(self.history.uri(table)).delete(predicate)
        left = {key: value for key, value in rows.items() if key > bound}
        gone = len(rows) - len(left)
        self.record(table, "DELETE", left, predicate=predicate, rows_deleted=gone, rows_added=0)

    def update(self, table: str) -> None:
        rows = self.rows(table)
        if not rows:
            return
        bound = self.source.choice(sorted(rows))
        predicate = f"id >= {bound}"
        DeltaTable(self.history.uri(table)).update({"value": "value + 1"}, predicate=predicate)
        after = {key: value + (key >= bound) for key, value in rows.items()}
        changed = sum(key >= bound for key in rows)
        self.record(table, "UPDATE", after, predicate=predicate, rows_updated=changed, rows_added=0)

    def merge(self, table: str) -> None:
        rows, fresh = self.rows(table), self.fresh()
        known = dict.fromkeys(self.source.sample(sorted(rows), min(2, len(rows))), -1)
        handle = DeltaTable(self.history.uri(table))
        (
            handle.merge(_data({**known, **fresh}), "s.id = t.id", "s", "t")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute()
        )
        after = {**rows, **known, **fresh}
        self.record(
            table, "MERGE", after, rows_added=len(fresh), rows_updated=len(known), rows_deleted=0
        )

    def optimize(self, table: str) -> None:
        handle = DeltaTable(self.history.uri(table))
        handle.optimize.compact()
        if handle.version() == len(self.history.of(table)):
            rows = self.rows(table)
            self.record(table, "OPTIMIZE", rows, rows_added=0, rows_updated=0, rows_deleted=0)

    def restore(self, table: str) -> None:
        target = self.source.choice(self.history.of(table)[:-1] or [None])
        if target is None:
            return
        handle = DeltaTable(self.history.uri(table))
        handle.restore(target.version)
        self.record(
            table,
            "RESTORE",
            dict(target.rows),
            restored=target.version,
            inputs=((table, target.version),),
        )

    def append_unobserved(self, table: str) -> None:
        fresh = self.fresh()
        with suppressed():
            self.write(table, fresh, mode="append")
        rows = {**self.rows(table), **fresh}
        more = {"mode": "append", "rows_added": len(fresh)}
        self.record(table, "WRITE", rows, run=None, message=None, **more)

    def append_after_another(self, table: str) -> None:
        """Append rows while another writer, which is not observed, commits; the append gets the next version."""
        place, other, fresh = self.history.uri(table), self.fresh(), self.fresh()
        version = len(self.history.of(table))
        if any((version + more) % CHECKPOINTS == 0 for more in (1, 2)):
            return  # such a write may also write a checkpoint

        def commit_other() -> None:
            with suppressed():
                write_deltalake(place, _data(other), mode="append")

        def batches() -> Iterator[pa.RecordBatch]:
            thread = threading.Thread(
                target=commit_other
            )  # delta-rs refuses calls on its own threads
            thread.start()
            thread.join()
            yield from _data(fresh).to_batches()

        reader = pa.RecordBatchReader.from_batches(SCHEMA, batches())
        write_deltalake(DeltaTable(place), reader, mode="append")
        more: dict[str, Any] = {"mode": "append", "rows_added": len(other)}
        rows = {**self.rows(table), **other}
        self.record(table, "WRITE", rows, run=None, message=None, is_last=False, **more)
        more = {"mode": "append", "rows_added": len(fresh), "rows_deleted": 0}
        self.record(table, "WRITE", {**rows, **fresh}, **more)

    def copy(self, table: str) -> None:
        """Append rows that were read from another table."""
        others = [name for name in self.names if name != table and self.history.of(name)]
        if not others:
            return
        other = self.source.choice(others)
        read = DeltaTable(self.history.uri(other)).to_pyarrow_table().num_rows
        self.remember_read((other, len(self.history.of(other)) - 1))
        fresh = dict.fromkeys(self.fresh(), read)
        self.write(table, fresh, mode="append")
        rows = {**self.rows(table), **fresh}
        self.record(table, "WRITE", rows, mode="append", rows_added=len(fresh), rows_deleted=0)

    def queried(self) -> tuple[dict[str, int], Rows, dict[str, Any]]:
        """Return the tables of a query with what it adds to ids, its rows, and the truth about a write of them."""
        there = [name for name in self.names if self.history.of(name)]
        names = self.source.sample(there, min(self.source.randint(1, 2), len(there)))
        added, rows = {}, {}
        for name in names:
            added[name] = self.next_id  # all ids so far are lower
            self.next_id *= 2
            rows |= {key + added[name]: value for key, value in self.rows(name).items()}
        inputs = tuple((name, len(self.history.of(name)) - 1) for name in names)
        return added, rows, {"inputs": inputs, "has_plan": True, "rows_added": len(rows)}

    def insert_select(self, table: str) -> None:
        added, fresh, more = self.queried()
        if 0 < len(fresh) < MANY_ROWS:
            insert_select(self.history.lake, table, added)
            self.record(table, "WRITE", {**self.rows(table), **fresh}, mode="append", **more)

    def overwrite_with_frame(self, table: str) -> None:
        added, fresh, more = self.queried()
        if 0 < len(fresh) < MANY_ROWS:
            overwrite_with_frame(self.history.lake, table, added)
            self.record(table, "WRITE", fresh, mode="overwrite", **more)
            self.remember_read(*more["inputs"])  # delta-rs has read the frame

    # --- failures --------------------------------------------------------------------------------------

    def fail(self, table: str) -> None:
        """Make an operation that fails before its commit."""
        place, kind = self.history.uri(table), self.source.randrange(3)
        with suppress(Exception):
            if kind == 0:
                self.write(table, self.fresh())
            elif kind == 1:
                write_deltalake(place, pa.table({"other": ["x"]}), mode="append")
            else:
                DeltaTable(place).delete("nothing = 1")
        operation = "DELETE" if kind == 2 else "WRITE"
        self.failed(table, operation, ("table_exists", None, None)[kind], "no")

    def failed(
        self,
        table: str,
        operation: str,
        error_type: str | None,
        landed: str,
        version: int | None = None,
    ) -> None:
        """Record a failure of the current run; the type of the error is None if it is not checked."""
        assert self.current is not None
        failure = FailureTruth(table, operation, self.current, error_type or "", landed, version)
        self.history.failures.append(failure)


def _data(rows: Rows) -> pa.Table:
    columns = {"id": list(rows), "value": list(rows.values())}
    return pa.table(columns, schema=SCHEMA)
