"""The observer: opens an observation before the engine runs, closes it after, has it delivered."""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import util as multiprocessing_util
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry import _logs, metrics, trace
from opentelemetry.context import get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from deltawitness.commit.log import TableLog, local_log_directory, read_local_commit
from deltawitness.commit.metadata import effective_write_id
from deltawitness.commit.outcome import RawCommit
from deltawitness.delivery import Delivery, Step
from deltawitness.error_types import classify, error_text_of, is_programs_own
from deltawitness.events import (
    Failed,
    Landed,
    NoCommitReason,
    WriteEvent,
    WriteIntent,
    WriteSink,
)
from deltawitness.forks import mark_delta_rs_used
from deltawitness.ids_and_clock import new_id, now_ns
from deltawitness.internal_errors import fact, on_internal_error, report
from deltawitness.ledger.tables.locations import resolve
from deltawitness.observe.completion import complete_event, minimal_event, minimal_redacted_event
from deltawitness.observe.in_flight import InFlightWrite
from deltawitness.observe.ledger_sink import ledger_sink_for
from deltawitness.observe.run_reads import reads_of_run
from deltawitness.observe.sigterm import SigtermHandler
from deltawitness.observe.write_context import NO_ATTRIBUTES, WriteAttributes, current_write_context
from deltawitness.observe.write_template import WriteTemplate
from deltawitness.observe.write_watch import record_write
from deltawitness.process_exit import Terminated, restore_interrupt
from deltawitness.redaction import (
    redact,
    redact_label,
    strip_credentials,
    table_name_for,
    without_location,
)
from deltawitness.run import (
    NO_CACHE_CONTEXT,
    RunContext,
    add_run_listener,
    check_environment,
    current_cache_context,
    current_run,
    is_suppressed,
    remove_run_listener,
    unhandled_error,
)
from deltawitness.semconv import (
    POLICY_UNMANAGED,
    CacheOperation,
    CacheScope,
    ErrorType,
    Operation,
)
from deltawitness.settings import Settings
from deltawitness.telemetry.cache_spans import (
    on_cache_operation,
    record_write_in_span,
    use_providers,
)
from deltawitness.telemetry.diagnostics import diagnostics_sink
from deltawitness.telemetry.logs import LogSink
from deltawitness.telemetry.metrics import (
    DrainInstruments,
    InternalCounters,
    MetricSink,
    StatementInstruments,
)
from deltawitness.telemetry.provider_flush import FlushFirst
from deltawitness.telemetry.query_spans import QueryTelemetry
from deltawitness.telemetry.spans import RunSpans, WriteSpans, parent_context, traceparent_of
from deltawitness.telemetry.task_spans import TaskSpans

if TYPE_CHECKING:
    from deltalake import CommitProperties
    from deltalake._internal import RawDeltaTable
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from deltawitness.commit.private_api import Seam

__all__ = ["Observer", "RequestHook", "ResponseHook", "current_observer", "flush"]

RequestHook: TypeAlias = Callable[["Span", Any, tuple[Any, ...], dict[str, Any]], None]
"""`(span, instance, args, kwargs)`: may add to the span what it knows of the request."""

ResponseHook: TypeAlias = Callable[["Span", Any, Any], None]
"""`(span, instance, response)`: may add to the span what it knows of the response."""


class Observer:
    """Observes writes with one set of providers, settings and sinks.

    Args:
        settings: how to behave; from the environment when None.
        tracer_provider: where spans go; the global provider when None.
        meter_provider: where metrics go; the global provider when None.
        logger_provider: where log records go; the global provider when None.
        sinks: get every finished write after our own, redacted.
        request_hook: may add to each span; runs on the delivery thread, in the caller's context.
        response_hook: likewise, with the engine's response.

    Attributes:
        settings: how it behaves.
        queries: the telemetry of queries, for the proxies that see them.
        statements: counts statements that are repeated, for the proxies that see them.
        steps: the spans of a workflow's steps, for the integrations that see them.
        diagnostics: where diagnostics artifacts go.
        recorder: what keeps the ledger of this process; None when none is kept.

    Raises:
        ConfigurationError: a setting in the environment is invalid.
    """

    def __init__(  # noqa: PLR0913 - the arguments of BaseInstrumentor.instrument(), by keyword
        self,
        *,
        settings: Settings | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        sinks: Sequence[WriteSink] = (),
        request_hook: RequestHook | None = None,
        response_hook: ResponseHook | None = None,
    ) -> None:
        self.settings = resolve(settings or Settings.from_env())
        # An invalid run or scope in the environment is an error now, before any write.
        check_environment()
        current_cache_context()
        self._export_to(tracer_provider, meter_provider, logger_provider)
        self._local_sinks: tuple[WriteSink, ...] = ()
        self._request_hook = request_hook
        self._response_hook = response_hook
        self._under_way: set[InFlightWrite] = set()
        self._has_written = False
        self._is_forked = False
        self._mirrors = self.settings.user_metadata
        self._has_hooks = request_hook is not None or response_hook is not None
        self._preparations: dict[tuple[object, ...], WriteTemplate] = {}
        self._is_exiting = False
        self._recording = ledger_sink_for(
            self.settings, is_busy=self._is_busy, on_drop=self._counters.dropped
        )
        self.recorder = self._recording.recorder
        if self.recorder is not None:
            drains = DrainInstruments(meter_provider, self.recorder)
            self.recorder.on_drain = drains.record
            self.recorder.settle_all = self._flush_in_time
        self._delivery = Delivery(
            self._steps(sinks),
            interval=self.settings.delivery_interval,
            capacity=self.settings.queue_size,
            step_timeout=self.settings.sink_timeout,
            is_busy=self._is_busy,
            on_error=report,
            on_drop=self._counters.dropped,
        )
        self._termination = SigtermHandler(self._flush_before_termination)

    def _export_to(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        logger_provider: LoggerProvider | None,
    ) -> None:
        """Set everything that telemetry is made with; each of it is in `_TELEMETRY`."""
        self._providers = tracer_provider, meter_provider, logger_provider
        self._adopted = False
        self._spans = WriteSpans(tracer_provider)
        self._run_spans = RunSpans(tracer_provider)
        self._metrics = MetricSink(meter_provider)
        self._logs = LogSink(logger_provider)
        self._counters = InternalCounters(meter_provider)
        self.queries = QueryTelemetry(tracer_provider, meter_provider)
        self.statements = StatementInstruments(meter_provider)
        self.steps = TaskSpans(tracer_provider)
        self.diagnostics = diagnostics_sink(self.settings, logger_provider)
        self._flushing = FlushFirst(self._flush_in_time)

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Become the process's observer: listen to runs, deliver what waits at exit."""
        global _observer  # noqa: PLW0603 - one observer per process
        _observer = self
        self._announce_providers()
        if self.recorder is not None:
            on_cache_operation(self.recorder.operation)
        add_run_listener(self)
        # Registered first, so that it runs after every other exit handler of ours.
        atexit.register(restore_interrupt)
        atexit.register(self._flush_at_exit)
        # Children of multiprocessing leave by os._exit: only these finalizers run there.
        multiprocessing_util.register_after_fork(self, Observer._finish_child)
        if self.recorder is not None:
            self._termination.install()
        # A write in a later exit handler is delivered by its own thread, before it goes on.
        self._is_exiting = False

    def _announce_providers(self) -> None:
        on_internal_error(self._counters.error)
        use_providers(*self._providers)

    @contextmanager
    def exporting_to(
        self,
        *,
        tracer_provider: TracerProvider,
        meter_provider: MeterProvider,
        logger_provider: LoggerProvider,
    ) -> Iterator[None]:
        """Give the telemetry of the block to other providers; all else goes on as before.

        Commits are stamped, the ledger is kept and the sinks are called as outside of the block.

        Args:
            tracer_provider: where spans go.
            meter_provider: where metrics go.
            logger_provider: where log records go.
        """
        self._flush_in_time()
        before = {name: getattr(self, name) for name in _TELEMETRY}
        self._export_to(tracer_provider, meter_provider, logger_provider)
        self._announce_providers()
        try:
            yield
        finally:
            self._flush_in_time()
            self._flushing.restore()
            for name, value in before.items():
                setattr(self, name, value)
            self._announce_providers()

    def stop(self) -> None:
        """Deliver what waits and let go of everything."""
        global _observer  # noqa: PLW0603 - one observer per process
        self._delivery.close(self._flush_timeout())
        self._recording.close(None, timeout=self._flush_timeout())
        self._termination.uninstall()
        remove_run_listener(self)
        self._flushing.restore()
        atexit.unregister(self._flush_at_exit)
        atexit.unregister(restore_interrupt)
        if _observer is self:
            _observer = None
            on_internal_error(None)
            use_providers(None, None, None)
            on_cache_operation(None)

    def _finish_child(self) -> None:
        multiprocessing_util.Finalize(None, self._flush_child, exitpriority=100)

    def _flush_child(self) -> None:
        if self._flush_in_time():
            with suppress(Exception):  # the exporters' own troubles are theirs to log
                self._flushing.force_flush()
        self._recording.close(None, timeout=self._flush_timeout())

    def run_started(self, run: RunContext) -> None:
        """Open the run's span."""
        self._recording.run_started(run)
        try:
            self._run_spans.run_started(run)
        except Exception as error:  # noqa: BLE001 - telemetry never changes the program
            report("run", error)

    def run_ending(self, run: RunContext) -> None:
        """Deliver what waits, so that a run's telemetry is whole when the run is over."""
        with _interruptible(run):
            self._flush_in_time()

    def run_ended(self, run: RunContext, error: BaseException | None) -> None:
        """Close the run's span."""
        try:
            self._run_spans.run_ended(run, error)
        except Exception as problem:  # noqa: BLE001 - telemetry never changes the program
            report("run", problem)
        self._recording.run_ended(run, error)

    def run_closed(self, run: RunContext) -> None:
        """Have the ledger tell of the run."""
        with _interruptible(run):
            self._recording.run_closed(run)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every write that is finished by now has been delivered to every sink."""
        return self._delivery.flush(timeout)

    def _flush_in_time(self) -> bool:
        return self._delivery.flush(self._flush_timeout())

    def _flush_at_exit(self) -> None:
        self._is_exiting = True
        if self.recorder is not None:
            self.recorder.is_exiting = True
        # Whoever interrupts the wait gets the exit status that the program has; the rest is drained later.
        with suppress(KeyboardInterrupt):
            self._flush_in_time()
        with suppress(KeyboardInterrupt):
            self._recording.close(unhandled_error(), timeout=self._flush_timeout())

    def _flush_before_termination(self) -> None:
        """Deliver, export and drain what waits, within the time that SIGTERM leaves."""
        if self.recorder is not None:
            self.recorder.is_terminated = True
        self._delivery.flush(TIME_TO_GO)
        self._run_spans.end_all(Terminated())
        with self._exporting_meanwhile():
            self._recording.close(Terminated(), timeout=TIME_TO_GO)

    @contextmanager
    def _exporting_meanwhile(self) -> Iterator[None]:
        """Flush the providers beside the drain in the block, within the time that SIGTERM leaves.

        An exporter whose server does not answer takes all the time there is.
        """
        flushing = threading.Thread(
            target=self._flushing.force_flush_within,
            args=(TIME_TO_GO,),
            name="deltawitness-flush",
            daemon=True,
        )
        flushing.start()
        try:
            yield
        finally:
            flushing.join(TIME_TO_GO)

    def prepare_exec(self) -> Callable[[], None]:
        """Deliver, export and drain what waits, before another program replaces this one in the process.

        It takes no longer than the same before a SIGTERM. A process that has observed nothing does nothing.

        Returns:
            Goes on observing: call it when the exec has failed.
        """
        recorder = self.recorder
        has_runs = recorder is not None and bool(recorder.run_ids)
        if not (self._has_written or has_runs):
            return lambda: None
        self._delivery.flush(TIME_TO_GO)
        if not self._is_forked:  # else the spans are the parent's
            self._run_spans.end_before_exec()
        with self._exporting_meanwhile():
            return self._recording.close_before_exec(timeout=TIME_TO_GO)

    def _forget_under_way(self) -> None:
        """In a forked child: what the parent's threads were writing is the parent's."""
        self._under_way.clear()
        self._has_written = False
        self._is_forked = True

    def _flush_timeout(self) -> float:
        # Long enough for a sink to be given up as hanging, and for the others to be told then.
        return 2 * self.settings.sink_timeout + 1

    def add_sink(self, sink: WriteSink) -> None:
        """Give every finished write to `sink` as well, unredacted: it stays in this process."""
        self._local_sinks = (*self._local_sinks, sink)

    def remove_sink(self, sink: WriteSink) -> None:
        """Stop giving writes to `sink`."""
        self._local_sinks = tuple(known for known in self._local_sinks if known is not sink)

    # --- on the caller's thread ----------------------------------------------------------------------

    def is_on(self) -> bool:
        """Tell whether a write made here and now is to be observed."""
        return not is_suppressed() and (not get_current() or is_instrumentation_enabled())

    def open(
        self, seam: Seam, location: str, *, table: RawDeltaTable | None, mode: str | None = None
    ) -> InFlightWrite:
        """Begin to observe a write that is about to reach the engine.

        Args:
            seam: where it was seen.
            location: the table's location as the engine names it.
            table: the open table it goes through, if it does.
            mode: the save mode, if it has one.
        """
        write = self._begin(self._prepared(seam, location, table, mode))
        write.seam = seam
        write.location = _absolute(location)
        if not seam.commits:
            write.no_commit_reason = NoCommitReason.NOT_A_COMMIT
        if table is not None:
            write.base = fact("seam", table.version, None)
        record_write(write)
        return write

    def begin(self, intent: WriteIntent) -> InFlightWrite:
        """Begin to observe a write of which no more than the intent is known."""
        write = self._begin(WriteTemplate.of(intent))
        if intent.table_uri is not None:
            write.location = _absolute(intent.table_uri)
        return write

    def _begin(self, prepared: WriteTemplate) -> InFlightWrite:
        if not self._adopted:
            self._adopt_providers()
        run = current_run()
        record_write_in_span()
        write = InFlightWrite()
        write.prepared = prepared
        write.intent = prepared.intent
        write.run = run
        write.write_id = write.commit_write_id = new_id()
        write.thread = threading.current_thread().name
        write.parent = parent = parent_context(run)
        write.started_at = started_at = now_ns()
        write.clock = time.perf_counter_ns()
        write.span = self._spans.open(prepared.span_name, prepared.attributes, parent, started_at)
        return write

    def enter(self, write: InFlightWrite) -> None:
        """Take note that the engine is at work on a write: deliveries wait for it if they can."""
        self._under_way.add(write)
        self._recording.begin()

    def _prepared(
        self, seam: Seam, location: str, table: RawDeltaTable | None, mode: str | None
    ) -> WriteTemplate:
        """Return what is the same for all such writes; made anew only where something differs."""
        enclosure, ambient = current_write_context(), current_cache_context()
        facts = NO_ATTRIBUTES
        key: tuple[object, ...] = seam.name, location, mode
        if enclosure is not None:
            enclosure.observed += 1
            facts = enclosure.facts
        run_inputs = () if facts.plan_hash else reads_of_run(current_run())
        if facts is not NO_ATTRIBUTES or ambient is not NO_CACHE_CONTEXT or run_inputs:
            key = *key, facts, ambient, run_inputs
        try:
            return self._preparations[key]
        except KeyError:
            intent = self._intent(seam, location, table, mode, facts)
            prepared = WriteTemplate.of(replace(intent, run_inputs=run_inputs))
            if len(self._preparations) >= PREPARATIONS_KEPT:
                self._preparations.clear()
            if table is not None:
                self._preparations[key] = prepared
            return prepared

    def _intent(
        self,
        seam: Seam,
        location: str,
        table: RawDeltaTable | None,
        mode: str | None,
        facts: WriteAttributes,
    ) -> WriteIntent:
        named = None if table is None else fact("seam", lambda: table.metadata().name, None)
        return self.intent(
            facts, seam.operation, seam.cache_operation, location, named=named, mode=mode
        )

    def intent(  # noqa: PLR0913 - what a write is, by keyword where it may be missing
        self,
        facts: WriteAttributes,
        operation: Operation,
        cache_operation: CacheOperation,
        location: str | None,
        *,
        named: str | None = None,
        mode: str | None = None,
    ) -> WriteIntent:
        """Return what a write means to do; its facts win over what the program said around it.

        Args:
            facts: what is known of it.
            operation: the engine's operation.
            cache_operation: the same in the cache layer's words.
            location: where to, as the engine names it.
            named: the table's name in its metadata.
            mode: save mode.
        """
        ambient = current_cache_context()
        return WriteIntent(
            operation=operation,
            cache_operation=cache_operation,
            table_uri=None
            if location is None
            else fact("redaction", lambda: strip_credentials(location), None),
            table_name=fact(
                "redaction",
                lambda: table_name_for(location, named, self.settings.table_names),
                None,
            ),
            mode=mode,
            policy=fact(
                "redaction",
                lambda: redact_label(facts.policy or ambient.policy or POLICY_UNMANAGED),
                POLICY_UNMANAGED,
            ),
            scope=facts.scope or ambient.scope or CacheScope.DATASET,
            cache_key=facts.cache_key if facts.cache_key is not None else ambient.key,
            schema_hash=facts.schema_hash,
            plan_hash=facts.plan_hash,
            plan_shape_hash=facts.plan_shape_hash,
            inputs=facts.inputs,
        )

    def properties(
        self, write: InFlightWrite, callers: CommitProperties | None
    ) -> CommitProperties | None:
        """Return the commit properties that the engine is to be given."""
        try:
            prepared = write.prepared.with_schema(write.schema)
            write.prepared, write.intent = prepared, prepared.intent
        except Exception as error:  # noqa: BLE001 - the hash of a schema is one fact of many
            report("schema_hash", error)
            write.schema = None
        properties = write.prepared.stamp.on(
            callers,
            run_id=write.run.run_id,
            write_id=write.write_id,
            traceparent=traceparent_of(write.span),
            mirror=self._mirrors,
        )
        if callers is not None and properties is not None:
            write.commit_write_id = effective_write_id(properties) or write.commit_write_id
        return properties

    def keep_call(
        self,
        write: InFlightWrite,
        instance: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Keep what hooks want to see, when there are any."""
        if self._has_hooks:
            write.call = instance, args, kwargs, contextvars.copy_context()

    def returned(
        self,
        write: InFlightWrite,
        result: object,
        *,
        table: RawDeltaTable | None,
        storage_options: dict[str, str] | None = None,
    ) -> None:
        """Take note of what the engine returned, and have the write delivered."""
        write.duration_ns = time.perf_counter_ns() - write.clock
        write.storage_options = storage_options
        if write.seam is not None:
            mark_delta_rs_used()
        try:
            if result is not None:
                self._note_result(write, result)
            # What no seam has seen made no commit: files outside Delta, or nothing.
            is_seen = write.seam is not None
            if is_seen and write.no_commit_reason is None and write.location is not None:
                if table is None:
                    _read_commit(write, local_log_directory(write.location), 0)
                else:
                    self._note_commit(write, write.location, table)
        except Exception as error:  # noqa: BLE001 - the log is searched for what was not seen here
            report("commit", error)
        finally:
            self._hand_over(write)

    def _note_result(self, write: InFlightWrite, result: object) -> None:
        if isinstance(result, str):
            write.returned = result
        elif isinstance(result, list):
            write.files_deleted = len(result)
        if write.call is not None:
            write.response = result

    def _note_commit(self, write: InFlightWrite, location: str, table: RawDeltaTable) -> None:
        seam = write.seam
        if seam is not None and seam.moves:
            version = write.version = table.version()
            if version == write.base:
                return
        if write.intent.operation is Operation.UPDATE_TABLE_METADATA:
            self._preparations.clear()  # the table may have another name now
        directory = local_log_directory(location)
        if directory is None:
            write.log = self._table_log(write, table)
        elif write.version is not None:
            _read_commit(write, directory, write.version)

    def raised(
        self,
        write: InFlightWrite,
        error: BaseException,
        *,
        table: RawDeltaTable | None = None,
        storage_options: dict[str, str] | None = None,
    ) -> None:
        """Take note of what the engine raised, and have the write delivered."""
        write.duration_ns = time.perf_counter_ns() - write.clock
        kind, text = type(error), error_text_of(error)
        is_own = fact("taxonomy", lambda: is_programs_own(error), True)  # noqa: FBT003 - nothing leaves then
        location = write.location
        words = "" if is_own else fact("taxonomy", lambda: without_location(text, location), text)
        write.failure = Failed(
            error_type=fact("taxonomy", lambda: classify(error, words), ErrorType.OTHER),
            exception_type=f"{kind.__module__}.{kind.__qualname__}",
            message=text,
            is_programs_own=is_own,
        )
        write.storage_options = storage_options
        if table is None and write.landed is None and kind.__name__ == _NOT_OPENED:
            write.landed = Landed.NO
        if table is not None:  # without one, the error may have come before the engine was asked
            mark_delta_rs_used()
        try:
            if table is not None and location is not None and local_log_directory(location) is None:
                write.log = self._table_log(write, table)
        except Exception as problem:  # noqa: BLE001 - whether it landed is not known then
            report("commit", problem)
        finally:
            self._hand_over(write)

    def _table_log(self, write: InFlightWrite, table: RawDeltaTable) -> TableLog:
        """Return the remote log of an open table, which is asked for it while nobody else uses it."""
        first = 0 if write.base is None else write.base + 1
        last = write.version or first + self.settings.landed_tail
        return TableLog(table, range(first, last + 1))

    def _hand_over(self, write: InFlightWrite) -> None:
        try:
            self._recording.note(write)
        finally:
            # Only now: a reconcile of this process takes what is neither under way nor noted for lost.
            self._under_way.discard(write)
        self._has_written = True
        self._delivery.submit(write)
        if self._is_exiting:
            # Nothing waits for the delivery thread any more once this handler has run.
            self._flush_in_time()

    def resume(self, write: InFlightWrite, table: RawDeltaTable) -> None:
        """Go on with a write that was prepared earlier: a merge that is executed now."""
        write.base = table.version()
        write.started_at = now_ns()
        write.clock = time.perf_counter_ns()
        self.enter(write)

    def _is_busy(self) -> bool:
        return bool(self._under_way)

    def _adopt_providers(self) -> None:
        """Wrap the providers' own flush, as soon as they are there: they may be set after us."""
        tracer_provider, meter_provider, logger_provider = self._providers
        found = self._flushing.adopt(tracer_provider or trace.get_tracer_provider())
        self._flushing.adopt(meter_provider or metrics.get_meter_provider())
        self._flushing.adopt(logger_provider or _logs.get_logger_provider())
        if found:
            self._adopted = True
            # The tracer of before may have been a stand-in for the one that is there now.
            self._spans = WriteSpans(tracer_provider)
            # Exit handlers run last in, first out: ours must come before the provider's shutdown.
            atexit.unregister(self._flush_at_exit)
            atexit.register(self._flush_at_exit)

    # --- on the delivery thread --------------------------------------------------------------------

    def _steps(self, sinks: Sequence[WriteSink]) -> list[Step[InFlightWrite]]:
        steps = [
            Step("commit", self._complete, vital=True),
            Step("redaction", self._redact, vital=True),
            Step("ledger", self._recording.settle, vital=True),
            Step("spans", self._make_span),
            Step("hooks", self._call_hooks),
            Step("spans", self._close_span),
            Step("metrics", lambda seen: self._metrics(_told(seen), _context(seen))),
            Step("logs", lambda seen: self._logs(_told(seen), _context(seen))),
            Step("capture", self._capture),
        ]
        return steps + [Step("sink", _telling(sink)) for sink in sinks]

    def _complete(self, write: InFlightWrite) -> None:
        # First what needs no reading, which may hang.
        write.event = minimal_event(write)
        write.event = complete_event(write, self.settings.landed_tail)

    def _redact(self, write: InFlightWrite) -> None:
        if write.event is not None:
            event = write.event
            told = fact("redaction", lambda: redact(event, self.settings), None)
            write.redacted = told or minimal_redacted_event(event, self.settings)

    def _make_span(self, write: InFlightWrite) -> None:
        prepared = write.prepared
        write.span = self._spans.made(
            write.span,
            prepared.span_name,
            prepared.attributes,
            write.parent,
            write.started_at,
        )

    def _call_hooks(self, write: InFlightWrite) -> None:
        if write.call is None:
            return
        instance, args, kwargs, ambient = write.call
        if self._request_hook is not None:
            ambient.run(self._request_hook, write.span, instance, args, kwargs)
        if self._response_hook is not None and write.failure is None:
            ambient.run(self._response_hook, write.span, instance, write.response)

    def _close_span(self, write: InFlightWrite) -> None:
        if write.redacted is None:
            write.span.end(write.started_at + write.duration_ns)
        else:
            self._spans.close(write.redacted, write.span)

    def _capture(self, write: InFlightWrite) -> None:
        if write.event is not None:
            for sink in self._local_sinks:
                try:
                    sink(write.event)
                except Exception as error:  # noqa: BLE001 - each of the others gets the event
                    report("capture", error)


_TELEMETRY = (
    "_adopted",
    "_counters",
    "_flushing",
    "_logs",
    "_metrics",
    "_providers",
    "_run_spans",
    "_spans",
    "diagnostics",
    "queries",
    "statements",
    "steps",
)
"""Attributes of an observer that its telemetry is made with."""

PREPARATIONS_KEPT = 4096
"""Kinds of writes whose preparation is kept; beyond it all are made anew."""

_NOT_OPENED = "TableNotFoundError"
"""Class of what delta-rs raises for a location that holds no table, or that it knows no storage for."""

TIME_TO_GO = 3.0
"""Seconds that a SIGTERM waits for telemetry, and again for the ledger."""

_observer: Observer | None = None


def _absolute(location: str) -> str:
    """Return a location that means the same when the program has gone to another directory."""
    is_absolute = location.startswith("/") or "://" in location
    return location if is_absolute else os.path.abspath(location)  # noqa: PTH100 - text, not a file


@contextmanager
def _interruptible(run: RunContext) -> Iterator[None]:
    """Let an interrupt end the wait at the end of a process, and nothing else: its exit status is set."""
    try:
        yield
    except KeyboardInterrupt:
        if not run.is_process:
            raise


def _read_commit(write: InFlightWrite, directory: str | None, version: int) -> None:
    """Read the commit now where that is one look at a local disk: its table may be gone soon."""
    content = None if directory is None else read_local_commit(directory, version)
    if content is not None:
        write.commit = RawCommit(version, content)


def _context(write: InFlightWrite) -> Context:
    """Return the context in which the write's span is the current one."""
    return trace.set_span_in_context(write.span, write.parent)


def _told(write: InFlightWrite) -> WriteEvent:
    if write.redacted is None:
        msg = "the event could not be made fit to leave the process"
        raise LookupError(msg)
    return write.redacted


def _telling(sink: WriteSink) -> Callable[[InFlightWrite], None]:
    return lambda write: sink(_told(write))


def _forget_parents_writes() -> None:
    if _observer is not None:
        _observer._forget_under_way()  # noqa: SLF001 - this module's own


def _start_run_before_fork() -> None:
    """Start the implicit run before a fork, so that the process and its children are parts of one run."""
    if _observer is not None and _observer.is_on():
        with suppress(Exception):  # an invalid environment was an error when observing began
            current_run()


os.register_at_fork(before=_start_run_before_fork, after_in_child=_forget_parents_writes)


def current_observer() -> Observer | None:
    """Return the process's observer, or None when nothing is observed."""
    return _observer


def flush(timeout: float | None = None) -> bool:
    """Wait until every write that is finished by now has been delivered to every sink.

    Args:
        timeout: seconds to wait at most; None waits as long as no sink hangs.

    Returns:
        Whether all was delivered in time; True when nothing is observed.

    >>> flush()
    True
    """
    return True if _observer is None else _observer.flush(timeout)
