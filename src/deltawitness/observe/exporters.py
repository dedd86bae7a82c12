"""The telemetry objects of one set of OpenTelemetry providers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import _logs, metrics, trace

from deltawitness.internal_errors import on_internal_error
from deltawitness.telemetry.cache_spans import use_providers
from deltawitness.telemetry.diagnostics import DiagnosticsSink, diagnostics_sink
from deltawitness.telemetry.global_providers import global_providers
from deltawitness.telemetry.logs import LogSink
from deltawitness.telemetry.metrics import InternalCounters, MetricSink, StatementInstruments
from deltawitness.telemetry.provider_flush import FlushFirst
from deltawitness.telemetry.query_spans import QueryTelemetry
from deltawitness.telemetry.spans import RunSpans, WriteSpans
from deltawitness.telemetry.task_spans import TaskSpans

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from deltawitness.settings import Settings

__all__ = ["Exporters"]


class Exporters:
    """Everything that emits spans, metrics and log records through one set of providers.

    Args:
        settings: which diagnostics sink to use.
        deliver: delivers what is queued; called before a provider's own flush or shutdown.
        tracer_provider: receives the spans; the global provider when None.
        meter_provider: receives the metrics; the global provider when None.
        logger_provider: receives the log records; the global provider when None.

    Attributes:
        spans: the spans of writes.
        run_spans: the spans of runs.
        metrics: the metrics of writes.
        logs: the log records of writes.
        counters: counts internal errors and dropped events.
        queries: the telemetry of queries.
        statements: counts repeated statements.
        steps: the spans of a workflow's tasks.
        diagnostics: receives diagnostics artifacts.
        flushing: the providers whose flush is wrapped.
        has_sdk: whether the tracer provider of an SDK was found and wrapped.
    """

    def __init__(
        self,
        settings: Settings,
        deliver: Callable[[], object],
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        logger_provider: LoggerProvider | None,
    ) -> None:
        self._providers = tracer_provider, meter_provider, logger_provider
        self._seen: tuple[Any, Any, Any] | None = None
        self.has_sdk: bool = False
        self.spans: WriteSpans = WriteSpans(tracer_provider)
        self.run_spans: RunSpans = RunSpans(tracer_provider)
        self.metrics: MetricSink = MetricSink(meter_provider)
        self.logs: LogSink = LogSink(logger_provider)
        self.counters: InternalCounters = InternalCounters(meter_provider)
        self.queries: QueryTelemetry = QueryTelemetry(tracer_provider, meter_provider)
        self.statements: StatementInstruments = StatementInstruments(meter_provider)
        self.steps: TaskSpans = TaskSpans(tracer_provider)
        self.diagnostics: DiagnosticsSink = diagnostics_sink(settings, logger_provider)
        self.flushing: FlushFirst = FlushFirst(deliver)

    def use(self) -> None:
        """Make these the exporters of cache spans and of internal error counts in this process."""
        on_internal_error(self.counters.count_error)
        use_providers(*self._providers)

    def wrap_providers(self) -> bool:
        """Wrap the flush of the providers, which may be set after the observer has started.

        Returns:
            Whether the tracer provider is one of an SDK.
        """
        if self._seen is not None and self._seen == global_providers():
            return False  # nothing was set since the last call
        tracer_provider, meter_provider, logger_provider = self._providers
        self.has_sdk = self.flushing.wrap(tracer_provider or trace.get_tracer_provider())
        self.flushing.wrap(meter_provider or metrics.get_meter_provider())
        self.flushing.wrap(logger_provider or _logs.get_logger_provider())
        if self.has_sdk:
            # The earlier tracer may have been a proxy for the tracer of this provider.
            self.spans = WriteSpans(tracer_provider)
        self._seen = global_providers()
        return self.has_sdk
