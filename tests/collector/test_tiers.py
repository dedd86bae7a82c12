"""Two gateways behind an agent get complete traces, and the counts add up."""

from __future__ import annotations

import json
from collections import Counter
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from helpers.collector_parts import Backend, until

SERVICES, TRACES, SPANS = 6, 300, 4


def pair(key, value):
    return KeyValue(key=key, value=AnyValue(string_value=value))


def part_of_each_trace(number):
    """Return one span of every trace, the root last: the spans of a trace are sent in separate requests."""
    by_service = {}
    for trace in range(TRACES):
        span = Span(
            trace_id=(trace + 1).to_bytes(16, "big"),
            span_id=(trace * SPANS + number + 1).to_bytes(8, "big"),
            parent_span_id=b""
            if number == SPANS - 1
            else (trace * SPANS + SPANS).to_bytes(8, "big"),
            name="WRITE orders at /home/canary/orders",
            start_time_unix_nano=1,
            end_time_unix_nano=2,
            attributes=[pair("db.operation.name", "WRITE")],
            # A third of the traces fail in their last span, which alone decides the sampling.
            status=Status(
                code=Status.STATUS_CODE_ERROR
                if number == SPANS - 1 and trace % 3 == 0
                else Status.STATUS_CODE_UNSET
            ),
        )
        by_service.setdefault(trace % SERVICES, []).append(span)
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=[pair("service.name", f"loader-{service}")]),
                scope_spans=[ScopeSpans(spans=spans)],
            )
            for service, spans in by_service.items()
        ]
    )


@pytest.fixture
def tiers(collector):
    """An agent, two gateways, and a backend behind each gateway."""
    backends = [Backend().up(), Backend().up()]
    gateways = [
        collector(
            "gateway-tier.yaml",
            name=f"gateway-{number}",
            BACKEND_ENDPOINT=f"127.0.0.1:{one.port}",
            # A decision waits for the root, regardless of the duration of the requests.
            DECISION_WAIT="60s",
            DECISION_WAIT_AFTER_ROOT="4s",
            SPANMETRICS_FLUSH="1s",
            BASELINE_PERCENT="0",
        )
        for number, one in enumerate(backends)
    ]

    def ring(port):
        # One host name cannot resolve to two ports: only the resolver of the configuration is replaced.
        hosts = [f"127.0.0.1:{gateway.ports[port]}" for gateway in gateways]
        return {"resolver": {"dns": None, "static": {"hostnames": hosts}}}

    overlay = {
        "exporters": {
            "load_balancing/sampling": ring("SAMPLING"),
            "load_balancing/spanmetrics": ring("SPANS"),
            "load_balancing/metrics": ring("METRICS"),
        }
    }
    agent = collector(
        "agent-tier.yaml",
        name="agent",
        BACKEND_ENDPOINT=f"127.0.0.1:{backends[0].port}",
        overlays=[json.dumps(overlay)],
    )
    yield agent, gateways, backends
    for one in backends:
        one.down()


def test_no_trace_is_split_and_counts_are_exact(tiers, say):
    """A failing trace is sampled completely by the one gateway that has all its spans."""
    agent, gateways, backends = tiers
    with grpc.insecure_channel(f"127.0.0.1:{agent.ports['GRPC']}") as channel:
        for number in range(SPANS):
            TraceServiceStub(channel).Export(part_of_each_trace(number))

    def counted():
        found = Counter()
        for gateway in gateways:
            for labels, value in gateway.scraped("traces_span_metrics_calls_total"):
                found[labels["service_name"], labels["status_code"]] += int(value)
        return found

    wanted = Counter()
    for trace in range(TRACES):
        failed = trace % 3 == 0
        wanted[f"loader-{trace % SERVICES}", "STATUS_CODE_UNSET"] += SPANS - failed
        if failed:
            wanted[f"loader-{trace % SERVICES}", "STATUS_CODE_ERROR"] += 1
    until(lambda: counted() == wanted, f"{wanted}")

    failing = len(range(0, TRACES, 3))
    until(
        lambda: sum(len(one.spans()) for one in backends) >= failing * SPANS,
        "every span of the traces that failed",
    )
    for gateway in gateways:
        gateway.stop()
    kept = [Counter(span.trace_id for span in one.spans()) for one in backends]
    assert not kept[0].keys() & kept[1].keys()
    assert all(kept), "both gateways had a share"
    whole = {(trace + 1).to_bytes(16, "big"): SPANS for trace in range(0, TRACES, 3)}
    assert dict(kept[0] + kept[1]) == whole
    assert {span.name for one in backends for span in one.spans()} == {"WRITE orders at ****"}
    everything = "".join(one.everything() for one in backends)
    assert "canary" not in everything
    assert "redact.tmp" not in everything
    say(
        f"agent and two gateways: {TRACES * SPANS} spans counted, {failing} failing traces whole,"
        f" {len(kept[0])} on one and {len(kept[1])} on the other"
    )


def increment(process):
    """Return the increments of one short process: all processes have the same times."""
    counter = Sum(
        aggregation_temporality=AGGREGATION_TEMPORALITY_DELTA,
        is_monotonic=True,
        data_points=[NumberDataPoint(start_time_unix_nano=1, time_unix_nano=2, as_int=process + 1)],
    )
    return ExportMetricsServiceRequest(
        resource_metrics=[
            ResourceMetrics(
                resource=Resource(
                    attributes=[
                        pair("service.name", f"loader-{process % SERVICES}"),
                        pair("service.instance.id", f"process-{process}"),
                        pair("deployment.environment.name", "test"),
                    ]
                ),
                scope_metrics=[ScopeMetrics(metrics=[Metric(name="rows", sum=counter)])],
            )
        ]
    )


def test_increments_of_processes_at_the_same_time_are_all_added(tiers, say):
    """Each service has one series, on one gateway, with the sum over its processes."""
    agent, gateways, _ = tiers
    processes = 120
    with grpc.insecure_channel(f"127.0.0.1:{agent.ports['GRPC']}") as channel:
        stub = MetricsServiceStub(channel)
        with futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(stub.Export, map(increment, range(processes))))
    wanted = Counter()
    for process in range(processes):
        wanted[f"loader-{process % SERVICES}"] += process + 1

    def added():
        rows = [row for gateway in gateways for row in gateway.scraped("rows_total", "SUMS")]
        assert all(labels["deployment_environment_name"] == "test" for labels, _ in rows)
        assert not any("instance" in labels for labels, _ in rows)
        return len(rows) == SERVICES and {labels["job"]: value for labels, value in rows} == wanted

    until(added, f"{wanted}")
    say(
        f"agent and two gateways: increments of {processes} processes in {SERVICES} sums, all exact"
    )
