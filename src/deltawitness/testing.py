"""Helpers for tests of programs that write Delta tables: captured writes, fixed ids, in-memory telemetry.

The pytest plugin :mod:`deltawitness.pytest_plugin` provides them as fixtures.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltawitness import ids_and_clock
from deltawitness.extras import require
from deltawitness.observe import current_observer, flush

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

    from deltawitness.events import WriteEvent

__all__ = [
    "CapturedWrites",
    "InMemoryTelemetry",
    "capture_telemetry",
    "capture_writes",
    "fixed_clock",
    "fixed_ids",
]


class CapturedWrites:
    """The observed writes, in order. Reading them first waits for the delivery of finished writes."""

    def __init__(self) -> None:
        self._events: list[WriteEvent] = []
        self._lock = threading.Lock()

    def __call__(self, event: WriteEvent) -> None:
        """Add a finished write. The object is used as a sink."""
        with self._lock:
            self._events.append(event)

    @property
    def events(self) -> list[WriteEvent]:
        """All finished writes, unredacted."""
        flush()
        with self._lock:
            return list(self._events)

    @property
    def last(self) -> WriteEvent:
        """The write that finished last.

        Raises:
            IndexError: no write was observed.
        """
        return self.events[-1]

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[WriteEvent]:
        return iter(self.events)


@contextmanager
def capture_writes() -> Iterator[CapturedWrites]:
    """Collect the writes inside the block. Instruments delta-rs for the block if it is not instrumented.

    >>> import pyarrow as pa, tempfile
    >>> from deltalake import write_deltalake
    >>> with tempfile.TemporaryDirectory() as folder, capture_writes() as writes:
    ...     write_deltalake(folder, pa.table({"x": [1, 2]}))
    ...     writes.last.outcome.metrics.rows_added
    2
    """
    from deltawitness.instrumentation import DeltaLakeInstrumentor  # noqa: PLC0415 - heavy, and a plugin is always imported

    captured = CapturedWrites()
    instrumentor = DeltaLakeInstrumentor()
    is_new = not instrumentor.is_instrumented_by_opentelemetry
    if is_new:
        instrumentor.instrument()
    observer = current_observer()
    if observer is None:
        msg = "deltalake is marked as instrumented, but has no observer"
        raise RuntimeError(msg)
    flush()  # so that writes from before the block are not captured
    observer.add_sink(captured)
    try:
        yield captured
    finally:
        flush()
        observer.remove_sink(captured)
        if is_new:
            instrumentor.uninstrument()


@contextmanager
def fixed_clock(
    start_ns: int = 1_700_000_000_000_000_000, step_ns: int = 1_000_000
) -> Iterator[None]:
    """Use a clock that starts at `start_ns` and advances by `step_ns` at each reading (nanoseconds)."""
    ticks = itertools.count(start_ns, step_ns)
    with ids_and_clock.fixed(clock=lambda: next(ticks)):
        yield


@contextmanager
def fixed_ids(form: str = "00000000-0000-7000-8000-{:012d}") -> Iterator[None]:
    """Use run and write ids that count up from 1, formatted by `form`.

    >>> from deltawitness.run import run
    >>> with fixed_ids(), run("nightly") as r:
    ...     r.run_id
    '00000000-0000-7000-8000-000000000001'
    """
    numbers = itertools.count(1)
    with ids_and_clock.fixed(ids=lambda: form.format(next(numbers))):
        yield


@dataclass(frozen=True, slots=True)
class InMemoryTelemetry:
    """OpenTelemetry SDK providers that store all telemetry in memory.

    Attributes:
        tracer_provider: argument of `instrument()`.
        meter_provider: argument of `instrument()`.
        logger_provider: argument of `instrument()`.
    """

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    logger_provider: LoggerProvider
    _spans: Any
    _metrics: Any
    _logs: Any

    @classmethod
    def create(cls) -> InMemoryTelemetry:
        """Create the providers.

        Raises:
            MissingExtraError: the OpenTelemetry SDK is not installed (extra `otel`).
        """
        require("InMemoryTelemetry", "opentelemetry.sdk")
        from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - optional dependency
        from opentelemetry.sdk._logs import export as log_export  # noqa: PLC0415 - optional dependency
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - optional dependency
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415 - optional dependency
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - optional dependency
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415 - optional dependency
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415 - optional dependency
            InMemorySpanExporter,
        )

        # An older SDK has the class under another name.
        log_exporter: Any = (
            getattr(log_export, "InMemoryLogRecordExporter", None) or log_export.InMemoryLogExporter
        )
        spans, logs, reader = InMemorySpanExporter(), log_exporter(), InMemoryMetricReader()
        tracer_provider = TracerProvider(shutdown_on_exit=False)
        tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
        logger_provider = LoggerProvider(shutdown_on_exit=False)
        logger_provider.add_log_record_processor(log_export.SimpleLogRecordProcessor(logs))
        meter_provider = MeterProvider([reader], shutdown_on_exit=False)
        return cls(tracer_provider, meter_provider, logger_provider, spans, reader, logs)

    def spans(self) -> list[ReadableSpan]:
        """Return the finished spans in the order of their ends."""
        flush()
        return list(self._spans.get_finished_spans())

    def log_records(self) -> list[ReadableLogRecord]:
        """Return the log records, in order."""
        flush()
        return list(self._logs.get_finished_logs())

    def metric_points(self) -> dict[str, list[Any]]:
        """Return the data points by instrument name, for instruments that have data points."""
        flush()
        data = self._metrics.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def providers(self) -> dict[str, Any]:
        """Return the providers as keyword arguments of `instrument()`."""
        return {
            "tracer_provider": self.tracer_provider,
            "meter_provider": self.meter_provider,
            "logger_provider": self.logger_provider,
        }


@contextmanager
def capture_telemetry() -> Iterator[InMemoryTelemetry]:
    """Collect the telemetry of the writes inside the block. Instruments delta-rs for the block if needed.

    In a process that is already observed, as under `deltawitness run`, the telemetry of the block is
    collected instead of exported; commit metadata and ledger rows are written as outside the block.

    Raises:
        MissingExtraError: the OpenTelemetry SDK is not installed (extra `otel`).
    """
    from deltawitness.instrumentation import DeltaLakeInstrumentor  # noqa: PLC0415 - heavy, and a plugin is always imported

    memory = InMemoryTelemetry.create()
    instrumentor, observer = DeltaLakeInstrumentor(), current_observer()
    if instrumentor.is_instrumented_by_opentelemetry and observer is not None:
        with observer.exporting_to(**memory.providers()):
            yield memory
        return
    instrumentor.instrument(**memory.providers())
    try:
        yield memory
    finally:
        instrumentor.uninstrument()
