"""Track the runs of a frame's statement: for the display of the frame, and to warn when it runs again.

A statement runs each time its frame's rows are requested, as in DataFusion. A second `collect()` of an
INSERT inserts the rows again, which is rarely intended.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from deltawitness.events import Failed, Landed
from deltawitness.exceptions import RepeatedStatementWarning, RequirementError, StatementError
from deltawitness.observe import Observer, current_observer, flush
from deltawitness.observe.write_watch import watch_writes
from deltawitness.plurals import count_of
from deltawitness.semconv import Operation
from deltawitness.session.sql.observe_writes import report_if_unreached
from deltawitness.stack_level import stack_level_of_program

if TYPE_CHECKING:
    from datafusion import DataFrame

    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["Statement", "TrackedStatement"]


class Statement(Protocol):
    """A statement that can be run any number of times."""

    @property
    def title(self) -> str:
        """What the statement does, without its literals."""

    def run(self) -> DataFrame:
        """Run the statement and return the frame of its result."""


SECONDS_FOR_DELIVERY = 1.0
"""Maximum time in seconds to wait for the observation that tells whether a failed write has landed."""


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run of a statement that raised.

    Attributes:
        exception: the name of the exception's class.
        writes: the writes that reached the engine; None for a write that could not be observed.
        is_observed: every write that reaches the engine is in `writes`.
    """

    exception: str
    writes: tuple[InFlightWrite | None, ...]
    is_observed: bool

    def landed(self) -> Landed:
        """Return whether a commit of the failed run is in the table's log."""
        if not self.writes:
            return Landed.NO if self.is_observed else Landed.UNKNOWN
        if any(write is not None and write.event is None for write in self.writes):
            flush(SECONDS_FOR_DELIVERY)
        found = {_landed(write) for write in self.writes}
        return next((each for each in (Landed.YES, Landed.UNKNOWN) if each in found), Landed.NO)

    def __str__(self) -> str:
        texts = {
            Landed.YES: f"failed with {self.exception}, but its commit has landed",
            Landed.UNKNOWN: f"failed with {self.exception}, and may have landed",
            Landed.NO: f"failed with {self.exception}",
        }
        return texts[self.landed()]


def _landed(write: InFlightWrite | None) -> Landed:
    if write is None or write.event is None:
        return Landed.UNKNOWN
    outcome = write.event.outcome
    # A write that succeeded has landed, even if a later step of the run failed.
    return outcome.landed if isinstance(outcome, Failed) else Landed.YES


class TrackedStatement:
    """The statement of a frame and its runs; frames that are derived from the frame share it.

    Args:
        statement: the statement.
        operation: the operation, for the metric that counts repeated runs.
        is_read: the statement changes nothing; repeated runs do not warn.
        target: path or URI of the Delta table that it writes. If set, a run that fails before
            delta-rs is called is recorded as a failed write.
        mode: save mode of such a failed write.
    """

    def __init__(
        self,
        statement: Statement,
        operation: Operation,
        *,
        is_read: bool = False,
        target: str | None = None,
        mode: str | None = None,
    ) -> None:
        self._statement = statement
        self._operation = operation
        self._is_read = is_read
        self._target = target
        self._mode = mode
        self._lock = threading.Lock()
        self._running = 0
        self._succeeded = 0
        self._failures: list[FailedRun] = []
        self._has_failed_last = False
        self._has_warned = False

    @property
    def title(self) -> str:
        """What the statement does, without its literals."""
        return self._statement.title

    @property
    def status(self) -> str:
        """The title and the runs so far, for displaying the frame."""
        with self._lock:
            running, succeeded = self._running, self._succeeded
            failure = self._failures[-1] if self._has_failed_last else None
        happened = []
        if succeeded:
            happened.append(f"has run ({count_of(succeeded, 'time')})")
        if failure is not None:
            happened.append(str(failure))
        if running:
            happened.append("is running")
        if not happened:
            return f"{self.title}: not run yet; collect() or show() runs it"
        return f"{self.title}: {', '.join(happened)}; collect() or show() runs it again"

    def unrun_copy(self) -> TrackedStatement:
        """Return the statement for another frame, without the runs of this one."""
        return TrackedStatement(
            self._statement,
            self._operation,
            is_read=self._is_read,
            target=self._target,
            mode=self._mode,
        )

    def run(self) -> DataFrame:
        """Run the statement and return the frame of its result.

        A run is a repetition if an earlier run succeeded, raised after its commit landed, or is still
        running. The first repetition warns before the engine is called; if a filter turns the warning
        into an error, the statement does not run.

        Raises:
            RepeatedStatementWarning: the run is a repetition, and a filter makes warnings errors.
        """
        if self._begin():
            try:
                self._warn()
            except BaseException:
                with self._lock:
                    self._running -= 1
                raise
            _count(self._operation)
        with watch_writes(is_part=False) as writes:
            try:
                frame = self._execute()
            except BaseException as error:
                is_refused = isinstance(error, StatementError | RequirementError)
                is_observed = is_refused or _observer() is not None
                failure = FailedRun(type(error).__qualname__, tuple(writes), is_observed)
                with self._lock:
                    self._running -= 1
                    self._failures.append(failure)
                    self._has_failed_last = True
                raise
        with self._lock:
            self._running -= 1
            self._succeeded += 1
            self._has_failed_last = False
        return frame

    def _execute(self) -> DataFrame:
        if self._target is None:
            return self._statement.run()
        with report_if_unreached(self._target, self._mode, operation=self._operation):
            return self._statement.run()

    def _begin(self) -> bool:
        """Record the start of a run; return whether it is a repetition that may change data."""
        has_landed = any(failure.landed() is Landed.YES for failure in self._failures)
        with self._lock:
            is_repetition = has_landed or self._succeeded > 0 or self._running > 0
            self._running += 1
        return is_repetition and not self._is_read

    def _warn(self) -> None:
        with self._lock:
            has_warned, self._has_warned = self._has_warned, True
        if has_warned:
            return
        message = (
            f"{self.title}: this statement has run before, and runs again: collect(), show() and every"
            " other call that asks its frame for rows runs it; keep the result of the first call"
        )
        try:
            warnings.warn(message, RepeatedStatementWarning, stacklevel=stack_level_of_program())
        except BaseException:
            self._has_warned = False
            raise


def _observer() -> Observer | None:
    """Return the observer if observation is on, or None."""
    observer = current_observer()
    return observer if observer is not None and observer.is_on() else None


def _count(operation: Operation) -> None:
    observer = _observer()
    if observer is not None:
        observer.statements.count_repeat(operation)
