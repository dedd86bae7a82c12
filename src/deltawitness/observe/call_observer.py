"""Observe engine calls on their threads: open a write, add its commit metadata, record its result."""

from __future__ import annotations

import contextvars
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from deltawitness.app_transactions import take_skipped
from deltawitness.call_site import call_site_of_program
from deltawitness.commit.log import local_log_directory
from deltawitness.commit.metadata import RunStamp, effective_write_id, keys_of_expectations
from deltawitness.events import Landed, NoCommitReason, WriteIntent
from deltawitness.exceptions import RequirementError
from deltawitness.forks import mark_delta_rs_used
from deltawitness.ids_and_clock import new_id, now_ns
from deltawitness.internal_errors import call_guarded, guard, report
from deltawitness.locations import is_uri
from deltawitness.observe.call_result import (
    failure_from,
    read_first_commit,
    record_commit,
    record_return,
    table_log,
)
from deltawitness.observe.in_flight import InFlightWrite
from deltawitness.observe.receipts import record_receipt
from deltawitness.observe.requirements import check_requirements
from deltawitness.observe.row_counter import current_row_counter
from deltawitness.observe.write_context import current_write_context
from deltawitness.observe.write_template import WriteTemplate, WriteTemplateCache
from deltawitness.observe.write_watch import record_write
from deltawitness.run import current_cache_context, current_run, is_suppressed
from deltawitness.semconv import Operation
from deltawitness.telemetry.cache_spans import record_write_in_span
from deltawitness.telemetry.spans import parent_context, traceparent_of
from deltawitness.telemetry.suppression import is_instrumentation_suppressed

if TYPE_CHECKING:
    from deltalake import CommitProperties
    from deltalake._internal import RawDeltaTable

    from deltawitness.commit.seams import WriteSeam
    from deltawitness.observe.exporters import Exporters
    from deltawitness.observe.optional_ledger import NullLedgerSink
    from deltawitness.observe.write_context import WriteContext
    from deltawitness.run_context import RunContext
    from deltawitness.settings import Settings

__all__ = ["CallObserver"]

_NOT_OPENED = "TableNotFoundError"
"""Class that delta-rs raises for a location without a table, or with a scheme that it does not support."""


class CallObserver:
    """The part of the observer that runs on the caller's thread, on the path of every write.

    A base class, not a component: a call through another object would cost every write.

    Args:
        settings: how to behave.
        exporters: the telemetry objects.
        ledger: receives the provisional record of each write.
        has_hooks: whether the arguments of calls are captured for hooks.
    """

    def __init__(
        self, settings: Settings, exporters: Exporters, ledger: NullLedgerSink, *, has_hooks: bool
    ) -> None:
        self.settings = settings
        self._exporters = exporters
        self._recording = ledger
        self._has_ledger = ledger.recorder is not None
        self.has_hooks = has_hooks
        self._mirrors = settings.user_metadata
        self._records_call_site = settings.call_site
        self._templates = WriteTemplateCache(settings)
        self._under_way: set[InFlightWrite] = set()
        self._has_written = False
        self._has_unexported = False

    def is_on(self) -> bool:
        """Return whether a write of the calling code is to be observed."""
        return not (is_suppressed() or is_instrumentation_suppressed())

    def open(
        self,
        seam: WriteSeam,
        location: str,
        *,
        table: RawDeltaTable | None,
        mode: str | None = None,
    ) -> InFlightWrite:
        """Start to observe a write that is about to reach the engine.

        Args:
            seam: the patched callable that saw the write.
            location: the table's location as the engine spells it.
            table: the open table, if the write goes through one.
            mode: the save mode, if it has one.
        """
        begun, run, context = time.perf_counter_ns(), current_run(), current_write_context()
        template = self._templates.get(seam, location, table, mode, run, context)
        write = self._begin(begun, template, run, context)
        write.seam = seam
        write.location = location if template.is_absolute else _absolute(location)
        if not seam.commits:
            write.no_commit_reason = NoCommitReason.NOT_A_COMMIT
        if table is not None:
            try:
                write.base = table.version()
            except Exception as error:  # noqa: BLE001 - the log is searched without it
                report("seam", error)
        record_write(write)
        return write

    def begin(self, intent: WriteIntent) -> InFlightWrite:
        """Start to observe a write of which only the intent is known."""
        begun, run, context = time.perf_counter_ns(), current_run(), current_write_context()
        write = self._begin(begun, WriteTemplate.of(intent), run, context)
        if intent.table_uri is not None:
            write.location = _absolute(intent.table_uri)
        return write

    def _begin(
        self, begun: int, template: WriteTemplate, run: RunContext, context: WriteContext | None
    ) -> InFlightWrite:
        if not self._exporters.has_sdk:
            self._wrap_providers()
        record_write_in_span()
        write = InFlightWrite()
        write.begun = begun
        write.template = template
        write.intent = template.intent
        write.run = run
        write.write_id = write.commit_write_id = new_id()
        write.thread = threading.current_thread().name
        write.parent = parent = parent_context(run)
        started_at, write.clock = now_ns(), time.perf_counter_ns()
        if context is not None:
            write.store_plan = context.attributes.store_plan
            if context.clock is not None:
                started_at -= write.clock - context.clock
                write.clock = context.clock
        write.started_at = started_at
        if self._records_call_site:
            try:
                write.call_site = call_site_of_program(3)  # above the public methods here
            except Exception as error:  # noqa: BLE001 - the event does without it
                report("call_site", error)
        write.span = self._exporters.spans.open(
            template.span_name, template.attributes, parent, started_at
        )
        return write

    def enter(self, write: InFlightWrite) -> None:
        """Record that a write is in the engine: deliveries wait for it where they can."""
        self._under_way.add(write)
        if self._has_ledger:
            self._recording.begin()
            self._recording.start_write(write)
            counter = current_row_counter()
            if counter is not None:
                counter.slot = write.slot
        write.entered = time.perf_counter_ns()

    def resume(self, write: InFlightWrite, table: RawDeltaTable) -> None:
        """Start the clock of a write that was opened earlier: a merge that is executed now."""
        write.begun = time.perf_counter_ns()
        write.base = table.version()
        write.started_at = now_ns()
        write.clock = time.perf_counter_ns()
        self.enter(write)

    def require(self) -> None:
        """Check that a write of the calling code has the run, job and message that the settings require.

        Raises:
            RequirementError: it lacks one of them; the write must not reach the engine.
        """
        required = self.settings.require
        if required and self.is_on():
            check_requirements(required, current_run(), current_cache_context().message)

    def require_of(self, write: InFlightWrite) -> None:
        """Check the same of a write that is observed, and record the write as failed if it is refused.

        Raises:
            RequirementError: it lacks a run, a job or a message.
        """
        required = self.settings.require
        if not required:
            return
        try:
            check_requirements(required, write.run, write.intent.message)
        except RequirementError as error:
            write.landed = Landed.NO
            with guard("requirements"):
                self.fail(write, error)
            raise

    def properties(
        self, write: InFlightWrite, callers: CommitProperties | None
    ) -> CommitProperties | None:
        """Return the commit properties for the engine: the caller's with our keys added."""
        try:
            template = write.template.with_schema(write.schema)
            write.template, write.intent = template, template.intent
        except Exception as error:  # noqa: BLE001 - the event does without the hash of the schema
            report("schema_hash", error)
            write.schema = None
        run = write.run
        if write.expectations is None:
            stamp = write.template.stamp_in(run)
        else:
            of_run = RunStamp.of(run, write.intent.message)
            keys = keys_of_expectations(write.expectations)
            stamp = write.template.stamp.with_run(of_run.with_keys(keys))
        properties = stamp.apply(
            callers,
            run_id=run.run_id,
            write_id=write.write_id,
            traceparent=traceparent_of(write.span),
            mirror=self._mirrors,
        )
        if callers is not None and properties is not None:
            write.commit_write_id = effective_write_id(properties) or write.commit_write_id
        return properties

    def capture_call(
        self,
        write: InFlightWrite,
        instance: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Capture the arguments and the context of a call for the hooks, if there are hooks."""
        if self.has_hooks:
            write.call = instance, args, kwargs, contextvars.copy_context()

    def finish(
        self,
        write: InFlightWrite,
        result: object,
        *,
        table: RawDeltaTable | None,
        storage_options: dict[str, str] | None = None,
    ) -> None:
        """Record what the engine returned, and submit the write for delivery.

        Args:
            write: the write.
            result: what the engine returned.
            table: the open table, if the write went through one.
            storage_options: storage options of a write by URI.
        """
        write.duration_ns = time.perf_counter_ns() - write.clock
        write.storage_options = storage_options
        if write.seam is not None:
            mark_delta_rs_used()
        try:
            if take_skipped(
                write.commit_write_id
            ):  # the result has the counts of the earlier commit
                write.no_commit_reason = NoCommitReason.ALREADY_COMMITTED
            elif result is not None:
                record_return(write, result)
            # A write without a seam made no commit: it wrote files outside Delta, or nothing.
            has_seam = write.seam is not None
            if has_seam and write.no_commit_reason is None and write.location is not None:
                if table is None:
                    read_first_commit(write, write.location)
                else:
                    if write.intent.operation is Operation.UPDATE_TABLE_METADATA:
                        self._templates.clear()  # the table may have another name now
                    record_commit(write, write.location, table, self.settings.landed_tail)
        except Exception as error:  # noqa: BLE001 - the delivery thread searches the log instead
            report("commit", error)
        finally:
            self._hand_over(write)

    def fail(
        self,
        write: InFlightWrite,
        error: BaseException,
        *,
        table: RawDeltaTable | None = None,
        storage_options: dict[str, str] | None = None,
    ) -> None:
        """Record what the engine raised, and submit the write for delivery.

        Args:
            write: the write.
            error: what the engine raised.
            table: the open table, if the write went through one.
            storage_options: storage options of a write by URI.
        """
        write.duration_ns = time.perf_counter_ns() - write.clock
        location = write.location
        write.failure = failure_from(error, location)
        write.storage_options = storage_options
        if table is None and write.landed is None and type(error).__name__ == _NOT_OPENED:
            write.landed = Landed.NO
        if table is not None:  # without one, the error may have come before the engine was called
            mark_delta_rs_used()
        try:
            if table is not None and location is not None and local_log_directory(location) is None:
                write.log = table_log(write, table, self.settings.landed_tail)
        except Exception as problem:  # noqa: BLE001 - then whether it landed is unknown
            report("commit", problem)
        finally:
            self._hand_over(write)

    def _hand_over(self, write: InFlightWrite) -> None:
        try:
            if self._has_ledger:
                self._recording.append_provisional(write)
        finally:
            # In this order: reconcile takes a write of this process that is neither under way nor in
            # the spool for lost.
            self._under_way.discard(write)
            if write.slot is not None:  # after the record, so that a reader sees one of them
                call_guarded("spool", write.slot.end)
        self._has_written = True
        self._has_unexported = True
        try:
            record_receipt(write, self.settings.landed_tail)
        except Exception as error:  # noqa: BLE001 - the event is delivered without a receipt
            report("receipt", error)
        # Counted up to here: the queue, and the delivery thread, are not the caller's time.
        ended = write.clock + write.duration_ns
        before = max(0, write.entered - write.begun)
        write.overhead_ns = before + max(0, time.perf_counter_ns() - ended)
        self._submit(write)

    def _submit(self, write: InFlightWrite) -> None:
        """Queue a finished write for delivery."""
        raise NotImplementedError

    def _wrap_providers(self) -> None:
        """Make the providers' own flush deliver the queued writes first."""
        raise NotImplementedError

    def _is_busy(self) -> bool:
        return bool(self._under_way)


def _absolute(location: str) -> str:
    """Return a location that stays valid when the program changes its working directory."""
    is_absolute = location.startswith("/") or is_uri(location)
    return location if is_absolute else os.path.abspath(location)  # noqa: PTH100 - text, not a file
