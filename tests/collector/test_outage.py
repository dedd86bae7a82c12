"""A backend that is down, a Collector that is killed, a memory that is full: nothing queued is lost."""

from __future__ import annotations

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from collector_parts import until

FORCED = KeyValue(key="deltawitness.sample.force", value=AnyValue(bool_value=True))


def batch(first, count, filler=b""):
    """Spans that are kept, each of a trace of its own."""
    attributes = [FORCED, KeyValue(key="filler", value=AnyValue(bytes_value=filler))]
    spans = [
        Span(
            trace_id=(number + 1).to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name=f"WRITE {number}",
            start_time_unix_nano=1,
            end_time_unix_nano=2,
            attributes=attributes,
        )
        for number in range(first, first + count)
    ]
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    )


def test_what_was_queued_survives_an_outage_and_a_kill(collector, backend, size, say):
    """Backend down, spans queued, collector killed; both come back: every span is there."""
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


def test_a_full_memory_pushes_back_and_recovers(collector, backend, say):
    """Beyond the limit the sender is refused, with a code that says to try again; later it is not."""
    one = collector(
        "config.yaml",
        BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}",
        DECISION_WAIT="20s",
        DECISION_WAIT_AFTER_ROOT="20s",
        MEMORY_LIMIT_MIB="110",
        MEMORY_SPIKE_MIB="40",
    )
    # Bytes, which cost no redaction: the memory is full long before the first decision frees any.
    filler, first = b"x" * 50_000, 0
    with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
        stub = TraceServiceStub(channel)

        def send():
            nonlocal first
            try:
                stub.Export(batch(first, 50, filler))
            except grpc.RpcError as refused:
                return refused.code()
            first += 50
            return None

        refusals = (send() for _ in range(5000))
        assert next(filter(None, refusals)) is grpc.StatusCode.UNAVAILABLE
        accepted = first
        until(lambda: send() is None, "the sender to be taken again")
    wanted = {f"WRITE {number}" for number in range(first)}
    until(lambda: wanted <= {span.name for span in backend.spans()}, "every span that was accepted")
    say(
        f"memory limit: refused after {accepted} spans, taken again later, {first} of {first} delivered"
    )
