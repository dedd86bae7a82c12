"""The result of `bisect`: the first bad version of a table, and of the inputs that show the cause."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from deltawitness.answers.diff.table_values import DiffOperation
from deltawitness.answers.rows import TableVersion
from deltawitness.answers.shown_commit import ShownCommit

__all__ = ["BisectInput", "BisectResult", "BisectState", "TestedVersion"]


class BisectState(StrEnum):
    """What `bisect` has found."""

    FOUND = "found"
    """The version before the first bad version is good, or the first bad version is version 0."""
    RANGE = "range"
    """As `found`, but the versions between the last good and the first bad one cannot be tested."""
    ALWAYS = "always"
    """The oldest version that can be tested is already bad."""
    NEVER = "never"
    """No tested version is bad."""


@dataclass(frozen=True, slots=True)
class TestedVersion:
    """A version that was tested.

    Attributes:
        version: the version.
        is_bad: whether the condition is true; None if the version cannot be tested.
        reason: why it cannot be tested.
    """

    __test__ = False  # it is no test class of pytest

    version: int
    is_bad: bool | None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectResult:
    """The first bad version of a table.

    Attributes:
        table: the table and its first bad version; the version is None if none is bad.
        state: what was found.
        last_good: the last good version before it; None if there is none.
        is_monotone: True if every version that can be tested is good before the first bad version and bad
            from then on; False if a later version is good again; None if not all versions were tested and
            the tested ones do not contradict.
        tested: the tested versions, in order.
        versions: number of versions that the log has in the searched range.
        commit: the commit of the first bad version.
        good_commit: the commit of the last good version.
        candidates: the commits of which one is the first bad one, if `state` is `range`.
        inputs: the inputs of this commit.
    """

    table: TableVersion
    state: BisectState
    last_good: int | None = None
    is_monotone: bool | None = None
    tested: tuple[TestedVersion, ...] = ()
    versions: int = 0
    commit: ShownCommit | None = None
    good_commit: ShownCommit | None = None
    candidates: tuple[DiffOperation, ...] = ()
    inputs: tuple[BisectInput, ...] = ()

    @property
    def is_found(self) -> bool:
        """Whether there is a change from good to bad."""
        return self.state in {BisectState.FOUND, BisectState.RANGE}

    @property
    def skipped(self) -> tuple[TestedVersion, ...]:
        """The versions that cannot be tested."""
        return tuple(each for each in self.tested if each.is_bad is None)

    @property
    def good_again(self) -> tuple[int, ...]:
        """Tested versions after the first bad one that are good."""
        first = self.table.version
        return tuple(
            each.version
            for each in self.tested
            if first is not None and each.version > first and each.is_bad is False
        )

    @property
    def comparable_runs(self) -> tuple[str, str] | None:
        """The runs of one job that wrote the last good and the first bad version, if they are such runs."""
        good, bad = self.good_commit, self.commit
        if good is None or bad is None or good.run_id is None or bad.run_id is None:
            return None
        is_one_job = good.job == bad.job and good.run_id != bad.run_id
        return (good.run_id, bad.run_id) if is_one_job else None

    @property
    def causes(self) -> tuple[BisectResult, ...]:
        """The results to which the inputs lead, each the deepest one; this one if no input shows the cause."""
        deeper = [each.cause for each in self.inputs if each.cause is not None]
        return tuple(cause for each in deeper for cause in each.causes) or (self,)


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectInput:
    """An input of the first bad version.

    Attributes:
        table: the table and the version that was read.
        previous: the version that the last write before, up to the last good version, had read; None if
            it is not known or the input is new.
        is_inferred: whether the run is only known to have read it before.
        is_bad: whether the condition is true for the version that was read; None if it cannot be tested.
        reason: why it cannot be tested, or why it was not followed.
        cause: the first bad version of the input, if the input shows the cause.
    """

    table: TableVersion
    previous: int | None
    is_inferred: bool
    is_bad: bool | None
    reason: str | None = None
    cause: BisectResult | None = None

    @property
    def is_changed(self) -> bool:
        """Whether another version was read before, or none."""
        return self.previous != self.table.version
