"""How often the statement of a frame has run: shown when somebody looks at it, warned of when it repeats.

The frame of a statement runs it each time that it is asked for rows, as the engine does. A second
`collect()` inserts the rows again, which is hardly ever meant.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import wrapt

import deltawitness
from deltawitness.events import Failed, Landed
from deltawitness.exceptions import RepeatedStatementWarning, StatementError
from deltawitness.observe import Observer, current_observer, flush
from deltawitness.observe.write_watch import watch_writes
from deltawitness.semconv import Operation
from deltawitness.session.sql.write_facts import report_if_unreached

if TYPE_CHECKING:
    from datafusion import DataFrame

    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["Statement", "TrackedStatement"]


class Statement(Protocol):
    """A statement that can be run, any number of times."""

    @property
    def title(self) -> str:
        """What it does, without a literal."""

    def run(self) -> DataFrame:
        """Carry the statement out and return the frame of its result."""


SECONDS_FOR_DELIVERY = 1.0
"""How long to wait until it is known whether a write that failed has landed all the same."""


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run of a statement that raised.

    Attributes:
        exception: the name of the exception's class.
        writes: the writes that reached the engine; None for one of which nothing is known.
        is_observed: a write that had reached the engine would be among them.
    """

    exception: str
    writes: tuple[InFlightWrite | None, ...]
    is_observed: bool

    def landed(self) -> Landed:
        """Return whether a commit of the run is in the table's log all the same."""
        if not self.writes:
            return Landed.NO if self.is_observed else Landed.UNKNOWN
        if any(write is not None and write.event is None for write in self.writes):
            flush(SECONDS_FOR_DELIVERY)
        found = {_landed(write) for write in self.writes}
        return next((each for each in (Landed.YES, Landed.UNKNOWN) if each in found), Landed.NO)

    def __str__(self) -> str:
        told = {
            Landed.YES: f"failed with {self.exception}, but its commit has landed",
            Landed.UNKNOWN: f"failed with {self.exception}, and may have landed",
            Landed.NO: f"failed with {self.exception}",
        }
        return told[self.landed()]


def _landed(write: InFlightWrite | None) -> Landed:
    if write is None or write.event is None:
        return Landed.UNKNOWN
    outcome = write.event.outcome
    # A write that succeeded before something after it failed has landed.
    return outcome.landed if isinstance(outcome, Failed) else Landed.YES


class TrackedStatement:
    """The statement of a frame, and its runs; frames that are derived from the frame share it.

    Args:
        statement: the statement.
        operation: what it does, for the metric that counts repetitions.
        is_read: it changes nothing, and may be run as often as anybody likes.
        target: where the Delta table lies that it writes. Where it is given, a run that fails before
            delta-rs is called is recorded as a write that failed.
        mode: save mode of such a run.
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
        """What the statement does, without a literal."""
        return self._statement.title

    @property
    def status(self) -> str:
        """What the statement does, and what has happened to it so far."""
        with self._lock:
            running, succeeded = self._running, self._succeeded
            failure = self._failures[-1] if self._has_failed_last else None
        happened = []
        if succeeded:
            happened.append(f"has run ({succeeded} {'time' if succeeded == 1 else 'times'})")
        if failure is not None:
            happened.append(str(failure))
        if running:
            happened.append("is running")
        if not happened:
            return f"{self.title}: not run yet; collect() or show() runs it"
        return f"{self.title}: {', '.join(happened)}; collect() or show() runs it again"

    def anew(self) -> TrackedStatement:
        """Return the same statement as one of another frame, which has not run yet."""
        return TrackedStatement(
            self._statement,
            self._operation,
            is_read=self._is_read,
            target=self._target,
            mode=self._mode,
        )

    def run(self) -> DataFrame:
        """Run the statement and return the frame of its result.

        A run after one that succeeded, that landed though it raised, or that is still under way is a
        repetition. The first one warns, before the engine is reached: where warnings are errors,
        none is carried out.

        Raises:
            RepeatedStatementWarning: it is a repetition, and a filter makes warnings errors.
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
                frame = self._carry_out()
            except BaseException as error:
                is_refused = isinstance(error, StatementError)
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

    def _carry_out(self) -> DataFrame:
        if self._target is None:
            return self._statement.run()
        with report_if_unreached(self._target, self._mode, operation=self._operation):
            return self._statement.run()

    def _begin(self) -> bool:
        """Take note that a run begins, and return whether it is a repetition."""
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
            warnings.warn(message, RepeatedStatementWarning, stacklevel=_level_of_the_program())
        except BaseException:
            self._has_warned = False
            raise


@cache
def _library_folders() -> tuple[str, ...]:
    """Return the folders of the modules that stand between a program and its statement."""
    import datafusion  # noqa: PLC0415 - this module is imported while the engine is (see frame_view)

    modules = deltawitness, datafusion, wrapt
    return tuple(f"{Path(str(module.__file__)).parent}{os.sep}" for module in modules)


def _level_of_the_program() -> int:
    """Return how many calls the program's own line is above the caller of this function."""
    level, libraries = 1, _library_folders()
    frame = sys._getframe(1)  # noqa: SLF001 - what `warnings` itself counts by
    while frame.f_back is not None and frame.f_code.co_filename.startswith(libraries):
        frame = frame.f_back
        level += 1
    return level


def _observer() -> Observer | None:
    """Return what observes a write that is made here and now."""
    observer = current_observer()
    return observer if observer is not None and observer.is_on() else None


def _count(operation: Operation) -> None:
    observer = _observer()
    if observer is not None:
        observer.statements.count_repeat(operation)
