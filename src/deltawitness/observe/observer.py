"""The observer of the process: its start and end, the runs, forks, and the flush at exit."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import util as multiprocessing_util
from typing import TYPE_CHECKING

from deltawitness.delivery import Delivery
from deltawitness.events import WriteSink
from deltawitness.forks import at_fork
from deltawitness.internal_errors import guard, on_internal_error, report
from deltawitness.ledger.tables.locations import resolve
from deltawitness.observe.call_observer import CallObserver
from deltawitness.observe.delivery_steps import DeliverySteps, RequestHook, ResponseHook
from deltawitness.observe.exporters import Exporters
from deltawitness.observe.optional_ledger import ledger_sink_for
from deltawitness.observe.queued_sink import QueuedSink
from deltawitness.observe.sigterm import SigtermHandler
from deltawitness.process_exit import Terminated, restore_interrupt
from deltawitness.run import (
    add_run_listener,
    check_environment,
    current_cache_context,
    current_run,
    remove_run_listener,
    unhandled_error,
)
from deltawitness.run_context import RunContext
from deltawitness.run_origin import OriginOptions, use_origin_options
from deltawitness.settings import Settings, use_settings
from deltawitness.telemetry.cache_spans import on_cache_operation, use_providers
from deltawitness.telemetry.metrics import DrainInstruments
from deltawitness.thread_hold import hold_at_exit
from deltawitness.thread_start import start_thread

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from deltawitness.ledger.drain.recorder import Recorder
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.telemetry.diagnostics import DiagnosticsSink
    from deltawitness.telemetry.metrics import StatementInstruments
    from deltawitness.telemetry.query_spans import QueryTelemetry
    from deltawitness.telemetry.task_spans import TaskSpans

__all__ = ["Observer", "RequestHook", "ResponseHook", "current_observer", "flush"]


class Observer(CallObserver):
    """Observes writes with one set of providers, settings and sinks.

    Args:
        settings: how to behave; from the environment when None.
        tracer_provider: receives the spans; the global provider when None.
        meter_provider: receives the metrics; the global provider when None.
        logger_provider: receives the log records; the global provider when None.
        sinks: get every finished write after the built-in sinks, redacted.
        request_hook: may add to each span; runs on the delivery thread, in the caller's context.
        response_hook: the same, with the engine's response.

    Attributes:
        settings: how it behaves.
        recorder: the ledger's recorder in this process; None when the ledger is disabled.

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
        settings = resolve(Settings.or_from_env(settings))
        # An invalid run or scope in the environment is an error now, before any write.
        check_environment()
        current_cache_context()
        exporters = Exporters(
            settings, self._flush_in_time, tracer_provider, meter_provider, logger_provider
        )
        ledger = ledger_sink_for(
            settings, is_busy=self._is_busy, on_drop=exporters.counters.count_dropped
        )
        super().__init__(
            settings,
            exporters,
            ledger,
            has_hooks=request_hook is not None or response_hook is not None,
        )
        self._is_exiting = False
        self._is_forked = False
        self.recorder: Recorder | None = ledger.recorder
        if self.recorder is not None:
            drains = DrainInstruments(meter_provider, self.recorder)
            self.recorder.drains.on_drain = drains.record
            self.recorder.await_rows = self._flush_in_time
        self._delivery_steps = DeliverySteps(
            settings, lambda: self._exporters, ledger, request_hook, response_hook
        )
        self._delivery = Delivery(
            self._delivery_steps.steps(sinks),
            interval=settings.delivery_interval,
            capacity=settings.queue_size,
            step_timeout=settings.sink_timeout,
            is_busy=self._is_busy,
            on_error=report,
            on_drop=exporters.counters.count_dropped,
        )
        self._queued_sinks = tuple(sink for sink in sinks if isinstance(sink, QueuedSink))
        for sink in self._queued_sinks:
            sink.on_drop = exporters.counters.count_dropped
            sink.is_busy = self._is_busy
        self._termination = SigtermHandler(self._flush_before_termination)

    @property
    def queries(self) -> QueryTelemetry:
        """The telemetry of queries, for the proxies that run them."""
        return self._exporters.queries

    @property
    def statements(self) -> StatementInstruments:
        """Counts repeated statements, for the proxies that run them."""
        return self._exporters.statements

    @property
    def steps(self) -> TaskSpans:
        """The spans of a workflow's tasks, for the integrations that run them."""
        return self._exporters.steps

    @property
    def diagnostics(self) -> DiagnosticsSink:
        """The sink of diagnostics artifacts."""
        return self._exporters.diagnostics

    def start(self) -> None:
        """Become the process's observer: listen to runs, and flush at exit."""
        global _observer  # noqa: PLW0603 - one observer per process
        _observer = self
        use_settings(self.settings)
        self._exporters.use()
        use_origin_options(_origin_options(self.settings))
        if self.recorder is not None:
            on_cache_operation(self.recorder.record_operation)
        add_run_listener(self)
        # Registered first, so that it runs after every other exit handler of deltawitness.
        atexit.register(restore_interrupt)
        atexit.register(self._flush_at_exit)
        # Children of multiprocessing end by os._exit(), which runs only these finalizers.
        multiprocessing_util.register_after_fork(self, Observer._finish_child)
        if self.recorder is not None:
            self._termination.install()
        # From the exit handler on, each write waits on its own thread until it is delivered.
        self._is_exiting = False

    @contextmanager
    def exporting_to(
        self,
        *,
        tracer_provider: TracerProvider,
        meter_provider: MeterProvider,
        logger_provider: LoggerProvider,
    ) -> Iterator[None]:
        """Export the telemetry of the block to other providers.

        Commits, the ledger and the sinks are the same as outside of the block.

        Args:
            tracer_provider: receives the spans.
            meter_provider: receives the metrics.
            logger_provider: receives the log records.
        """
        self._flush_in_time()
        before = self._exporters
        self._exporters = Exporters(
            self.settings, self._flush_in_time, tracer_provider, meter_provider, logger_provider
        )
        self._exporters.use()
        try:
            yield
        finally:
            self._flush_in_time()
            self._exporters.flushing.restore()
            self._exporters = before
            before.use()

    def stop(self) -> None:
        """Deliver the queued writes, drain the ledger, and stop observing."""
        global _observer  # noqa: PLW0603 - one observer per process
        self._delivery.close(self._flush_timeout())
        self._close_sinks()
        self._recording.close(None, timeout=self._flush_timeout())
        self._termination.uninstall()
        remove_run_listener(self)
        self._exporters.flushing.restore()
        atexit.unregister(self._flush_at_exit)
        atexit.unregister(restore_interrupt)
        if _observer is self:
            _observer = None
            use_settings(None)
            use_origin_options(None)
            on_internal_error(None)
            use_providers(None, None, None)
            on_cache_operation(None)

    def _finish_child(self) -> None:
        multiprocessing_util.Finalize(None, self._flush_child, exitpriority=100)

    def _flush_child(self) -> None:
        if self._flush_in_time():
            with suppress(Exception):  # exporters log their own errors
                self._exporters.flushing.force_flush()
        self._close_sinks()
        self._recording.close(None, timeout=self._flush_timeout())

    def run_started(self, run: RunContext) -> None:
        """Open the run's span."""
        self._recording.run_started(run)
        try:
            self._exporters.run_spans.run_started(run)
        except Exception as error:  # noqa: BLE001 - telemetry never changes the program
            report("run", error)

    def run_ending(self, run: RunContext) -> None:
        """Deliver the queued writes, so that a run's telemetry is complete when the run ends."""
        with _interruptible(run):
            self._flush_in_time()

    def run_ended(self, run: RunContext, error: BaseException | None) -> None:
        """Close the run's span."""
        try:
            self._exporters.run_spans.run_ended(run, error)
        except Exception as problem:  # noqa: BLE001 - telemetry never changes the program
            report("run", problem)
        self._recording.run_ended(run, error)

    def run_closed(self, run: RunContext) -> None:
        """Drain the rows of the run into the ledger."""
        with _interruptible(run):
            self._recording.run_closed(run)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every finished write has been delivered to every sink; see :func:`flush`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        is_delivered = self._delivery.flush(timeout)
        for sink in self._queued_sinks:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            is_delivered = sink.flush(left) and is_delivered
        return is_delivered

    def _close_sinks(self, timeout: float | None = None) -> None:
        """Send what is queued in sinks, each for at most `timeout` seconds; the sink timeout when None."""
        for sink in self._queued_sinks:
            with guard(sink.component):
                sink.close(self.settings.sink_timeout if timeout is None else timeout)

    def _flush_in_time(self) -> bool:
        return self._delivery.flush(self._flush_timeout())

    def _flush_at_exit(self) -> None:
        self._is_exiting = True
        if self.recorder is not None:
            self.recorder.drains.is_exiting = True
        # An interrupt ends the wait and leaves the program's exit status; the rest is drained later.
        with suppress(KeyboardInterrupt):
            self._flush_in_time()
        with suppress(KeyboardInterrupt):
            self._close_sinks()
        with suppress(KeyboardInterrupt):
            self._recording.close(unhandled_error(), timeout=self._flush_timeout())

    def _flush_before_termination(self) -> None:
        """Deliver, export and drain what is queued, within the time limits for SIGTERM."""
        if self.recorder is not None:
            self.recorder.drains.is_terminated = True
        self._delivery.flush(TERMINATION_TIMEOUT)
        self._exporters.run_spans.end_all(Terminated())
        self._close_sinks(TERMINATION_TIMEOUT)
        with self._flushing_providers():
            self._recording.close(Terminated(), timeout=TERMINATION_TIMEOUT)

    @contextmanager
    def _flushing_providers(self) -> Iterator[None]:
        """Flush the providers in parallel with the block, for at most `TERMINATION_TIMEOUT` seconds.

        In parallel, because an exporter whose server does not answer takes all of its time.
        """
        flushing = threading.Thread(
            target=self._exporters.flushing.force_flush_within,
            args=(TERMINATION_TIMEOUT,),
            name="deltawitness-flush",
            daemon=True,
        )
        is_parallel = start_thread(flushing)
        try:
            yield
        finally:
            if is_parallel:
                flushing.join(TERMINATION_TIMEOUT)
            else:
                flushing.run()

    def export_soon(self) -> None:
        """Deliver and export on another thread what this process has written since the last call.

        For a worker that its engine may kill at the end of a task. Nothing waits for it.
        """
        if self._has_unexported and self._exporters.has_sdk:
            self._has_unexported = False
            flush = self._exporters.flushing.force_flush_within  # delivers first
            start_thread(
                threading.Thread(
                    target=flush,
                    args=(TERMINATION_TIMEOUT,),
                    name="deltawitness-export",
                    daemon=True,
                )
            )

    def prepare_exec(self) -> Callable[[], None]:
        """Deliver, export and drain what is queued, before an exec replaces the program of the process.

        The time limits are those for SIGTERM, but a drain that is only slow may take longer. In a process
        that has observed nothing, it does nothing.

        Returns:
            A callable that continues the observation; call it when the exec has failed.
        """
        recorder = self.recorder
        has_runs = recorder is not None and bool(recorder.run_ids)
        if not (self._has_written or has_runs):
            return lambda: None
        self._delivery.flush(TERMINATION_TIMEOUT)
        if not self._is_forked:  # in a forked child, the spans of open runs are the parent's
            self._exporters.run_spans.end_before_exec()
        self._close_sinks(TERMINATION_TIMEOUT)
        with self._flushing_providers():
            return self._recording.close_before_exec(timeout=TERMINATION_TIMEOUT)

    def pause_delivery(self) -> None:
        """End the delivery thread until a fork is over."""
        self._delivery.pause()

    def _clear_parents_writes(self) -> None:
        """In a forked child, drop the parent's writes that were in the engine: the parent records them."""
        self._under_way.clear()
        self._has_written = False
        self._is_forked = True

    def _flush_timeout(self) -> float:
        # Enough for one sink to time out, and then for the other sinks to run.
        return 2 * self.settings.sink_timeout + 1

    def add_sink(self, sink: WriteSink) -> None:
        """Pass every finished write to `sink` as well, without redaction: it stays in this process."""
        steps = self._delivery_steps
        steps.local_sinks = (*steps.local_sinks, sink)

    def remove_sink(self, sink: WriteSink) -> None:
        """Stop passing writes to `sink`."""
        steps = self._delivery_steps
        steps.local_sinks = tuple(other for other in steps.local_sinks if other is not sink)

    # --- what the caller's thread needs of the lifecycle ---------------------------------------------

    def _submit(self, write: InFlightWrite) -> None:
        """Queue a finished write for delivery; in an exit handler, wait until it is delivered."""
        self._delivery.submit(write)
        if self._is_exiting:
            # Nothing waits for the delivery thread once this exit handler has run.
            self._flush_in_time()
            self._close_sinks()

    def _wrap_providers(self) -> None:
        """Make the providers' own flush deliver the queued writes first."""
        if self._exporters.wrap_providers():
            # Exit handlers run last in, first out: this one must run before the provider's shutdown.
            atexit.unregister(self._flush_at_exit)
            atexit.register(self._flush_at_exit)


TERMINATION_TIMEOUT = 3.0
"""Seconds that a SIGTERM waits for the delivery, and again for the ledger and the providers."""

_observer: Observer | None = None


@contextmanager
def _interruptible(run: RunContext) -> Iterator[None]:
    """Swallow an interrupt of the wait at the end of a process, whose exit status is decided already."""
    try:
        yield
    except KeyboardInterrupt:
        if not run.is_process:
            raise


def _clear_in_child() -> None:
    if _observer is not None:
        _observer._clear_parents_writes()  # noqa: SLF001 - this module's own


def _start_run_before_fork() -> None:
    """Start the implicit run before a fork, so that the process and its children share one run."""
    if _observer is None:
        return
    if _observer.is_on():
        with suppress(Exception):  # an invalid environment was an error at the start of observing
            current_run()
    # Before the recorder's handler, which holds the lock of the spool: a delivery may need it.
    _observer.pause_delivery()


at_fork(before=_start_run_before_fork, after_in_child=_clear_in_child)
hold_at_exit()


def current_observer() -> Observer | None:
    """Return the process's observer; None when nothing is observed."""
    return _observer


def flush(timeout: float | None = None) -> bool:
    """Wait until every write that has finished so far is delivered to every sink.

    Args:
        timeout: seconds to wait at most; None waits without a limit, but not for a sink that hangs.

    Returns:
        Whether all writes were delivered in time; True when nothing is observed.

    >>> flush()
    True
    """
    return True if _observer is None else _observer.flush(timeout)


def _origin_options(settings: Settings) -> OriginOptions:
    """Return what may be read of the environment.

    `DELTAWITNESS_DETECT_ENVIRONMENT=false` also holds for a program that passes its own settings.
    """
    is_allowed = OriginOptions.from_environment(os.environ).is_detected
    return OriginOptions(
        is_detected=is_allowed and settings.detect_environment,
        reads_author=settings.detect_author,
        reads_git=settings.detect_git,
        code_version=settings.code_version,
        author=settings.author,
    )
