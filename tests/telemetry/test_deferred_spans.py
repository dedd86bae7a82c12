"""A deferred span has the ids that the commit got before the span was created."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    ParentBasedTraceIdRatio,
    TraceIdRatioBased,
)

from deltawitness import DeltaLakeInstrumentor, flush, read_commit_metadata
from deltawitness.telemetry.deferred_spans import DeferredSpans

DATA = pa.table({"x": [1]})


@pytest.fixture
def observed():
    """Instrument with a sampler; return the provider and its finished spans."""

    def start(sampler):
        provider, exporter = TracerProvider(sampler, shutdown_on_exit=False), InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        DeltaLakeInstrumentor().instrument(tracer_provider=provider)

        def finished():
            flush()
            return exporter.get_finished_spans()

        return provider, finished

    return start


@pytest.mark.parametrize(
    ("sampler", "is_reserved"),
    [
        (ALWAYS_ON, True),
        (DEFAULT_ON, True),
        (ALWAYS_OFF, False),
        (TraceIdRatioBased(1.0), False),
        (ParentBasedTraceIdRatio(1.0), False),
    ],
    ids=lambda value: getattr(value, "get_description", lambda: value)(),
)
def test_commit_and_span_have_the_same_ids_with_every_sampler(
    sampler, is_reserved, observed, tmp_path
):
    """Trace id, span id and flags agree; an unpredictable sampler is called at the start."""
    provider, finished = observed(sampler)
    assert DeferredSpans.are_possible(provider.get_tracer("x")) == is_reserved
    write_deltalake(tmp_path, DATA)
    traceparent = read_commit_metadata(tmp_path).metadata["traceparent"]
    traceparents = [
        f"00-{s.context.trace_id:032x}-{s.context.span_id:016x}-{s.context.trace_flags:02x}"
        for s in finished()
    ]
    assert traceparents == ([] if sampler is ALWAYS_OFF else [traceparent])


def test_the_parent_and_the_start_are_those_of_the_write(observed, tmp_path):
    """They are those of the write, although the span is created after the parent has ended."""
    provider, finished = observed(DEFAULT_ON)
    with provider.get_tracer("app").start_as_current_span("job") as parent:
        write_deltalake(tmp_path, DATA)
    written = next(span for span in finished() if span.name != "job")
    around = parent.get_span_context()
    assert (written.context.trace_id, written.parent.span_id) == (around.trace_id, around.span_id)
    assert parent.start_time <= written.start_time <= written.end_time <= parent.end_time


def test_a_write_inside_an_unsampled_trace_is_not_recorded_and_not_in_another_trace(
    observed, tmp_path
):
    """The caller's sampling decision stands, and the commit has it."""
    _, finished = observed(DEFAULT_ON)
    around = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(0))
    with trace.use_span(trace.NonRecordingSpan(around)):
        write_deltalake(tmp_path, DATA)
    traceparent = read_commit_metadata(tmp_path).metadata["traceparent"]
    assert finished() == ()
    assert traceparent.startswith(f"00-{1:032x}-")
    assert traceparent.endswith("-00")
