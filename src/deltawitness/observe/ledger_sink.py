"""Passes writes and runs from the observer to the ledger.

A write is recorded twice: a provisional record on the caller's thread when the write ends, and its row
when the event is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from deltawitness.commit.metadata import keys_of_expectations
from deltawitness.internal_errors import call_guarded, guard, report
from deltawitness.ledger.drain.recorder import Recorder
from deltawitness.ledger.spool.provisional import intent_text, provisional_text, shared_text
from deltawitness.ledger.spool.running import running_text
from deltawitness.locations import table_id
from deltawitness.observe.optional_ledger import NullLedgerSink, reopen_nothing
from deltawitness.redaction import redact_label, redacted_intent
from deltawitness.settings import Settings
from deltawitness.telemetry.spans import traceparent_of

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.run_context import RunContext

__all__ = ["LedgerSink"]

SHARED_TEXTS = 64
"""Texts that writes share, cached for each kind of write; one more empties the cache."""


class LedgerSink(NullLedgerSink):
    """Receives writes and runs while the ledger is enabled.

    Args:
        recorder: the process's recorder.
        settings: how intents and table ids are redacted.
    """

    def __init__(self, recorder: Recorder, settings: Settings) -> None:
        self.recorder: Recorder | None = recorder
        self._recorder = recorder
        self._settings = settings
        self._deferred_runs: list[RunContext] = []

    def begin(self) -> None:
        """Create the spool before a write can commit, so that reconcile sees the process as alive."""
        if self._deferred_runs:
            self._record_process_run()
        try:
            self._recorder.begin()
        except Exception as error:  # noqa: BLE001 - telemetry never changes the write
            report("ledger", error)

    def start_write(self, write: InFlightWrite, /) -> None:
        """Add a write that enters the engine to the file of running writes."""
        try:
            running = write.template.running
            if running is None or running[0] is not write.run:
                running = write.template.running = write.run, self._running_text(write)
            write.slot = self._recorder.start_write(running[1], write.write_id, write.started_at)
        except Exception as error:  # noqa: BLE001 - telemetry never changes the write
            report("spool", error)

    def _running_text(self, write: InFlightWrite) -> str:
        intent = redacted_intent(write.intent, self._settings)
        return running_text(
            intent.table_name,
            self._table_id(write),
            intent.operation.value,
            intent.mode,
            write.run.run_id,
            redact_label(write.run.job),
        )

    def append_provisional(self, write: InFlightWrite, /) -> None:
        """Append the provisional record of a write that has ended."""
        try:
            write.segment = self._recorder.record_provisional(
                write.write_id, write.run, self._text(write)
            )
        except Exception as error:  # noqa: BLE001 - telemetry never changes the write
            report("spool", error)

    def _text(self, write: InFlightWrite) -> str:
        traceparent = traceparent_of(write.span)
        commit = write.commit
        return provisional_text(
            self._shared_text(write),
            write_id=write.write_id,
            commit_write_id=write.commit_write_id,
            started_at=write.started_at,
            duration_ns=write.duration_ns,
            trace_id=None if traceparent is None else traceparent[3:35],
            span_id=None if traceparent is None else traceparent[36:52],
            base=write.base,
            version=write.version if commit is None else commit.version,
            more=_more(write) if _has_more(write) else None,
        )

    def _shared_text(self, write: InFlightWrite) -> str:
        """Return the text that the write shares with others, which is made once for them."""
        run, thread, site = write.run, write.thread, write.call_site
        message = write.intent.message or run.message
        texts = write.template.shared_texts
        key = run.run_id, run.job, thread, message, site, os.getpid()
        try:
            return texts[key]
        except KeyError:
            text = shared_text(self._intent_text(write), run, thread, message, site)
            if len(texts) >= SHARED_TEXTS:
                texts.clear()
            texts[key] = text
            return text

    def _intent_text(self, write: InFlightWrite) -> str:
        template = write.template
        if template.intent_text is None:
            template.intent_text = intent_text(
                redacted_intent(write.intent, self._settings),
                write.location,
                self._table_id(write),
            )
        return template.intent_text

    def _table_id(self, write: InFlightWrite) -> str | None:
        location = write.location
        return None if location is None else table_id(location, key=self._settings.table_id_key)

    def append_row(self, write: InFlightWrite, /) -> None:
        """Append the complete row of a write."""
        event, redacted = write.event, write.redacted
        if event is not None and redacted is not None:
            self._recorder.finalize(write.segment, event, redacted, write.location)

    def run_started(self, run: RunContext, /) -> None:
        """Record that a run is open.

        Where there is no ledger yet, the run of a process is recorded at its first operation: a
        program that writes nothing creates no ledger.
        """
        if run.is_process and not self._recorder.spools.exists():
            self._deferred_runs.append(run)
        else:
            if self._deferred_runs:
                self._record_process_run()  # the parent of this run
            call_guarded("ledger", self._recorder.run_started, run)

    def run_ended(self, run: RunContext, error: BaseException | None, /) -> None:
        """Record the end of a run."""
        self._record_if_ledger_exists()
        call_guarded("ledger", self._recorder.run_ended, run, error)

    def _record_if_ledger_exists(self) -> None:
        """Record the run of a process that wrote nothing, where its children have created the ledger."""
        if self._deferred_runs and self._recorder.spools.exists():
            self._record_process_run()

    def _record_process_run(self) -> None:
        try:
            run = self._deferred_runs.pop()
        except IndexError:
            return  # another thread has recorded it
        if self._recorder.is_open:  # a forked child leaves the run to its parent
            call_guarded("ledger", self._recorder.run_started, run)

    def run_closed(self, run: RunContext, /) -> None:
        """Drain the rows of a run that has ended into the ledger."""
        call_guarded("ledger", self._recorder.run_closed, run)

    def close(self, error: BaseException | None, /, *, timeout: float) -> None:
        """Drain every row into the ledger, for at most `timeout` seconds."""
        self._record_if_ledger_exists()
        with guard("ledger"):
            self._recorder.close(error, timeout=timeout)

    def close_before_exec(self, *, timeout: float) -> Callable[[], None]:
        """Drain every row before an exec; return a callable that resumes recording if the exec fails."""
        recorder = self._recorder
        if recorder.home is None and not recorder.run_ids:
            return reopen_nothing
        try:
            reopen = recorder.close_before_exec(timeout=timeout)
        except Exception as error:  # noqa: BLE001 - telemetry never changes the program
            report("ledger", error)
            return reopen_nothing
        return partial(call_guarded, "ledger", reopen)


def _has_more(write: InFlightWrite) -> bool:
    return (
        write.no_commit_reason is not None
        or write.failure is not None
        or write.exported is not None
        or write.landed is not None
        or write.expectations is not None
    )


def _more(write: InFlightWrite) -> dict[str, object]:
    more: dict[str, object] = {**keys_of_expectations(write.expectations)}
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
