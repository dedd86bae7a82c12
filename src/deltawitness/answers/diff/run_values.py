"""The value of a comparison of two runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from deltawitness.answers.rows import RunRow, TableVersion
from deltawitness.html_display import HtmlDisplay

__all__ = ["DiffCause", "RunDiff", "RunDifference", "RunTable", "RunTableDiff"]


class DiffCause(StrEnum):
    """What differs between two runs, in the order in which it explains other results."""

    INPUTS = "inputs"
    PLAN = "plan"
    CODE = "code"
    ENVIRONMENT = "environment"
    RESULT = "result"
    DURATION = "duration"


@dataclass(frozen=True, slots=True)
class RunDifference:
    """One difference between two runs.

    Attributes:
        cause: its kind.
        what: what differs, such as the name of an input or a column of the run's row.
        a: its value in the first run; None if it has none.
        b: its value in the second run; None if it has none.
    """

    cause: DiffCause
    what: str
    a: str | None
    b: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTable:
    """What a run and its child runs did with a table.

    Attributes:
        versions: the versions that they committed.
        operations: the operations in order, with save mode; failures end with the type of the error.
        inputs: the tables that the operations were made from, at the versions that were read.
        plan_shape_hashes: hashes of the plans without their literals, in order.
        plan_hashes: hashes of the complete plans, in order.
        rows_added: number of added rows.
        rows_updated: number of updated rows.
        rows_deleted: number of deleted rows.
        duration_ms: milliseconds that the engine's calls took.
    """

    versions: tuple[int, ...] = ()
    operations: tuple[str, ...] = ()
    inputs: tuple[TableVersion, ...] = ()
    plan_shape_hashes: tuple[str, ...] = ()
    plan_hashes: tuple[str, ...] = ()
    rows_added: int = 0
    rows_updated: int = 0
    rows_deleted: int = 0
    duration_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class RunTableDiff:
    """A table in two runs.

    Attributes:
        name: name of the table.
        uri: location of the table.
        a: what the first run did with it; None if nothing.
        b: what the second run did with it; None if nothing.
    """

    name: str
    uri: str | None
    a: RunTable | None
    b: RunTable | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDiff(HtmlDisplay):
    """What differs between two runs.

    Attributes:
        a: the first run.
        b: the second run.
        tables: the tables of both runs, in the order of their first operations.
        differences: the differences, those that explain most first: inputs, plan, code, environment, result,
            duration.
    """

    a: RunRow
    b: RunRow
    tables: tuple[RunTableDiff, ...]
    differences: tuple[RunDifference, ...]

    @property
    def is_different(self) -> bool:
        """Whether anything but durations differs."""
        return any(each.cause is not DiffCause.DURATION for each in self.differences)

    @property
    def causes(self) -> tuple[DiffCause, ...]:
        """The kinds of the differences, each once, in order."""
        return tuple(dict.fromkeys(each.cause for each in self.differences))

    @property
    def explanation(self) -> str:
        """One sentence that says what explains the differences most likely."""
        causes = [
            each for each in self.causes if each not in {DiffCause.RESULT, DiffCause.DURATION}
        ]
        if causes:
            return _TEXTS[causes[0]]
        if DiffCause.RESULT in self.causes:
            return (
                "the results differ, but no recorded input, plan, code version or environment does"
            )
        if DiffCause.DURATION in self.causes:
            return "only durations differ"
        return "nothing differs"


_TEXTS = {
    DiffCause.INPUTS: "the runs read other inputs or versions",
    DiffCause.PLAN: "the inputs are the same, but the plans differ",
    DiffCause.CODE: "inputs and plans are the same, but the code versions differ",
    DiffCause.ENVIRONMENT: "inputs, plans and code are the same, but the environments differ",
}
