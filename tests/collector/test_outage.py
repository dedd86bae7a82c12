"""Queued data survive a backend that is down, a Collector that is killed, and full memory."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent import futures
from http import HTTPStatus

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from helpers.collector_parts import until

FORCED = KeyValue(key="deltawitness.sample.force", value=AnyValue(bool_value=True))
FILLER = b"x" * 50_000
SEND_TIMEOUT_S = 30.0

QUEUE_IN_MEMORY = {
    "processors": {
        # Collect garbage at each check: by default it takes up to 30 s until freed memory is measured.
        "memory_limiter": {
            "min_gc_interval_when_soft_limited": "0s",
            "max_gc_interval_when_soft_limited": "0s",
            "max_gc_interval_when_hard_limited": "0s",
        },
    },
    "exporters": {
        "otlp_grpc/backend": {
            "sending_queue": {"storage": None},
            "retry_on_failure": {"initial_interval": "1s", "max_interval": "1s"},
        },
    },
}
"""Settings laid over a configuration: what the backend does not take stays in memory."""


def batch(first, count, filler=b""):
    """Return spans that the sampling keeps, each of a separate trace.

    The filler is an attribute of a link, which no processor reads: large spans cost no redaction.
    """
    attributes = [KeyValue(key="filler", value=AnyValue(bytes_value=filler))]
    spans = [
        Span(
            trace_id=(number + 1).to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name=f"WRITE {number}",
            start_time_unix_nano=1,
            end_time_unix_nano=2,
            attributes=[FORCED],
            links=[Span.Link(trace_id=b"l" * 16, span_id=b"l" * 8, attributes=attributes)],
        )
        for number in range(first, first + count)
    ]
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    )


def test_queued_spans_survive_an_outage_and_a_kill(collector, backend, size, say):
    """Spans queued while the backend is down arrive after the Collector was killed and both are up again."""
    count = size(500, 5000)
    backend.down()
    one = collector(
        "config.yaml",
        BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}",
        DECISION_WAIT="1s",
        DECISION_WAIT_AFTER_ROOT="1s",
    )
    with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
        for first in range(0, count, 100):
            TraceServiceStub(channel).Export(batch(first, 100))
    until(lambda: one.queued("traces") == count, "all spans in the queue")
    one.kill()
    backend.up()
    one.start()
    wanted = {f"WRITE {number}" for number in range(count)}
    until(lambda: wanted <= {span.name for span in backend.spans()}, "every span at the backend")
    assert {span.name for span in backend.spans()} == wanted
    say(f"collector killed while its backend was down: {count} of {count} queued spans delivered")


def of_the_sdk():
    """Return one sampled span, as the SDK ended it."""
    ended, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(ended))
    with tracers.get_tracer("test").start_as_current_span("SDK") as span:
        span.set_attribute(FORCED.key, FORCED.value.bool_value)
    return ended.get_finished_spans()


def over_grpc(one, request):
    """Send spans over gRPC; return the status of a rejection, None if they are accepted."""
    with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
        try:
            TraceServiceStub(channel).Export(request, timeout=SEND_TIMEOUT_S)
        except grpc.RpcError as refused:
            return refused.code()
    return None


def over_http(one, request):
    """Send spans over HTTP; return the status of a rejection, None if they are accepted."""
    posted = urllib.request.Request(
        f"http://127.0.0.1:{one.ports['HTTP']}/v1/traces",
        data=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
    )
    try:
        urllib.request.urlopen(posted, timeout=SEND_TIMEOUT_S).close()
    except urllib.error.HTTPError as refused:
        return refused.code
    return None


def test_a_full_memory_pushes_back_and_recovers(collector, backend, caplog, say):
    """Above the memory limit spans are rejected with a status that the SDK retries; below it none is lost.

    The memory is full because the backend accepts nothing and the queue is in memory. It stays full until
    the test opens the backend, so the speed of the machine does not matter.
    """
    backend.is_refusing = True
    one = collector(
        "config.yaml",
        BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}",
        DECISION_WAIT="1s",
        DECISION_WAIT_AFTER_ROOT="1s",
        MEMORY_LIMIT_MIB="96",
        MEMORY_SPIKE_MIB="32",
        overlays=[json.dumps(QUEUE_IN_MEMORY)],
    )
    accepted = 0

    def refusal(send):
        nonlocal accepted
        # The fillers of 4,000 spans are twice the memory limit, which is checked once per second. A fast
        # machine sends them in less: then small spans follow, until the next check.
        status = send(one, batch(accepted, 50, FILLER if accepted < 4000 else b""))
        accepted += 0 if status else 50
        return status

    assert until(lambda: refusal(over_grpc), "a refusal over gRPC") is grpc.StatusCode.UNAVAILABLE
    before = accepted
    assert (
        until(lambda: refusal(over_http), "a refusal over HTTP") == HTTPStatus.SERVICE_UNAVAILABLE
    )

    exporter = OTLPSpanExporter(f"http://127.0.0.1:{one.ports['GRPC']}", insecure=True, timeout=60)
    spans = of_the_sdk()

    def is_retried():
        return "StatusCode.UNAVAILABLE" in caplog.text

    def is_exported():
        return exporter.export(spans) is SpanExportResult.SUCCESS and is_retried()

    with futures.ThreadPoolExecutor(1) as pool:
        exported = pool.submit(until, is_exported, "an export that was refused at first")
        # The limiter checks once per second: memory that is freed between two checks is filled again.
        until(lambda: refusal(over_grpc) and is_retried(), "a refusal of the SDK's spans")
        backend.is_refusing = False
        until(lambda: not refusal(over_grpc), "the sender to be accepted again over gRPC")
        until(lambda: not refusal(over_http), "the sender to be accepted again over HTTP")
        assert exported.result()
    exporter.shutdown()

    wanted = {"SDK", *(f"WRITE {number}" for number in range(accepted))}
    until(lambda: wanted <= {span.name for span in backend.spans()}, "every span that was accepted")
    assert {span.name for span in backend.spans()} == wanted
    say(
        f"memory limit: refused after {before} spans, accepted again later,"
        f" {len(wanted)} of {len(wanted)} delivered"
    )
