"""Dashboards and alert rules query only series that a real Prometheus scrapes from a real Collector."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from deltawitness import DeltaCache, ObservedSessionContext, Settings, metric_views
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.semconv import METRIC_COMMIT_RETRIES, SCOPE_NAME
from deltawitness.telemetry.metrics import InternalCounters
from helpers.collector_parts import CONFIGS, PROMETHEUS, PROMTOOL, until
from helpers.prometheus_parts import ALERTS, DASHBOARDS, Prometheus, filled, of_dashboards

needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None,
    reason="needs Prometheus: set PROMETHEUS_BIN, or run `make collector` (Debian package)",
)

KEYWORDS = {"by", "unless", "offset", "or"}
FUNCTIONS = {
    *("sum", "vector", "rate", "topk", "histogram_quantile", "label_values"),
    *("label_replace", "last_over_time"),
}
ARGUMENT_ONLY = re.compile(r"label_values\((\w+), (\w+)\)")


def of_variables():
    """Return every metric and label that a dashboard's variables use."""
    for path in DASHBOARDS:
        for variable in json.loads(path.read_text())["templating"]["list"]:
            yield from ARGUMENT_ONLY.findall(variable["query"])


def of_rules():
    """Return every query of the rules; the name of a recording rule is not a scraped metric."""
    for group in yaml.safe_load((ALERTS / "deltawitness.rules.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def asked(expression):
    """Return the metrics of a query, each with the labels that it selects or groups by."""
    bare = re.sub(r"\[[^\]]*\]|offset (?:\$\w+|\d+[mh])", "", expression)
    bare = re.sub(r'label_replace\((.*?), "\w+", "_other", "", ""\)', r"(\1)", bare)
    summed = {
        label.strip()
        for group in re.findall(r"\bby\s*\(([^)]*)\)", bare)
        for label in group.split(",")
    }
    bare = re.sub(r"\bby\s*\([^)]*\)", "", bare)
    wanted = {}
    for name, matchers in re.findall(r"([a-z_:0-9]*[a-z_]\w*)\s*(\{[^}]*\})?", bare):
        if name in KEYWORDS | FUNCTIONS or ":" in name or "_" not in name:
            continue
        selected = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', matchers))
        wanted.setdefault(name, set()).update(selected | summed)
    return wanted


def observed_program(one, folder):
    """A program with all kinds of metrics: of writes, failures, the cache and the ledger."""
    endpoint = f"http://127.0.0.1:{one.ports['GRPC']}"
    resource = Resource.create({"service.name": "loader"})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure=True)))
    meters = MeterProvider(
        [PeriodicExportingMetricReader(OTLPMetricExporter(endpoint, insecure=True))],
        resource=resource,
        views=metric_views(),
    )
    settings = Settings(cache_root=str(folder / "root"))
    DeltaLakeInstrumentor().instrument(
        tracer_provider=tracers, meter_provider=meters, settings=settings
    )
    table = str(folder / "orders")
    write_deltalake(table, pa.table({"x": [1, 2]}))
    DeltaTable(table).delete("x = 1")
    with pytest.raises(Exception, match="already exists"):
        write_deltalake(table, pa.table({"x": [1]}), mode="error")
    session = ObservedSessionContext()
    session.register_table("orders", DeltaTable(table))
    cache = DeltaCache(session)
    for _ in range(2):
        cache.view("orders_view", "SELECT x, x + 1 AS y FROM orders").collect()
    # Hard to provoke: increment the library's counters directly.
    InternalCounters(meters).count_error("spans")
    InternalCounters(meters).count_dropped("delivery")
    meters.get_meter(SCOPE_NAME).create_counter(METRIC_COMMIT_RETRIES, "{retry}").add(
        1, {"db.operation.name": "WRITE"}
    )
    tracers.force_flush()
    meters.force_flush()
    send_increments(endpoint)
    return tracers, meters


def send_increments(endpoint):
    """Send the increments of two series, of which the Collector accepts one: an error that is counted."""
    exporter = OTLPMetricExporter(
        endpoint, insecure=True, preferred_temporality={Counter: AggregationTemporality.DELTA}
    )
    meters = MeterProvider([PeriodicExportingMetricReader(exporter)])
    counter = meters.get_meter("test").create_counter("increments")
    counter.add(1, {"part": "a"})
    counter.add(1, {"part": "b"})
    meters.shutdown()


@pytest.fixture
def prometheus(tmp_path):
    """A function that starts a Prometheus which scrapes a Collector, with our rules."""
    started = []

    def start(one):
        started.append(Prometheus(tmp_path, one))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@needs_prometheus
def test_every_queried_metric_and_label_exists(collector, backend, prometheus, tmp_path, say):
    """Every metric has every label that is queried, and every panel's query has a result."""
    wanted = {name: {label} for name, label in of_variables()}
    for expression in (*of_dashboards(), *of_rules()):
        for name, labels in asked(expression).items():
            wanted.setdefault(name, set()).update(labels)
    assert {"status_code", "service_name", "le"} <= wanted[
        "traces_span_metrics_duration_seconds_bucket"
    ] | {"status_code"}
    assert wanted["delta_commit_rows_total"] == {"delta_change", "job"}
    assert wanted["traces_table_metrics_calls_total"] >= {"db_collection_name", "status_code"}
    one = collector(
        "config.yaml",
        BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}",
        DECISION_WAIT="1s",
        DECISION_WAIT_AFTER_ROOT="1s",
        SPANMETRICS_FLUSH="1s",
        BASELINE_PERCENT="100",
        SUMS_MAX_STREAMS="1",
    )
    server = prometheus(one)
    tracers, meters = observed_program(one, tmp_path)

    def missing():
        return {
            name: lacking
            for name, labels in wanted.items()
            if (lacking := labels - server.labels_of(name)) or not server.labels_of(name)
        }

    until(lambda: missing() == {}, f"all of {wanted}")

    def unanswered():
        return [query for query in of_dashboards() if not server.query(filled(query))]

    until(lambda: unanswered() == [], "an answer to each panel")
    tracers.shutdown()
    meters.shutdown()
    pairs = sum(map(len, wanted.values()))
    say(f"dashboards and rules: {len(wanted)} metrics with {pairs} labels, all scraped")


@needs_prometheus
def test_the_alert_rules_fire_under_their_conditions():
    """The tool promtool runs the unit tests of the rules."""
    for arguments in (
        ["check", "rules", "deltawitness.rules.yaml"],
        ["test", "rules", "deltawitness.tests.yaml"],
    ):
        done = subprocess.run([PROMTOOL, *arguments], cwd=ALERTS, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_unit_test():
    """At least one test of each alert makes it fire."""
    tests = yaml.safe_load((ALERTS / "deltawitness.tests.yaml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    groups = yaml.safe_load((ALERTS / "deltawitness.rules.yaml").read_text())["groups"]
    assert fired == {
        rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule
    }


def test_the_dashboard_is_the_one_that_the_tool_writes():
    """The JSON is generated: a change of it by hand would be lost."""
    done = subprocess.run(
        [sys.executable, "tools/dashboard.py", "--check"], cwd=CONFIGS.parent, capture_output=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: Path(path).name)
def test_a_dashboard_can_be_imported(path):
    """Panels have unique ids, distinct positions and a description."""
    read = json.loads(path.read_text())
    panels = read["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(panel["description"] and panel["title"] for panel in panels)


def test_the_page_lists_every_panel():
    """The page has a description of every panel."""
    page = (CONFIGS / "README.md").read_text()
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            assert f"| {panel['title']} | {panel['description']} |" in page
