"""Sampling of runs that last longer than the sampler waits: what matters is kept, and nothing else."""

from __future__ import annotations

import contextvars
import threading
from collections import Counter

import grpc
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import deltawitness
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.semconv import (
    DB_OPERATION_NAME,
    FORCE_SAMPLE,
    RUN_FAILED_WRITES,
    RUN_SLOWEST_WRITE,
)
from helpers.collector_parts import until

SLOW_S = 0.2
WAITS = {"DECISION_WAIT": "12s", "DECISION_WAIT_AFTER_ROOT": "1s", "SLOW_MS": "200"}
"""A tenth of the defaults, which are 120 s, 10 s and 2 s."""
ROWS = pa.table({"x": [1]})


class Job:
    """A run that stays open, in a separate context, so that several are open at a time."""

    def __init__(self, name, folder):
        self._context = contextvars.copy_context()
        self._run = deltawitness.run(name)
        self._table = str(folder / name)
        self._context.run(self._run.__enter__)

    def write(self, count=1, **options):
        for _ in range(count):
            self._context.run(write_deltalake, self._table, ROWS, mode="append", **options)

    def fail(self):
        with pytest.raises(Exception, match="already exists"):
            self._context.run(write_deltalake, self._table, ROWS, mode="error")

    def write_slowly(self):
        def batches():
            threading.Event().wait(SLOW_S * 1.5)
            yield from ROWS.to_batches()

        reader = pa.RecordBatchReader.from_batches(ROWS.schema, batches())
        self._context.run(write_deltalake, self._table, reader, mode="append")

    def end(self):
        self._context.run(self._run.__exit__, None, None, None)


def matters(span):
    """Return whether a span is kept by itself."""
    attributes = span.attributes
    return bool(
        span.status.status_code is StatusCode.ERROR
        or (DB_OPERATION_NAME in attributes and span.end_time - span.start_time >= SLOW_S * 1e9)
        or attributes.get(RUN_FAILED_WRITES)
        or attributes.get(RUN_SLOWEST_WRITE, 0) >= SLOW_S
    )


@pytest.fixture
def program(collector, backend):
    """A Collector, an SDK that exports to it and to memory, and the observed library."""
    one = collector(
        "config.yaml",
        BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}",
        BASELINE_PERCENT="0",
        **WAITS,
    )
    sent = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "loader"}))
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{one.ports['GRPC']}", insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
    provider.add_span_processor(SimpleSpanProcessor(sent))
    DeltaLakeInstrumentor().instrument(tracer_provider=provider)
    return one, provider, sent


def decided(one):
    return sum(v for _, v in one.own("otelcol_processor_tail_sampling_global_count_traces_sampled"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_failed_and_slow_writes_after_the_decision_are_kept_and_fast_ones_are_not(
    program, backend, tmp_path, say
):
    """Of a long run come the writes that matter and the run's span, once each; of a short one that fails, all."""
    one, provider, sent = program
    late, early, fast = (Job(name, tmp_path) for name in ("late", "early", "fast"))
    for job in (late, early, fast):
        job.write(3)
    early.fail()
    provider.force_flush()
    until(lambda: decided(one) == 3, "the decision on the three runs, which are open")
    until(backend.spans, "the early failure")
    for job in (late, early, fast):
        job.write(10)
    late.fail()
    late.write_slowly()
    for job in (late, early, fast):
        job.end()
    short, quiet = Job("short", tmp_path), Job("quiet", tmp_path)
    for job in (short, quiet):
        job.write(3)
    short.fail()
    threading.Event().wait(SLOW_S * 1.5)  # a run is not slow because it lasts
    for job in (short, quiet):
        job.end()
    provider.shutdown()
    spans = sent.get_finished_spans()
    by_trace = {}
    for span in spans:
        by_trace.setdefault(span.context.trace_id, []).append(span)
    assert len(by_trace) == 5
    long_runs = {"late", "early", "fast"}
    wanted = set()
    for members in by_trace.values():
        (root,) = (span for span in members if span.parent is None)
        is_whole = root.name not in long_runs and any(map(matters, members))
        wanted |= {span.context.span_id for span in members if is_whole or matters(span)}
    until(lambda: decided(one) == 5, "the decision on each trace")
    until(lambda: one.queued("traces") == 0, "an empty queue")
    until(lambda: len(backend.spans()) >= len(wanted), "what matters")
    one.stop()
    received = Counter(int.from_bytes(span.span_id, "big") for span in backend.spans())
    names = {span.context.span_id: span.name for span in spans}
    assert sorted(names[i] for i in received) == sorted(names[i] for i in wanted)
    assert set(received.values()) == {1}
    roots = {span.name for span in backend.spans() if not span.parent_span_id}
    assert {"late", "early", "short"} <= roots
    say(
        f"runs longer than the wait: {len(received)} of {len(spans)} spans kept: each failed or slow"
        " write and its run, and all of a short run that failed"
    )


VALUES = (
    {"string_value": "5"},
    {"string_value": ""},
    {"int_value": 5},
    {"int_value": -5},
    {"double_value": 5.5},
    {"double_value": float("nan")},
    {"bool_value": True},
    {"bytes_value": b"5"},
    {"array_value": {"values": [{"int_value": 5}]}},
    {"kvlist_value": {}},
    {},
)
TIMES = ((1, 10**9), (10**9, 1), (0, 2**63 + 5), (0, 0))


@pytest.mark.slow
def test_each_span_comes_exactly_once_with_attributes_of_any_type(collector, backend):
    """A foreign program may set the attributes that the filters read to anything."""
    keys = (RUN_FAILED_WRITES, RUN_SLOWEST_WRITE, FORCE_SAMPLE, DB_OPERATION_NAME)
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for key in keys:
        for value in VALUES:
            for start, end in TIMES:
                number = len(spans) + 1
                span = spans.add(name="a span", start_time_unix_nano=start, end_time_unix_nano=end)
                span.trace_id = number.to_bytes(16, "big")
                span.span_id = number.to_bytes(8, "big")
                span.attributes.add(key=key, value=value)
    one = collector(
        "config.yaml",
        BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}",
        BASELINE_PERCENT="100",
        DECISION_WAIT="1s",
        DECISION_WAIT_AFTER_ROOT="1s",
    )
    with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
        TraceServiceStub(channel).Export(request)
    until(lambda: len(backend.spans()) >= len(spans), "every span")
    one.stop()
    received = Counter(int.from_bytes(span.span_id, "big") for span in backend.spans())
    assert received == dict.fromkeys(range(1, len(spans) + 1), 1)
