"""Results of the questions about the health of a lakehouse."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from deltawitness.answers.rows import TableVersion
from deltawitness.html_display import HtmlDisplay

__all__ = [
    "EmptyRun",
    "OverdueResult",
    "Regression",
    "RegressionKind",
    "RegressionResult",
    "TableCadence",
    "TableState",
    "UnusualVolume",
]


class TableState(StrEnum):
    """Whether a table was written as often as in its past."""

    FRESH = "fresh"
    """The next write is not due yet."""
    LATE = "late"
    """The next write is later than the past explains."""
    STOPPED = "stopped"
    """Late by more than 30 intervals and more than 30 days: nothing seems to write it any more."""
    UNKNOWN = "unknown"
    """There are not enough changes to know how often it is written, or one run that ended made all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCadence:
    """How often rows of a table change.

    Attributes:
        table: the table, and the version of the last change.
        state: whether the next change is late.
        last: time of the last change.
        job: name of the job that made it.
        run_id: id of the run that made it.
        changes: number of changes that were learned from; those of a run that was a batch count as one.
        interval_seconds: the median seconds between two changes; None if there are too few.
        due: the time until which the next change is not late; None if there are too few.
    """

    table: TableVersion
    state: TableState
    last: datetime
    job: str | None
    run_id: str | None
    changes: int
    interval_seconds: float | None = None
    due: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusualVolume:
    """A run that changed many more or fewer rows of a table than its job did before.

    Attributes:
        table: the table, and the last version of the run.
        job: name of the job.
        run_id: id of the run.
        time: time of its last write.
        rows: number of added, updated and deleted rows.
        typical: the median of the job's earlier runs that wrote the table.
        low: the least number of rows that is not unusual.
        high: the greatest number of rows that is not unusual.
        history: number of these earlier runs.
    """

    table: TableVersion
    job: str | None
    run_id: str | None
    time: datetime
    rows: int
    typical: float
    low: float
    high: float
    history: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyRun:
    """A run that ended with the status `ok` and changed no row, although its job does in most runs.

    Attributes:
        job: name of the job.
        run_id: id of the run.
        start_time: when it began.
        typical: the median number of changed rows of earlier runs.
        history: number of these earlier runs.
        wrote: how many of them changed rows.
    """

    job: str
    run_id: str
    start_time: datetime
    typical: float
    history: int
    wrote: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OverdueResult(HtmlDisplay):
    """What is late, empty or far from its own past.

    Attributes:
        at: the time for which the question was answered.
        tables: every table with its state, late ones first.
        volumes: unusual numbers of rows, newest first.
        empty_runs: runs that changed nothing, newest first.
    """

    at: datetime
    tables: tuple[TableCadence, ...]
    volumes: tuple[UnusualVolume, ...]
    empty_runs: tuple[EmptyRun, ...]

    @property
    def late(self) -> tuple[TableCadence, ...]:
        """The tables whose next write is late."""
        return tuple(each for each in self.tables if each.state is TableState.LATE)

    @property
    def is_ok(self) -> bool:
        """Whether nothing is late, empty or unusual."""
        return not (self.late or self.volumes or self.empty_runs)


class RegressionKind(StrEnum):
    """How a job is worse than before."""

    BROKEN = "broken"
    """Its last runs failed, and earlier ones did not."""
    FLAKY = "flaky"
    """It has failed and recovered at least twice in its last 20 runs."""
    SLOWER = "slower"
    """Its last run took more than twice the median time."""
    SMALLER = "smaller"
    """Its last run changed less than half of the median number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """A job that is worse than before.

    Attributes:
        kind: how it is worse.
        job: name of the job.
        run_id: id of the last run.
        time: when this run began; for a broken job, the first run that failed.
        value: number of failed runs, seconds, or rows, by the kind.
        typical: the median of the earlier runs that ended with `ok`: seconds or rows; for a broken
            or flaky job, the number of runs that `value` is a part of.
        history: number of the runs that were learned from.
        error_type: class of the error of the last run that failed.
        good_run_id: id of the last earlier run that ended with `ok`.
        code_version: commit or version of the program in the last run.
        good_code_version: commit or version of the program in the good run.
    """

    kind: RegressionKind
    job: str
    run_id: str
    time: datetime
    value: float
    typical: float
    history: int
    error_type: str | None = None
    good_run_id: str | None = None
    code_version: str | None = None
    good_code_version: str | None = None

    @property
    def has_new_code(self) -> bool:
        """Whether the program is known to have changed since the good run."""
        versions = {self.code_version, self.good_code_version}
        return None not in versions and len(versions) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionResult(HtmlDisplay):
    """The jobs that are worse than before.

    Attributes:
        at: the time for which the question was answered.
        jobs: number of jobs that were judged.
        regressions: broken jobs first, then by job.
    """

    at: datetime
    jobs: int
    regressions: tuple[Regression, ...]

    @property
    def is_ok(self) -> bool:
        """Whether no job is worse than before."""
        return not self.regressions

    def of_kind(self, *kinds: RegressionKind) -> tuple[Regression, ...]:
        """Return the regressions of some kinds."""
        return tuple(each for each in self.regressions if each.kind in kinds)
