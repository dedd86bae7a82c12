"""Secrets that a Collector must redact, texts that it must pass, and OTLP requests with them in every field."""

from __future__ import annotations

import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
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

SECRETS = (
    "cannot open /home/{}/orders/part-0.parquet today",
    "x/home/{}/orders",
    "at /home/ann:{}/x",
    "/mnt/{}/lake",
    "/app/{}/lake",
    "/etc/{}.conf",
    "~/{}/lake",
    r"C:\Users\{}\lake",
    r"C:\Users\Ann Smith\{}\lake",
    r"\\server\{}\lake",
    "s3://{}-bucket/orders",
    "_file:///x/{}",
    "abfss://c@{}.dfs.core.windows.net/t",
    "https://acct.blob.core.windows.net/c?sv=2024&sig={}%2Bx%3D&se=2026",
    "sig%3D{}",
    "https://user:{}@host.example/x",
    "redis://:{}@host:6379",
    "postgres://user:a/{}@host/db",
    "aws_secret_access_key={}",
    "password: {}",
    "password='my {}'",
    'password="my&{}"',
    "password='it''s {}'",
    "password=ab,{}",
    "Driver=x;PWD={};Server=y",
    "jdbc:sqlserver://h;password={{a;{}}};x=y",
    "eyJhbGciOiJIUzI1NiJ9.{}.c2lnY2FuYXJ5",
    "Authorization: Bearer {}",
    "Authorization: AWS4-HMAC-SHA256 Credential={}/20260101",
    "Bearer 1{}",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n{}\n-----END PGP PRIVATE KEY BLOCK-----",
    "ghp_0123456789012345{}",
    "xoxb-0123456789-{}",
    "sent to {}@example.com",
    "SELECT a FROM t WHERE name = '{}'",
    "name LIKE'{}'",
    "[E'{}']",
    "x = 'it''s {}'",
    r"x = 'a\' OR y = '{}'",
    "'{}'",
    "+------+\n| name |\n+------+\n| {} |\n+------+",
    "┌──────┐\n│ {} │\n└──────┘",
    "Preview of invalid data: {}, 7",
    "violated by value in row: [{}, 7]",
)
"""Texts that hold something that must not leave, where the braces stand."""

CANARIES = {"AKIACANARY": "AKIACANARY0123456789"} | {
    f"canary{number:02}": secret.format(f"canary{number:02}")
    for number, secret in enumerate(SECRETS)
}
"""By the word that it is known again by, each text."""

BY_KEY = (
    "db.password",
    "clientSecret",
    "db_password_hash",
    "secretKey",
    "jwt",
    "dsn",
    "cache.path",
)
UNDER_A_KEY = "canaryword"
"""A plain word, of which its key alone says that it must not leave."""

TOGETHER = "\n".join(CANARIES.values())

BENIGN = {
    "cache.policy": "view_delta_staging",
    "schema.url": "https://opentelemetry.io/schemas/1.44.0",
    "deltawitness.version": "0.1.0+build.7",
    "gen_ai.usage.input_tokens": "1024",
    "deltawitness.run.id": "0190a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b",
    "cicd.pipeline.run.id": "manual__2026-11-25T08:00:00+00:00",
    "db.operation.name": "CREATE TABLE",
    "db.collection.name": "secret_orders",
    "cache.plan.hash": "a" * 64,
    "said.counts": "tokens=12 input_tokens=1024 max_tokens = 5",
    "said.words": "secretary=Ann, tokenizer: bert, password_resets: 5",
    "said.apostrophe": "it's Ann's table",
    "said.authentication": "basic authentication required, bearer certificates expired",
    "said.page": "https://example.com/data/orders",
    "said.relative": "docs/data/orders",
    "said.sum": "a+-+b",
    "said.of": "number of tokens",
}
"""Attributes whose values only look like secrets and must pass."""


def text(value):
    """Return a text as an OTLP value."""
    return AnyValue(string_value=value)


def pairs(values):
    """Return attributes with text values."""
    return [KeyValue(key=key, value=text(value)) for key, value in values.items()]


def nested(value):
    """Return a list that contains the text, and a map with the text."""
    inner = KeyValueList(values=[KeyValue(key="deep", value=text(value))])
    return AnyValue(array_value=ArrayValue(values=[text(value), AnyValue(kvlist_value=inner)]))


def attributes(said):
    """Return attributes with the text as a value, in a list and in a key, and benign attributes."""
    return [
        *pairs(BENIGN),
        *pairs({"free": said, f"/home/{said}/x": "a key"}),
        *pairs(dict.fromkeys(BY_KEY, UNDER_A_KEY)),
        KeyValue(key="free.list", value=nested(said)),
    ]


def resource(said):
    """Return a resource whose attributes contain the text."""
    known = {"service.name": "loader", "process.owner": UNDER_A_KEY}
    return Resource(attributes=[*pairs(known), *attributes(said)])


def scope(said):
    """Return a scope whose name, version and attributes contain the text."""
    return InstrumentationScope(name=f"n {said}", version=f"v {said}", attributes=attributes(said))


def spans(saids):
    """Return an export request with a span for each text, which has the text in every field."""
    now = time.time_ns()
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=resource(said),
                schema_url=f"u {said}",
                scope_spans=[
                    ScopeSpans(
                        scope=scope(said),
                        schema_url=f"u {said}",
                        spans=[
                            Span(
                                trace_id=number.to_bytes(16, "big"),
                                span_id=number.to_bytes(8, "big"),
                                name=f"WRITE orders {said}",
                                trace_state=f"vendor={said}",
                                start_time_unix_nano=now,
                                end_time_unix_nano=now + 1000,
                                attributes=attributes(said),
                                status=Status(code=Status.STATUS_CODE_ERROR, message=said),
                                events=[
                                    Span.Event(
                                        name=said, time_unix_nano=now, attributes=attributes(said)
                                    )
                                ],
                            )
                        ],
                    )
                ],
            )
            for number, said in enumerate(saids, 1)
        ]
    )


def bodies(said):
    """Return log bodies with the text: as a text, in a map, in a list, and as bytes."""
    return [
        text(said),
        AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="said", value=text(said))])),
        nested(said),
        AnyValue(bytes_value=said.encode()),
    ]


def logs(saids):
    """Return an export request with four log records for each text, one for each kind of body."""
    return ExportLogsServiceRequest(
        resource_logs=[
            ResourceLogs(
                resource=resource(said),
                schema_url=f"u {said}",
                scope_logs=[
                    ScopeLogs(
                        scope=scope(said),
                        schema_url=f"u {said}",
                        log_records=[
                            LogRecord(
                                time_unix_nano=time.time_ns(),
                                body=body,
                                attributes=attributes(said),
                                event_name=f"event {said}",
                                severity_text=f"INFO {said}",
                            )
                            for body in bodies(said)
                        ],
                    )
                ],
            )
            for said in saids
        ]
    )


KINDS = ("gauge", "counter", "up_down", "histogram", "exponential", "summary")


def metric(kind, point):
    """Return a metric of a kind with one data point."""
    number = m.NumberDataPoint(as_int=7, **point)
    cumulative = m.AGGREGATION_TEMPORALITY_CUMULATIVE
    if kind == "gauge":
        return m.Metric(gauge=m.Gauge(data_points=[number]))
    if kind in {"counter", "up_down"}:
        made = m.Sum(
            data_points=[number],
            is_monotonic=kind == "counter",
            aggregation_temporality=cumulative,
        )
        return m.Metric(sum=made)
    if kind == "histogram":
        bars = m.HistogramDataPoint(
            count=1, sum=1, bucket_counts=[1, 0], explicit_bounds=[5], **point
        )
        made = m.Histogram(aggregation_temporality=cumulative, data_points=[bars])
        return m.Metric(histogram=made)
    if kind == "exponential":
        bars = m.ExponentialHistogramDataPoint(count=1, sum=1, zero_count=1, **point)
        made = m.ExponentialHistogram(aggregation_temporality=cumulative, data_points=[bars])
        return m.Metric(exponential_histogram=made)
    return m.Metric(summary=m.Summary(data_points=[m.SummaryDataPoint(count=1, sum=1, **point)]))


def metrics(saids):
    """Return an export request with a metric for each text, of all kinds in turn, with the text in every field."""
    now = time.time_ns()
    made = []
    for number, said in enumerate(saids):
        kind = KINDS[number % len(KINDS)]
        point = dict(attributes=attributes(said), time_unix_nano=now, start_time_unix_nano=now - 1)
        one = metric(kind, point)
        one.name = f"{kind}.{number} {said}"
        one.description = f"What is {said}"
        one.unit = said
        one.metadata.extend(pairs({"free": said}))
        made.append(
            m.ResourceMetrics(
                resource=resource(said),
                schema_url=f"u {said}",
                scope_metrics=[
                    m.ScopeMetrics(scope=scope(said), schema_url=f"u {said}", metrics=[one])
                ],
            )
        )
    return ExportMetricsServiceRequest(resource_metrics=made)
