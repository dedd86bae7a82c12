"""Sampling of real writes by a real Collector keeps complete relevant traces, and metrics count all."""

from __future__ import annotations

import threading
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import deltawitness
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.semconv import DB_OPERATION_NAME, FORCE_SAMPLE
from helpers.collector_parts import fetch, until

SLOW_S = 1.0
BASELINE = 0.10
NAMES = {StatusCode.UNSET: "STATUS_CODE_UNSET", StatusCode.ERROR: "STATUS_CODE_ERROR"}


@pytest.fixture
def sent():
    """Return the spans as the program ended them, next to the exporters that send them."""
    return InMemorySpanExporter()


def provider(exporter, sent):
    """Return an SDK provider as programs configure it, which also stores the spans that it sends."""
    made = TracerProvider(resource=Resource.create({"service.name": "loader"}))
    made.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=8192))
    made.add_span_processor(SimpleSpanProcessor(sent))
    return made


def slow_rows(schema):
    """Return a slow source of rows."""

    def batches():
        threading.Event().wait(SLOW_S * 1.1)
        yield pa.record_batch({"x": [1]}, schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def write(folder, fast, slow, failed, forced):
    """Make writes of the four kinds, each in a separate trace."""
    rows, table = pa.table({"x": [1]}), str(folder / "orders")
    write_deltalake(table, rows)
    # A new table for each 50 writes: an append gets slower with the length of the log.
    for number in range(fast - 1):
        write_deltalake(str(folder / f"orders_{number // 50}"), rows, mode="append")
    for _ in range(slow):
        write_deltalake(table, slow_rows(rows.schema), mode="append")
    for _ in range(failed):
        with pytest.raises(Exception, match="already exists"):
            write_deltalake(table, rows, mode="error")
    for _ in range(forced):
        with deltawitness.run("forced", force_sample=True):
            write_deltalake(table, rows, mode="append")


def trace_of(span):
    """Return the trace id in the form of the backend."""
    return span.context.trace_id.to_bytes(16, "big")


@pytest.mark.timeout(600)  # 430 writes
@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_failed_slow_and_forced_writes_are_all_sampled_and_every_write_is_counted(
    transport, collector, backend, sent, tmp_path, size, say
):
    """Failed, slow and forced writes are all sampled, fast ones at the configured rate; metrics count every span."""
    one = collector(
        "config.yaml",
        BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}",
        # Longer than the SDK gathers spans, so that a trace is decided after its root has arrived.
        DECISION_WAIT="30s",
        DECISION_WAIT_AFTER_ROOT="1s",
        SPANMETRICS_FLUSH="1s",
        SLOW_MS=str(int(SLOW_S * 1000)),
        BASELINE_PERCENT=str(int(BASELINE * 100)),
    )
    exporter = (
        OverGrpc(f"http://127.0.0.1:{one.ports['GRPC']}", insecure=True)
        if transport == "grpc"
        else OverHttp(f"http://127.0.0.1:{one.ports['HTTP']}/v1/traces")
    )
    tracer_provider = provider(exporter, sent)
    DeltaLakeInstrumentor().instrument(tracer_provider=tracer_provider)
    write(tmp_path, fast=400, slow=size(5, 20), failed=20, forced=5)
    tracer_provider.force_flush()
    tracer_provider.shutdown()

    spans = sent.get_finished_spans()
    by_trace = {}
    for span in spans:
        by_trace.setdefault(trace_of(span), []).append(span)
    must, may = set(), set()
    for trace, members in by_trace.items():
        is_slow = (
            max(s.end_time for s in members) - min(s.start_time for s in members) >= SLOW_S * 1e9
        )
        is_wanted = any(
            s.status.status_code is StatusCode.ERROR or s.attributes.get(FORCE_SAMPLE)
            for s in members
        )
        (must if is_slow or is_wanted else may).add(trace)
    assert len(must) >= size(5, 20) + 25
    assert len(may) >= 350

    wanted = Counter(
        (s.attributes.get(DB_OPERATION_NAME, ""), NAMES[s.status.status_code]) for s in spans
    )

    def counted():
        found = Counter()
        for labels, value in one.scraped("traces_span_metrics_calls_total"):
            found[labels.get("db_operation_name", ""), labels["status_code"]] += int(value)
        return found

    until(lambda: counted() == wanted, f"{wanted}")

    def decided():
        return sum(
            value
            for _, value in one.own("otelcol_processor_tail_sampling_global_count_traces_sampled")
        )

    until(lambda: decided() == len(by_trace), "a decision on each trace")
    # Data that are queued when the Collector stops stay on disk.
    until(lambda: one.queued("traces") == 0, "an empty queue")
    until(lambda: must <= {span.trace_id for span in backend.spans()}, "what matters")
    one.stop()
    kept = Counter(span.trace_id for span in backend.spans())
    whole = {trace: len(members) for trace, members in by_trace.items()}
    assert {trace: kept[trace] for trace in must} == {trace: whole[trace] for trace in must}
    baseline = may & kept.keys()
    assert {trace: kept[trace] for trace in baseline} == {trace: whole[trace] for trace in baseline}
    sigma = (len(may) * BASELINE * (1 - BASELINE)) ** 0.5
    assert abs(len(baseline) - len(may) * BASELINE) <= 4 * sigma
    say(
        f"collector over {transport}: {len(spans)} spans sent and counted, {len(must)} of {len(must)}"
        f" traces that matter kept whole, {len(baseline)} of {len(may)} others"
    )


def test_no_table_name_becomes_a_label(collector, backend, sent, tmp_path):
    """A span's name has the table's name, which would give an unbounded number of series."""
    one = collector(
        "config.yaml", BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}", SPANMETRICS_FLUSH="1s"
    )
    tracer_provider = provider(
        OverGrpc(f"http://127.0.0.1:{one.ports['GRPC']}", insecure=True), sent
    )
    DeltaLakeInstrumentor().instrument(tracer_provider=tracer_provider)
    write_deltalake(str(tmp_path / "secret_orders"), pa.table({"x": [1]}))
    tracer_provider.shutdown()
    until(lambda: one.scraped("traces_span_metrics_calls_total"), "the count of the write")
    labels = {
        name for labels, _ in one.scraped("traces_span_metrics_calls_total") for name in labels
    }
    assert not {"span_name", "db_collection_name"} & labels
    assert "secret_orders" not in fetch(one.ports["PROMETHEUS"])
    assert "db_operation_name" in labels


def test_a_late_error_keeps_the_whole_trace(collector, backend, sent):
    """A span that fails after the root was sent, but within the wait, keeps the root as well."""
    one = collector(
        "config.yaml",
        BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}",
        DECISION_WAIT="20s",
        DECISION_WAIT_AFTER_ROOT="6s",
        BASELINE_PERCENT="0",
    )
    tracer_provider = provider(
        OverGrpc(f"http://127.0.0.1:{one.ports['GRPC']}", insecure=True), sent
    )
    tracer = tracer_provider.get_tracer("test")
    with tracer.start_as_current_span("root"):
        late = tracer.start_span("late")
    with tracer.start_as_current_span("another, which is dropped"):
        pass
    tracer_provider.force_flush()
    until(
        lambda: sum(value for _, value in one.own("otelcol_receiver_accepted_spans")) == 2,
        "both roots",
    )
    late.set_status(StatusCode.ERROR)
    late.end()
    tracer_provider.shutdown()
    until(lambda: len(backend.spans()) >= 2, "both spans of the trace")
    one.stop()
    assert sorted(span.name for span in backend.spans()) == ["late", "root"]
