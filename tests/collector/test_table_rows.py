"""The panels by table show the tables with most rows and operations, and all others as `_other`."""

from __future__ import annotations

import json
import time

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from helpers.collector_parts import PROMETHEUS, until
from helpers.prometheus_parts import DASHBOARDS, Prometheus, filled

pytestmark = pytest.mark.skipif(
    PROMETHEUS is None,
    reason="needs Prometheus: set PROMETHEUS_BIN, or run `make collector` (Debian package)",
)

TABLES = 15
LARGE = 5_000_000_000
"""Rows of one commit, which are more than a 32-bit number holds."""


def rows_of(table):
    """Return the rows that a write of a table adds."""
    return LARGE + table if table == TABLES - 1 else table * 100


def write(table, process):
    """Return a request with a write of a table, by a process of its own."""
    now = time.time_ns()
    values = {"db.collection.name": f"t{table:02}", "db.operation.name": "WRITE"}
    attributes = [KeyValue(key=key, value=AnyValue(string_value=v)) for key, v in values.items()]
    rows = AnyValue(int_value=rows_of(table))
    attributes.append(KeyValue(key="delta.commit.rows.added", value=rows))
    span = Span(
        trace_id=now.to_bytes(16, "big"),
        span_id=now.to_bytes(8, "big"),
        name="WRITE",
        start_time_unix_nano=now,
        end_time_unix_nano=now + 7_000_000_000,
        attributes=attributes,
    )
    run = Span(
        trace_id=span.trace_id,
        span_id=b"12345678",
        name="run",
        start_time_unix_nano=now,
        end_time_unix_nano=now + 9_000_000_000,
    )
    names = {"service.name": "loader", "service.instance.id": str(process)}
    resource = Resource(
        attributes=[KeyValue(key=key, value=AnyValue(string_value=v)) for key, v in names.items()]
    )
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=[span, run])])
        ]
    )


def panel(server, title):
    """Return the series of a panel."""
    (dashboard,) = DASHBOARDS
    panels = {one["title"]: one for one in json.loads(dashboard.read_text())["panels"]}
    query = filled(panels[title]["targets"][0]["expr"])
    return server.values(query, "db_collection_name")


@pytest.mark.slow
@pytest.mark.parametrize("limit", [500, 5])
def test_the_tables_with_most_rows_and_the_others(limit, collector, backend, tmp_path, say):
    """Two processes write each table once; the sum over the series is exact, with a limit of tables as well."""
    one = collector(
        "config.yaml",
        BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}",
        SPANMETRICS_FLUSH="1s",
        TABLE_LIMIT=str(limit),
    )
    server = Prometheus(tmp_path, one)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
            for process in (1, 2):
                for table in reversed(range(TABLES)):
                    TraceServiceStub(channel).Export(write(table, process))
        rows = {f"t{table:02}": 2.0 * rows_of(table) for table in range(TABLES)}
        until(
            lambda: sum(panel(server, "Tables with the most rows").values()) == sum(rows.values()),
            "all rows",
        )
        found = panel(server, "Tables with the most rows")
        other = found.pop("_other")
        assert found == {name: rows[name] for name in found}
        assert len(found) == min(limit, 10)
        assert other == sum(rows.values()) - sum(found.values())
        assert set(found) == set(sorted(rows)[-len(found) :])
        operations = panel(server, "Tables with the most operations")
        assert sum(operations.values()) == 2 * TABLES
        assert len(operations) == min(limit, 10) + 1
    finally:
        server.stop()
    exported = {metric.name for metric in backend.metrics()}
    assert "traces.table.metrics.rows" in exported
    assert "traces.table.metrics.duration" not in exported
    say(f"rows by table, at most {limit} tables: {len(found)} and _other, exact")
