"""What should not leave comes out nowhere, whatever field it is put in; its neighbours pass."""

from __future__ import annotations

import json
import time
import urllib.request

import grpc
import pytest
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1 import metrics_pb2 as m
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from collector_parts import CONFIGS, fetched, until

CANARIES = {
    "a path": ("cannot open /home/canaryadam/orders/part-0.parquet today", "canaryadam"),
    "a path of a data volume": ("/mnt/canarybertha/lake", "canarybertha"),
    "a path of Windows": (r"C:\Users\canarycarl\lake", "canarycarl"),
    "an object": ("s3://canarydora-bucket/orders", "canarydora"),
    "a container": ("abfss://c@canaryemil.dfs.core.windows.net/t", "canaryemil"),
    "a signed URL": (
        "https://acct.blob.core.windows.net/c?sv=2024&sig=canaryfrieda%2Bx%3D&se=2026",
        "canaryfrieda",
    ),
    "credentials in a URL": ("https://user:canarygustav@host.example/x", "canarygustav"),
    "a key": ("AKIAHEINRICHHEINRICH", "AKIAHEINRICH"),
    "a secret": ("aws_secret_access_key=canaryidacanaryida", "canaryida"),
    "a password": ("password: canaryjulia", "canaryjulia"),
    "a JWT": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkxMSJ9.c2lnY2FuYXJ5", "eyJhbGciOiJIUzI1NiJ9"),
    "a bearer": ("Authorization: Bearer canarylouisecanarylouise", "canarylouise"),
    "an e-mail": ("sent to canarymartha@example.com", "canarymartha"),
    "a literal": ("SELECT a FROM t WHERE name = 'canarynora'", "canarynora"),
    "a row": ("+------+\n| name |\n+------+\n| canaryotto |\n+------+", "canaryotto"),
    "a preview": ("Preview of invalid data: canarypaula, 7", "canarypaula"),
}
"""What must not come out: the text it stands in, and the part by which it is known again."""

TEXT = "\n".join(text for text, _ in CANARIES.values())

BENIGN = {
    "cache.policy": "view_delta_staging",
    "schema.url": "https://opentelemetry.io/schemas/1.44.0",
    "deltawitness.version": "0.1.0",
    "gen_ai.usage.input_tokens": "1024",
    "deltawitness.run.id": "0190a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b",
    "db.operation.name": "CREATE TABLE",
    "db.collection.name": "orders_by_day",
    "cache.plan.hash": "a" * 64,
}
"""What only looks like a secret."""


def text(value):
    return AnyValue(string_value=value)


def pairs(values):
    return [KeyValue(key=key, value=text(value)) for key, value in values.items()]


def nested(value):
    """The canary in a list in a map."""
    inner = KeyValueList(values=[KeyValue(key="deep", value=text(value))])
    return AnyValue(array_value=ArrayValue(values=[AnyValue(kvlist_value=inner), text(value)]))


def canary_attributes():
    each = {f"free.{number}": said for number, (said, _) in enumerate(CANARIES.values())}
    return [
        *pairs(each),
        *pairs(BENIGN),
        KeyValue(key="free.list", value=nested(TEXT)),
        KeyValue(key="db.password", value=text("canaryquelle")),
        KeyValue(key="cache.path", value=text("canaryrichard")),
    ]


def resource():
    return Resource(attributes=[*pairs({"service.name": "loader"}), *canary_attributes()])


def scope():
    return InstrumentationScope(name="test", attributes=canary_attributes())


def traces():
    now = time.time_ns()
    span = Span(
        trace_id=b"\x01" * 16,
        span_id=b"\x02" * 8,
        name=f"WRITE orders {TEXT}",
        start_time_unix_nano=now,
        end_time_unix_nano=now + 1000,
        attributes=canary_attributes(),
        status=Status(code=Status.STATUS_CODE_ERROR, message=TEXT),
        events=[Span.Event(name=TEXT, time_unix_nano=now, attributes=canary_attributes())],
    )
    spans = ScopeSpans(scope=scope(), spans=[span])
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource(), scope_spans=[spans])]
    )


def logs():
    bodies = [
        text(TEXT),
        AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="said", value=text(TEXT))])),
        AnyValue(array_value=ArrayValue(values=[text(TEXT), nested(TEXT)])),
    ]
    records = [
        LogRecord(
            time_unix_nano=time.time_ns(),
            body=body,
            attributes=canary_attributes(),
            event_name=f"event {TEXT}",
        )
        for body in bodies
    ]
    scoped = ScopeLogs(scope=scope(), log_records=records)
    return ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=resource(), scope_logs=[scoped])]
    )


def metrics():
    now = time.time_ns()
    point = dict(attributes=canary_attributes(), time_unix_nano=now, start_time_unix_nano=now - 1)
    number = m.NumberDataPoint(as_int=7, **point)
    cumulative = m.AGGREGATION_TEMPORALITY_CUMULATIVE
    told = [
        m.Metric(name="a.gauge", gauge=m.Gauge(data_points=[number])),
        m.Metric(
            name="a.counter",
            sum=m.Sum(data_points=[number], is_monotonic=True, aggregation_temporality=cumulative),
        ),
        m.Metric(
            name="an.up_down",
            sum=m.Sum(data_points=[number], aggregation_temporality=cumulative),
        ),
        m.Metric(
            name="a.histogram",
            histogram=m.Histogram(
                aggregation_temporality=cumulative,
                data_points=[
                    m.HistogramDataPoint(
                        count=1, sum=1, bucket_counts=[1, 0], explicit_bounds=[5], **point
                    )
                ],
            ),
        ),
        m.Metric(
            name="an.exponential",
            exponential_histogram=m.ExponentialHistogram(
                aggregation_temporality=cumulative,
                data_points=[
                    m.ExponentialHistogramDataPoint(count=1, sum=1, zero_count=1, **point)
                ],
            ),
        ),
        m.Metric(
            name="a.summary",
            summary=m.Summary(data_points=[m.SummaryDataPoint(count=1, sum=1, **point)]),
        ),
    ]
    for metric in told:
        metric.description = TEXT
    told.append(
        m.Metric(
            name="benign", description="Operations on tables", gauge=m.Gauge(data_points=[number])
        )
    )
    return ExportMetricsServiceRequest(
        resource_metrics=[
            m.ResourceMetrics(
                resource=resource(), scope_metrics=[m.ScopeMetrics(scope=scope(), metrics=told)]
            )
        ]
    )


def over_grpc(one):
    """Send the three signals."""
    with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
        TraceServiceStub(channel).Export(traces())
        LogsServiceStub(channel).Export(logs())
        MetricsServiceStub(channel).Export(metrics())


def over_http(one):
    """Send the three signals."""
    for path, request in (("traces", traces()), ("logs", logs()), ("metrics", metrics())):
        urllib.request.urlopen(
            urllib.request.Request(
                f"http://127.0.0.1:{one.ports['HTTP']}/v1/{path}",
                data=request.SerializeToString(),
                headers={"Content-Type": "application/x-protobuf"},
            ),
            timeout=10,
        ).close()


def leaks(said):
    """Which canaries stand in what was said."""
    known = [known for _, known in CANARIES.values()] + ["canaryquelle", "canaryrichard"]
    return [
        said[max(0, said.index(one) - 300) : said.index(one) + 40] for one in known if one in said
    ]


SETTINGS = {"DECISION_WAIT": "1s", "DECISION_WAIT_AFTER_ROOT": "1s", "SPANMETRICS_FLUSH": "1s"}


@pytest.mark.parametrize("send", [over_grpc, over_http])
def test_no_canary_comes_out_and_its_neighbours_do(send, collector, backend, say):
    """Spans, logs of three shapes, metrics of all kinds: at the backend, at Prometheus, in the log."""
    one = collector("config.yaml", BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}", **SETTINGS)
    send(one)
    names = {
        "a.gauge", "a.counter", "an.up_down", "a.histogram", "an.exponential", "a.summary",
        "benign", "traces.span.metrics.calls", "traces.span.metrics.duration",
    }  # fmt: skip
    until(
        lambda: (
            backend.spans()
            and len(backend.logs()) == 3
            and names <= {metric.name for metric in backend.metrics()}
        ),
        "all three signals",
    )
    page = until(
        lambda: text if "calls" in (text := fetched(one.ports["PROMETHEUS"])) else "", "the metrics"
    )
    everything = backend.everything()
    assert leaks(everything) == []
    assert leaks(page) == []
    assert leaks(one.log()) == []

    (span,) = backend.spans()
    kept = {pair.key: pair.value.string_value for pair in span.attributes}
    assert {key: kept[key] for key in BENIGN} == BENIGN
    assert not [key for key in kept if key.startswith("redact.")]
    assert span.name.startswith("WRITE orders ")
    for record in backend.logs():
        kept = {pair.key: pair.value.string_value for pair in record.attributes}
        assert {key: kept[key] for key in BENIGN} == BENIGN
        assert record.event_name.startswith("event ")
    described = {metric.name: metric.description for metric in backend.metrics()}
    assert described["benign"] == "Operations on tables"
    say(f"collector, {send.__name__}: {len(CANARIES) + 2} canaries in every field, none came out")


def test_the_queue_holds_no_canary(collector, backend):
    """What waits on disk for a backend that is down is redacted already."""
    backend.down()
    one = collector("config.yaml", BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}", **SETTINGS)
    over_grpc(one)

    def waiting():
        held = {
            labels["data_type"]: value for labels, value in one.own("otelcol_exporter_queue_size")
        }
        return held.get("traces", 0) >= 1 and held.get("logs", 0) >= 3

    until(waiting, "spans and logs in the queue")
    one.kill()
    files = [path.read_bytes() for path in one.queue.rglob("*") if path.is_file()]
    assert any(b"WRITE orders" in held for held in files)
    assert leaks(b"".join(files).decode("latin-1")) == []


def test_the_three_configurations_redact_alike():
    """One list of patterns: the tiers repeat it to the letter."""
    blocks = [
        {
            name: yaml.safe_load((CONFIGS / config).read_text())["processors"][name]
            for name in ("transform/stash", "redaction", "redaction/strict", "transform/unstash")
        }
        for config in ("config.yaml", "agent-tier.yaml", "gateway-tier.yaml")
    ]
    assert json.dumps(blocks[1]) == json.dumps(blocks[0])
    assert json.dumps(blocks[2]) == json.dumps(blocks[0])
