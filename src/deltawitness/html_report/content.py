"""What the report shows, as values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

from deltawitness.answers.rows import RunRow, WriteRow
from deltawitness.answers.trends.values import OverdueResult, RegressionResult

__all__ = [
    "CacheCount",
    "ColumnPair",
    "EdgeColumns",
    "ErrorCount",
    "FailedRun",
    "GraphEdge",
    "InputEdge",
    "LaneCount",
    "ReportContent",
    "ReportScope",
    "RunTable",
    "TableCount",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportScope:
    """Which operations and runs the report is about; None selects all.

    Attributes:
        run_id: id of a run; its child runs belong to it.
        family: ids of the run and of its child runs.
        job: name of a job.
        since: time before which operations and runs are left out.
    """

    run_id: str | None = None
    family: tuple[str, ...] = ()
    job: str | None = None
    since: dt.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCount:
    """The sums of the operations of a table.

    Attributes:
        place: location of the table, else its id.
        name: its name.
        operations: number of operations.
        writes: number of those that committed.
        errors: number of those that failed.
        first_version: the first version that was committed.
        last_version: the last version that was committed.
        rows_added: number of added rows.
        rows_updated: number of updated rows.
        rows_deleted: number of deleted rows.
        files_added: number of added files.
        bytes_added: bytes of added files.
        retries: number of commit attempts after the first ones.
        duration_ms: milliseconds of all operations.
        last_time: time of the last operation.
    """

    place: str
    name: str
    operations: int
    writes: int
    errors: int
    first_version: int | None
    last_version: int | None
    rows_added: int
    rows_updated: int
    rows_deleted: int
    files_added: int
    bytes_added: int
    retries: int
    duration_ms: float
    last_time: dt.datetime


@dataclass(frozen=True, slots=True)
class LaneCount:
    """The number of operations of a table with one result in a part of the time.

    Attributes:
        place: location of the table, else its id.
        part: number of the part, from 0.
        result: the result.
        count: number of operations.
    """

    place: str
    part: int
    result: str
    count: int


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """The number of failed operations of one type.

    Attributes:
        error_type: the type of the error.
        landed: whether the commits are in the logs of the tables.
        count: number of operations.
        last_time: time of the last one.
        message: message of the last one.
    """

    error_type: str | None
    landed: str | None
    count: int
    last_time: dt.datetime
    message: str | None


@dataclass(frozen=True, slots=True)
class CacheCount:
    """The number of reads of the cache with one result.

    Attributes:
        policy: name of the policy.
        result: `hit` or `miss`.
        reason: why it was a miss.
        count: number of reads.
        duration_ms: milliseconds of all of them.
    """

    policy: str | None
    result: str
    reason: str | None
    count: int
    duration_ms: float


@dataclass(frozen=True, slots=True)
class ColumnPair:
    """How a write has used a column of a table that it has read.

    Attributes:
        target: the column that was written; None if `source` decided which rows were written.
        source: the column that was read.
        use: how it was used, such as `identity` or `filter` (:class:`deltawitness.ColumnUse`).
    """

    target: str | None
    source: str
    use: str


@dataclass(frozen=True, slots=True)
class EdgeColumns:
    """Which columns of a table were made from which columns of another one.

    Attributes:
        pairs: the columns.
        left_out: number of pairs that the report does not have.
        reason: why the columns are not known; None if they are.
    """

    pairs: tuple[ColumnPair, ...] = ()
    left_out: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """An edge of a drawing: a table was made from another one.

    Attributes:
        source: location of the table that was read, else its id.
        source_version: the version that was read.
        target: location of the table that was written, else its id.
        target_version: the version that was committed.
        is_inferred: whether the write had no plan, and its run had read the source before.
    """

    source: str
    source_version: int | None
    target: str
    target_version: int | None
    is_inferred: bool


@dataclass(frozen=True, slots=True)
class InputEdge(GraphEdge):
    """The edge of all writes that made a table from another one; the versions are those of the last write.

    Attributes:
        count: number of writes.
        write_id: id of the last write.
        time: when it began.
        columns: the columns that it has read and written.
    """

    count: int
    write_id: str | None
    time: dt.datetime
    columns: EdgeColumns = EdgeColumns()


@dataclass(frozen=True, slots=True)
class RunTable:
    """The commits of a run to a table.

    Attributes:
        place: location of the table, else its id.
        name: its name.
        first_version: the first version that the run committed; None if it committed none.
        last_version: the last one.
    """

    place: str
    name: str
    first_version: int | None
    last_version: int | None


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that failed, with what it did.

    Attributes:
        run: the run.
        operations: its newest failed operations.
        tables: the tables that it committed to, or tried to.
    """

    run: RunRow
    operations: tuple[WriteRow, ...]
    tables: tuple[RunTable, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """Everything that the report shows.

    Attributes:
        at: when the report was made.
        scope: which operations and runs it is about.
        root: location of the ledger, without credentials.
        results: number of operations by result.
        first_time: time of the first operation.
        last_time: when the last operation ended, or began if that is later.
        statuses: number of runs by status.
        dropped: number of events that the runs could not record.
        runs: the newest runs, and the newest failed ones.
        failures: the newest failed runs, with the tables that they wrote.
        regressions: jobs that are worse than before; None if no run has finished.
        overdue: tables that are late, and unusual runs.
        tables: the sums by table, those with errors first.
        lanes: counts of the timeline; empty if there are few enough operations to show each.
        parts: number of parts of the time that `lanes` uses.
        ghosts: operations of the previous run of the job, if the report is about one run.
        ghost_start: when this run began.
        errors: the failed operations by type.
        cache: reads of the cache by policy and reason.
        saved_seconds: estimate of the seconds that hits have saved; None if no miss was timed.
        edges: which table was made from which.
        events: the newest operations and the newest failed ones, newest first.
        conflicts: the newest operations that have collided with others.
        rivals: the commits that these have collided with, by the id of the operation.
    """

    at: dt.datetime
    scope: ReportScope
    root: str
    results: dict[str, int]
    first_time: dt.datetime | None
    last_time: dt.datetime | None
    statuses: dict[str, int]
    dropped: int
    runs: Sequence[RunRow]
    failures: Sequence[FailedRun]
    regressions: RegressionResult | None
    overdue: OverdueResult
    tables: Sequence[TableCount]
    lanes: Sequence[LaneCount]
    parts: int
    ghosts: Sequence[WriteRow] = ()
    ghost_start: dt.datetime | None = None
    errors: Sequence[ErrorCount] = ()
    cache: Sequence[CacheCount] = ()
    saved_seconds: float | None = None
    edges: Sequence[InputEdge] = ()
    events: Sequence[WriteRow] = ()
    conflicts: Sequence[WriteRow] = ()
    rivals: dict[str, tuple[WriteRow, ...]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of operations, of which `events` may have only a part."""
        return sum(self.results.values())

    @property
    def left_out(self) -> int:
        """The number of operations that are only in the sums."""
        return self.total - len(self.events)

    @property
    def failed(self) -> int:
        """The number of failed operations."""
        return self.results.get("error", 0)

    @property
    def names(self) -> dict[str, str]:
        """The names of the tables by their places."""
        return {table.place: table.name for table in self.tables}
