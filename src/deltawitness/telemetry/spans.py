"""The spans of writes, opened before the engine is called and closed from the event, and those of runs."""

from __future__ import annotations

from contextlib import suppress
from contextvars import Token
from functools import lru_cache
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, ProxyTracer, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from deltawitness.events import Failed
from deltawitness.internal_errors import guarded_value
from deltawitness.process_exit import exit_code_of, is_failure
from deltawitness.redaction import redacted_run
from deltawitness.semconv import (
    CACHE_OPERATION,
    CACHE_POLICY,
    CACHE_SCOPE,
    CICD_PIPELINE_NAME,
    CICD_PIPELINE_RUN_ID,
    DB_COLLECTION_NAME,
    DB_OPERATION_NAME,
    DB_QUERY_SUMMARY,
    DB_SYSTEM_NAME,
    ERROR_TYPE,
    FORCE_SAMPLE,
    MESSAGE,
    PROCESS_EXIT_CODE,
    RUN_ATTRIBUTE_PREFIX,
    RUN_ID,
    RUN_PARENT_ID,
    SCHEMA_URL,
    SCOPE_NAME,
    WITNESS_VERSION,
    WRITE_PHASE,
    system_of,
)
from deltawitness.telemetry.attributes import (
    AttributeValue,
    event_attributes,
    origin_attributes,
)
from deltawitness.telemetry.deferred_spans import DeferredSpan, DeferredSpans
from deltawitness.telemetry.global_providers import is_tracer_provider_unset
from deltawitness.telemetry.run_span_file import RunSpanFile, take_accepted_file
from deltawitness.telemetry.run_writes import RunWrites, WritesOfRuns
from deltawitness.telemetry.suppression import get_context

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import TracerProvider

    from deltawitness.events import WriteEvent, WriteIntent, WritePhase
    from deltawitness.run_context import RunContext

__all__ = ["RunSpans", "WriteSpans", "traceparent_of"]

_propagator = TraceContextTextMapPropagator()


class WriteSpans:
    """Opens and closes the span of a write.

    Args:
        tracer_provider: whose tracer to use; the global one when None.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(
            SCOPE_NAME, WITNESS_VERSION, tracer_provider, schema_url=SCHEMA_URL
        )
        self._deferred = (
            DeferredSpans(self._tracer) if DeferredSpans.are_possible(self._tracer) else None
        )
        self._is_proxy = type(self._tracer) is ProxyTracer

    def open(self, name: str, attributes: dict[str, str], parent: Context, started_at: int) -> Span:
        """Start the span, or reserve its ids where it can be started later (:meth:`start_deferred`).

        Args:
            name: its name (:func:`span_name`).
            attributes: attributes that a sampler may read (:func:`sampling_attributes`).
            parent: the context of its parent (:func:`parent_context`).
            started_at: nanoseconds since the Unix epoch.
        """
        if self._deferred is not None:
            reserved = self._deferred.reserve(parent)
            if reserved is not None:
                return reserved
        elif not parent and self._is_proxy and is_tracer_provider_unset():
            return INVALID_SPAN  # as the tracer would, in a tenth of the time
        return self._tracer.start_span(name, parent, SpanKind.CLIENT, attributes, (), started_at)

    def start_deferred(
        self, span: Span, name: str, attributes: dict[str, str], parent: Context, started_at: int
    ) -> Span:
        """Start the span whose ids :meth:`open` has reserved; return any other span unchanged.

        Args:
            span: what :meth:`open` returned.
            name: as for :meth:`open`, like the other arguments.
            attributes: as for :meth:`open`.
            parent: as for :meth:`open`.
            started_at: as for :meth:`open`.
        """
        if self._deferred is None or not isinstance(span, DeferredSpan):
            return span
        tracer = self._deferred.tracer_for(span)
        return tracer.start_span(name, parent, SpanKind.CLIENT, attributes, (), started_at)

    def close(self, event: WriteEvent, span: Span) -> None:
        """End the span at the end time of the event, with its attributes and a child span for each phase."""
        if span.is_recording():
            for phase in event.phases:
                self._add_phase(event, span, phase)
            span.set_attributes(guarded_value("spans", lambda: event_attributes(event), {}))
            if isinstance(event.outcome, Failed):
                span.set_status(Status(StatusCode.ERROR, event.outcome.message))
        span.end(event.started_at + event.duration_ns)

    def _add_phase(self, event: WriteEvent, span: Span, phase: WritePhase) -> None:
        start = event.started_at + phase.start_ns
        child = self._tracer.start_span(
            phase.name,
            trace.set_span_in_context(span),
            SpanKind.INTERNAL,
            {
                DB_SYSTEM_NAME: system_of(event.intent.operation),
                DB_OPERATION_NAME: event.intent.operation.value,
                WRITE_PHASE: phase.name,
            },
            (),
            start,
        )
        child.end(start + phase.duration_ns)


def span_name(intent: WriteIntent) -> str:
    """Return `{operation} {table}`; the operation alone when the table has no exportable name."""
    operation = intent.operation.value
    return f"{operation} {intent.table_name}" if intent.table_name else operation


def sampling_attributes(intent: WriteIntent) -> dict[str, str]:
    """Return the attributes that the semantic conventions require at the start of a span."""
    attributes = {
        DB_SYSTEM_NAME: system_of(intent.operation),
        DB_OPERATION_NAME: intent.operation.value,
        CACHE_POLICY: intent.policy,
        CACHE_SCOPE: intent.scope.value,
        CACHE_OPERATION: intent.cache_operation.value,
    }
    if intent.table_name:
        attributes[DB_COLLECTION_NAME] = intent.table_name
        attributes[DB_QUERY_SUMMARY] = span_name(intent)
    return attributes


def parent_context(run: RunContext, current: Context | None = None) -> Context:
    """Return the current context; where it has no span, with the remote parent span of the run.

    Args:
        run: the run, whose `traceparent` is that of the process's parent.
        current: the context to use instead of the current one.
    """
    if current is None:
        current = get_context()
    if run.traceparent is None or trace.get_current_span(current).get_span_context().is_valid:
        return current
    return trace.set_span_in_context(_remote_parent(run.traceparent), current)


@lru_cache(maxsize=64)
def _remote_parent(traceparent: str) -> Span:
    return trace.get_current_span(_propagator.extract({"traceparent": traceparent}))


def traceparent_of(span: Span) -> str | None:
    """Return the W3C `traceparent` of a span, or None when there is no trace.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    if type(span) is DeferredSpan:
        return span.traceparent
    if span is INVALID_SPAN:
        return None
    context = span.get_span_context()
    if not context.trace_id:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class RunSpans:
    """A run listener that opens a span for each explicit run, so that its writes share a trace.

    Args:
        tracer_provider: whose tracer to use; the global one when None.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(
            SCOPE_NAME, WITNESS_VERSION, tracer_provider, schema_url=SCHEMA_URL
        )
        # By id() of the run object: a scheduler may use one run id for several runs of a process.
        self._open: dict[int, tuple[Span, Token[Context], RunSpanFile | None, RunWrites]] = {}
        self._writes = WritesOfRuns()

    def run_started(self, run: RunContext) -> None:
        """Start the run's span and make it the current one."""
        parent, redacted = parent_context(run), redacted_run(run)
        span = self._tracer.start_span(
            redacted.job, context=parent, kind=SpanKind.INTERNAL, start_time=run.started_at
        )
        span.set_attributes(_run_attributes(redacted))
        token = otel_context.attach(trace.set_span_in_context(span, parent))
        self._open[id(run)] = span, token, _started_file(run, span), self._writes.run_started(run)

    def write_ended(self, event: WriteEvent) -> None:
        """Count a delivered write for the spans of its run and of the runs around it."""
        self._writes.write_ended(event)

    def run_ended(self, run: RunContext, error: BaseException | None) -> None:
        """End the run's span; of an error, only the class is exported."""
        entry = self._open.pop(id(run), None)
        if entry is None:
            return
        span, token, file, writes = entry
        otel_context.detach(token)
        self._writes.run_ended(run)
        span.set_attributes(writes.attributes())
        if file is not None or span.is_recording():  # else it was ended before an exec that failed
            _end_run_span(span, file, error, ends_process=run.is_process)

    def end_all(self, error: BaseException) -> None:
        """End the spans of all open runs, from any thread, before a signal ends the process."""
        while self._open:
            with suppress(KeyError):  # the run's thread may end it at the same time
                span, _, file, writes = self._open.popitem()[1]
                span.set_attributes(writes.attributes())
                _end_run_span(span, file, error, ends_process=True)

    def end_before_exec(self) -> None:
        """End the spans of all open runs, except the one that the command exports.

        The runs stay open: the exec may fail.
        """
        for span, _, file, writes in list(self._open.values()):
            if file is None and span.is_recording():
                span.set_attributes(writes.attributes())
                _end_run_span(span, None, None, ends_process=False)


def _started_file(run: RunContext, span: Span) -> RunSpanFile | None:
    """Return the file for the span of the process's run, if the command exports that span."""
    file = take_accepted_file() if run.is_process else None
    return file if file is not None and file.start(span) else None


def _end_run_span(
    span: Span, file: RunSpanFile | None, error: BaseException | None, *, ends_process: bool
) -> None:
    code = exit_code_of(error, ends_process=ends_process)
    if code is not None:
        span.set_attribute(PROCESS_EXIT_CODE, code)
    if error is not None and is_failure(error):
        span.set_attribute(ERROR_TYPE, type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR))
    if file is None or not file.end(span):
        span.end()


def _run_attributes(run: RunContext) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        RUN_ID: run.run_id,
        CICD_PIPELINE_NAME: run.job,
        CICD_PIPELINE_RUN_ID: run.origin.run_id or run.run_id,
        **origin_attributes(run.origin),
    }
    if run.message is not None:
        attributes[MESSAGE] = run.message
    if run.parent_run_id is not None:
        attributes[RUN_PARENT_ID] = run.parent_run_id
    if run.force_sample:
        attributes[FORCE_SAMPLE] = True
    return attributes | {
        f"{RUN_ATTRIBUTE_PREFIX}{key}": value for key, value in run.attributes.items()
    }
