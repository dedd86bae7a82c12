"""The result of `ci_report`: problems of a lakehouse as Markdown, and whether they fail a pull request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from deltawitness.answers.rows import RunRow

__all__ = ["CiCheck", "CiProblem", "CiReport"]


class CiCheck(StrEnum):
    """A check of `ci_report`."""

    BROKEN = "broken"
    """The last runs of a job failed, and earlier ones did not."""
    FAILED = "failed"
    """An operation on a table failed."""
    EMPTY = "empty"
    """A run changed nothing, although its job does in most runs."""
    SMALLER = "smaller"
    """The last run of a job changed less than half of the median number of rows."""
    VOLUME = "volume"
    """A run changed many more or fewer rows of a table than its job did before."""
    LATE = "late"
    """The next write of a table is late."""
    SLOWER = "slower"
    """The last run of a job took more than twice the median time."""
    FLAKY = "flaky"
    """A job has failed and recovered at least twice in its last 20 runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CiProblem:
    """A problem.

    Attributes:
        check: the check that found it.
        subject: the job or the table.
        detail: what is wrong, in one line.
        run_id: id of the run, if the problem is that of a run.
        fails: whether it fails the report.
    """

    check: CiCheck
    subject: str
    detail: str
    run_id: str | None
    fails: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CiReport:
    """A report for a pull request.

    Attributes:
        since: operations and runs before this time are left out.
        at: the time for which the report was made.
        problems: the problems, those that fail the report first.
        runs: the finished runs, newest first.
        markdown: the report as Markdown.
    """

    since: datetime
    at: datetime
    problems: tuple[CiProblem, ...]
    runs: tuple[RunRow, ...]
    markdown: str

    @property
    def is_ok(self) -> bool:
        """Whether no problem fails the report."""
        return not any(each.fails for each in self.problems)
