"""The Collector removes canaries from every field, and passes benign values next to them."""

from __future__ import annotations

import base64
import json
import urllib.request

import grpc
import pytest
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope

from deltawitness.semconv import SCOPE_NAME
from helpers.collector_canaries import BENIGN, CANARIES, TOGETHER, UNDER_A_KEY, logs, metrics, spans
from helpers.collector_parts import CONFIGS, fetch, until

SAID = [*CANARIES.values(), TOGETHER]
"""Each canary alone, and all of them one after the other."""

SETTINGS = {"DECISION_WAIT": "1s", "DECISION_WAIT_AFTER_ROOT": "1s", "SPANMETRICS_FLUSH": "1s"}


def over_grpc(one, saids):
    """Send the three signals by gRPC."""
    with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
        TraceServiceStub(channel).Export(spans(saids))
        LogsServiceStub(channel).Export(logs(saids))
        MetricsServiceStub(channel).Export(metrics(saids))


def over_http(one, saids):
    """Send the three signals by HTTP."""
    requests = {"traces": spans(saids), "logs": logs(saids), "metrics": metrics(saids)}
    for path, request in requests.items():
        urllib.request.urlopen(
            urllib.request.Request(
                f"http://127.0.0.1:{one.ports['HTTP']}/v1/{path}",
                data=request.SerializeToString(),
                headers={"Content-Type": "application/x-protobuf"},
            ),
            timeout=60,
        ).close()


def leaks(told):
    """Return the canaries in a text, each with its surroundings."""
    return {
        known: told[max(0, told.index(known) - 80) : told.index(known) + 30]
        for known in (*CANARIES, UNDER_A_KEY)
        if known in told
    }


def kept(attributes):
    """Return the benign attributes with their values after redaction."""
    told = {pair.key: pair.value.string_value for pair in attributes}
    assert not [key for key in told if key.startswith("redact.")]
    return {key: told.get(key) for key in BENIGN}


def points(metric):
    """Return the data points of a metric of any kind."""
    return getattr(metric, metric.WhichOneof("data")).data_points


def all_there(backend, saids):
    """Return whether everything that was sent has arrived, and the metrics of its spans."""
    told = [metric for metric in backend.metrics() if not metric.name.startswith("traces.")]
    return (
        len(backend.spans()) >= len(saids)
        and len(backend.logs()) >= 4 * len(saids)
        and len(told) >= len(saids)
        and len(told) < len(backend.metrics())
    )


@pytest.mark.parametrize("send", [over_grpc, over_http])
def test_no_canary_is_exported_and_other_values_are(send, collector, backend, say):
    """Spans, logs and metrics have no canary at the backend, in Prometheus and in the log."""
    one = collector("config.yaml", BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}", **SETTINGS)
    send(one, SAID)
    until(lambda: all_there(backend, SAID), "all three signals")
    page = until(
        lambda: told if "calls" in (told := fetch(one.ports["PROMETHEUS"])) else "", "metrics"
    )
    assert leaks(backend.everything()) == {}
    assert leaks(page) == {}
    assert leaks(one.log()) == {}
    for span in backend.spans():
        assert kept(span.attributes) == BENIGN
        assert kept(span.events[0].attributes) == BENIGN
        assert span.name.startswith("WRITE orders ")
    for record in backend.logs():
        assert kept(record.attributes) == BENIGN
        assert record.event_name.startswith("event ")
        assert record.severity_text.startswith("INFO ")
    for metric in backend.metrics():
        if not metric.name.startswith("traces."):
            assert metric.description.startswith("What is ")
            for point in points(metric):
                assert kept(point.attributes) == BENIGN
    say(
        f"collector, {send.__name__}: {len(CANARIES)} canaries in every field, alone and together:"
        f" none came out, {len(BENIGN)} look-alikes did"
    )


def test_a_secret_under_a_key_of_the_library_is_masked(collector, backend):
    """No key is exempt, and no scope is trusted: any program can use the names of the library."""
    read = yaml.safe_load((CONFIGS / "config.yaml").read_text())
    keys = read["processors"]["redaction/keys"]["ignored_keys"]
    request = spans(SAID)
    blob = "blobcanary" + "0aB/" * 100
    for resource, said in zip(request.resource_spans, SAID, strict=True):
        (scope,) = resource.scope_spans
        scope.scope.CopyFrom(InstrumentationScope(name=SCOPE_NAME))
        (span,) = scope.spans
        for key in keys:
            span.attributes.add(key=key).value.string_value = said
        span.attributes.add(key="app.blob").value.bytes_value = base64.b64decode(blob + "==")
    one = collector("config.yaml", BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}", **SETTINGS)
    with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
        TraceServiceStub(channel).Export(request)
    until(lambda: len(backend.spans()) >= len(SAID), "the spans")
    assert leaks(backend.everything()) == {}
    for span in backend.spans():
        values = {pair.key: pair.value for pair in span.attributes}
        assert values["app.blob"].string_value == "****"


def test_look_alikes_pass_in_every_field(collector, backend):
    """Names, texts, bodies, descriptions and units that resemble secrets are unchanged."""
    said = list(BENIGN.values())
    one = collector("config.yaml", BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}", **SETTINGS)
    over_grpc(one, said)
    until(lambda: all_there(backend, said), "all three signals")
    told = sorted((span.name, span.status.message, span.events[0].name) for span in backend.spans())
    assert told == sorted((f"WRITE orders {benign}", benign, benign) for benign in said)
    assert {record.body.string_value for record in backend.logs()} >= set(said)
    own = [metric for metric in backend.metrics() if not metric.name.startswith("traces.")]
    told = sorted((metric.description, metric.unit) for metric in own)
    assert told == sorted((f"What is {benign}", benign) for benign in said)


def test_the_queue_holds_no_canary(collector, backend):
    """Data that wait on disk for a backend are already redacted."""
    backend.down()
    one = collector("config.yaml", BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}", **SETTINGS)
    over_grpc(one, SAID)

    def waiting():
        return one.queued("traces") >= len(SAID) and one.queued("logs") >= 4 * len(SAID)

    until(waiting, "spans and logs in the queue")
    one.kill()
    files = [path.read_bytes() for path in one.queue.rglob("*") if path.is_file()]
    assert any(b"WRITE orders" in held for held in files)
    assert leaks(b"".join(files).decode("latin-1")) == {}


def test_the_strict_variant_lets_only_named_attributes_through(collector, backend):
    """It drops attributes that the library does not define, and texts that contain names."""
    processors = [
        "memory_limiter",
        "transform/stash",
        "redaction/keys",
        "redaction",
        "redaction/strict",
        "transform/unstash",
    ]
    pipelines = {name: {"processors": processors} for name in ("traces/in", "logs", "metrics/sdk")}
    one = collector(
        "config.yaml",
        BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}",
        overlays=[json.dumps({"service": {"pipelines": pipelines}})],
        **SETTINGS,
    )
    over_grpc(one, ["benign"])
    until(lambda: all_there(backend, ["benign"]), "all three signals")
    (span,) = backend.spans()
    keys = {pair.key for pair in span.attributes}
    assert "free" not in keys
    assert {"cache.policy", "db.operation.name", "deltawitness.run.id"} <= keys
    assert (span.name, span.status.message) == ("WRITE orders benign", "benign")
    assert {record.event_name for record in backend.logs()} == {"event benign"}


def test_the_three_configurations_have_the_same_redaction_patterns():
    """The tiers repeat one list of patterns."""
    blocks = [
        {
            name: yaml.safe_load((CONFIGS / config).read_text())["processors"][name]
            for name in (
                "transform/stash",
                "redaction/keys",
                "redaction",
                "redaction/strict",
                "transform/unstash",
            )
        }
        for config in ("config.yaml", "agent-tier.yaml", "gateway-tier.yaml")
    ]
    assert json.dumps(blocks[1]) == json.dumps(blocks[0])
    assert json.dumps(blocks[2]) == json.dumps(blocks[0])
