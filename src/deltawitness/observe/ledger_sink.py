"""What the observer gives to the ledger: a note when a write ends, its row when it is complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from opentelemetry.trace import format_span_id, format_trace_id

from deltawitness.forks import has_used_delta_rs
from deltawitness.hashing import table_id
from deltawitness.internal_errors import report
from deltawitness.ledger.drain.recorder import Recorder
from deltawitness.ledger.spool.provisional import intent_text, provisional_text
from deltawitness.ledger.tables.locations import is_enabled
from deltawitness.redaction import redacted_intent
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.run import RunContext

__all__ = ["NullLedgerSink", "ledger_sink_for"]


class NullLedgerSink:
    """Where finished writes and runs are recorded; this one keeps nothing, and none of them raises.

    Attributes:
        recorder: what keeps the ledger of this process; None when none is kept.
    """

    recorder: Recorder | None = None

    def begin(self) -> None:
        """Get ready for a write that is about to reach the engine."""

    def note(self, write: InFlightWrite, /) -> None:
        """Keep what the caller's thread knows of a write that has ended."""

    def settle(self, write: InFlightWrite, /) -> None:
        """Keep the whole row of a write."""

    def run_started(self, run: RunContext, /) -> None:
        """Keep that a run is open."""

    def run_ended(self, run: RunContext, error: BaseException | None, /) -> None:
        """Keep the row of a run that has ended."""

    def run_closed(self, run: RunContext, /) -> None:
        """Have the ledger tell of a run that is over."""

    def close(self, error: BaseException | None, /, *, timeout: float) -> None:
        """Have the ledger tell everything, for at most so many seconds."""

    def close_before_exec(self, *, timeout: float) -> Callable[[], None]:  # noqa: ARG002 - there is no ledger
        """Record everything before an exec, and return what goes on recording when it has failed."""
        return _nothing


class LedgerSink(NullLedgerSink):
    """A ledger is kept.

    Args:
        recorder: the process's recorder.
        settings: whether table ids are keyed.
    """

    def __init__(self, recorder: Recorder, settings: Settings) -> None:
        self.recorder = self._recorder = recorder
        self._settings = settings
        self._untold: list[RunContext] = []

    def begin(self) -> None:
        """Get ready for a write that is about to reach the engine."""
        if self._untold:
            self._tell_process_run()
        _guarded(self._recorder.begin)

    def note(self, write: InFlightWrite, /) -> None:
        """Keep what the caller's thread knows of a write that has ended."""
        try:
            write.segment = self._recorder.record_provisional(
                write.write_id, write.run, self._text(write)
            )
        except Exception as error:  # noqa: BLE001 - telemetry never changes the write
            report("spool", error)

    def _text(self, write: InFlightWrite) -> str:
        context = write.span.get_span_context()
        is_traced = context.is_valid
        commit = write.commit
        return provisional_text(
            self._intent_text(write),
            write.run,
            write_id=write.write_id,
            commit_write_id=write.commit_write_id,
            started_at=write.started_at,
            duration_ns=write.duration_ns,
            trace_id=format_trace_id(context.trace_id) if is_traced else None,
            span_id=format_span_id(context.span_id) if is_traced else None,
            thread=write.thread,
            base=write.base,
            version=write.version if commit is None else commit.version,
            more=_more(write),
        )

    def _intent_text(self, write: InFlightWrite) -> str:
        prepared = write.prepared
        if prepared.note is None:
            location, key = write.location, self._settings.table_id_key
            prepared.note = intent_text(
                redacted_intent(write.intent, self._settings),
                location,
                None if location is None else table_id(location, key=key),
            )
        return prepared.note

    def settle(self, write: InFlightWrite, /) -> None:
        """Keep the whole row of a write."""
        event, told = write.event, write.redacted
        if event is not None and told is not None:
            self._recorder.finalize(write.segment, event, told, write.location)

    def run_started(self, run: RunContext, /) -> None:
        """Keep that a run is open.

        That of a whole process waits for its first operation where there is no ledger yet: a
        program that writes nothing leaves none behind.
        """
        if run.is_process and not self._recorder.spools.exists():
            self._untold.append(run)
        else:
            if self._untold:
                self._tell_process_run()  # the one that this run is opened in
            _guarded(lambda: self._recorder.run_started(run))

    def run_ended(self, run: RunContext, error: BaseException | None, /) -> None:
        """Keep the row of a run that has ended."""
        self._tell_if_others_did()
        _guarded(lambda: self._recorder.run_ended(run, error))

    def _tell_if_others_did(self) -> None:
        """Keep the run of a process that wrote nothing, when its children made a ledger meanwhile."""
        if self._untold and self._recorder.spools.exists():
            self._tell_process_run()

    def _tell_process_run(self) -> None:
        try:
            run = self._untold.pop()
        except IndexError:
            return  # another thread was faster
        if self._recorder.is_open:  # in a forked child it is the parent's
            _guarded(lambda: self._recorder.run_started(run))

    def run_closed(self, run: RunContext, /) -> None:
        """Have the ledger tell of a run that is over."""
        _guarded(lambda: self._recorder.run_closed(run))

    def close(self, error: BaseException | None, /, *, timeout: float) -> None:
        """Have the ledger tell everything, for at most so many seconds."""
        self._tell_if_others_did()
        _guarded(lambda: self._recorder.close(error, timeout=timeout))

    def close_before_exec(self, *, timeout: float) -> Callable[[], None]:
        """Record everything before an exec, and return what goes on recording when it has failed."""
        recorder = self._recorder
        if recorder.home is None and not recorder.run_ids:
            return _nothing
        try:
            reopen = recorder.close_before_exec(timeout=timeout)
        except Exception as error:  # noqa: BLE001 - telemetry never changes the program
            report("ledger", error)
            return _nothing
        return lambda: _guarded(reopen)


def _nothing() -> None:
    """Do nothing: nothing was closed."""


def _more(write: InFlightWrite) -> dict[str, object]:
    more: dict[str, object] = {}
    if write.no_commit_reason is not None:
        more["_idle"] = write.no_commit_reason.value
    if write.exported is not None:
        more["_exported"] = True
    if write.landed is not None:
        more["landed"] = write.landed.value
    if write.failure is not None:
        more["error_type"] = write.failure.error_type.value
        more["exception_type"] = write.failure.exception_type
    return more


def _guarded(act: Callable[[], object]) -> None:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("ledger", error)


def ledger_sink_for(
    settings: Settings, *, is_busy: Callable[[], bool], on_drop: Callable[[str], None]
) -> NullLedgerSink:
    """Return where writes are recorded under these settings.

    Args:
        settings: whether a ledger is kept, and where.
        is_busy: tells whether a write is under way.
        on_drop: is told of an operation that could not be kept.
    """
    if not is_enabled(settings):
        return NullLedgerSink()
    recorder = Recorder(
        settings, is_busy=is_busy, on_drop=on_drop, may_use_engine=has_used_delta_rs
    )
    return LedgerSink(recorder, settings)
