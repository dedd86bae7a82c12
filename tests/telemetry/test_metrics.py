"""The metric sink records the documented names, units and bounded attributes, and no identifiers."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader, Sum
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.semconv._incubating.metrics.db_metrics import (
    create_db_client_operation_duration,
)

from deltawitness import cache_span, metric_views
from deltawitness.events import (
    CommitMetrics,
    Committed,
    Failed,
    InputVersion,
    NoCommit,
    NoCommitReason,
    WriteEvent,
    WriteIntent,
)
from deltawitness.run_context import RunContext
from deltawitness.semconv import (
    CACHE_DURATION_BUCKETS,
    DB_DURATION_BUCKETS,
    CacheOperation,
    CacheScope,
    ErrorType,
    Operation,
)
from deltawitness.telemetry.cache_spans import use_providers
from deltawitness.telemetry.metrics import InternalCounters, MetricSink, StatementInstruments
from deltawitness.testing import InMemoryTelemetry

EVENT = WriteEvent(
    write_id="write-id",
    run=RunContext("run-id", "job-name", attributes={"shard": "run-attribute"}),
    intent=WriteIntent(
        operation=Operation.MERGE,
        cache_operation=CacheOperation.MERGE,
        table_uri="file:///table-uri",
        table_name="table-name",
        mode="write-mode",
        policy="nightly",
        scope=CacheScope.VIEW,
        cache_key="cache-key",
        schema_hash="schema-hash",
        plan_hash="plan-hash",
        inputs=(InputVersion("input-id", 7),),
    ),
    outcome=Committed(
        (3, 4),
        CommitMetrics(
            rows_added=1,
            rows_updated=2,
            rows_deleted=3,
            rows_copied=4,
            files_added=5,
            files_removed=6,
            bytes_added=700,
            bytes_removed=800,
            retries=9,
            execution_ms=10,
        ),
    ),
    started_at=1_700_000_000_000_000_000,
    duration_ns=2_000_000_000,
    table_id="table-id",
    thread="thread-name",
    pid=4242,
)

IDENTIFYING = [
    *("write-id", "run-id", "job-name", "run-attribute", "table-uri", "table-name", "table-id"),
    *("write-mode", "cache-key", "schema-hash", "plan-hash", "input-id", "thread-name", "4242"),
]

CACHE_ATTRIBUTES = {
    "cache.policy": "nightly",
    "cache.scope": "view",
    "cache.operation": "merge",
    "cache.result": "write",
}


@pytest.fixture
def telemetry():
    """Providers in memory."""
    return InMemoryTelemetry.create()


def data_points(telemetry):
    """Return the data points of each counter and histogram as (attributes, value or sum)."""
    return {
        name: sorted(
            ((dict(p.attributes), p.value if hasattr(p, "value") else p.sum) for p in points),
            key=str,
        )
        for name, points in telemetry.metric_points().items()
    }


def metrics_of(reader):
    """Return the reader's metrics by instrument name."""
    return {
        metric.name: metric
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_a_commit_has_exactly_these_data_points(telemetry):
    """Every instrument, attribute and value of a commit is as listed."""
    MetricSink(telemetry.meter_provider)(EVENT)
    merge = {"db.operation.name": "MERGE"}
    assert data_points(telemetry) == {
        "db.client.operation.duration": [({"db.system.name": "deltalake", **merge}, 2.0)],
        "cache.operation.count": [(CACHE_ATTRIBUTES, 1)],
        "cache.operation.duration": [(CACHE_ATTRIBUTES, 2.0)],
        "delta.commit.rows": [
            ({**merge, "delta.change": "added"}, 1),
            ({**merge, "delta.change": "copied"}, 4),
            ({**merge, "delta.change": "deleted"}, 3),
            ({**merge, "delta.change": "updated"}, 2),
        ],
        "delta.commit.files": [
            ({**merge, "delta.change": "added"}, 5),
            ({**merge, "delta.change": "removed"}, 6),
        ],
        "delta.commit.size": [
            ({**merge, "delta.change": "added"}, 700),
            ({**merge, "delta.change": "removed"}, 800),
        ],
        "delta.commit.retries": [(merge, 9)],
    }


def test_the_instruments_are_of_the_kind_and_unit_that_their_names_promise():
    """Counters are monotonic and buckets are advised; the first histogram is that of the conventions."""
    reader, reference = InMemoryMetricReader(), InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    MetricSink(provider)(EVENT)
    counters = InternalCounters(provider)
    counters.count_error("sink")
    counters.count_dropped("delivery")
    StatementInstruments(provider).count_repeat(Operation.MERGE)
    found = metrics_of(reader)
    assert {name: (type(m.data), m.unit) for name, m in found.items()} == {
        "db.client.operation.duration": (Histogram, "s"),
        "cache.operation.count": (Sum, "{operation}"),
        "cache.operation.duration": (Histogram, "s"),
        "delta.commit.rows": (Sum, "{row}"),
        "delta.commit.files": (Sum, "{file}"),
        "delta.commit.size": (Sum, "By"),
        "delta.commit.retries": (Sum, "{retry}"),
        "deltawitness.statement.repeats": (Sum, "{execution}"),
        "deltawitness.internal.errors": (Sum, "{error}"),
        "deltawitness.events.dropped": (Sum, "{event}"),
    }
    assert all(m.data.is_monotonic for m in found.values() if isinstance(m.data, Sum))
    assert {
        name: tuple(m.data.data_points[0].explicit_bounds)
        for name, m in found.items()
        if isinstance(m.data, Histogram)
    } == {
        "db.client.operation.duration": DB_DURATION_BUCKETS,
        "cache.operation.duration": CACHE_DURATION_BUCKETS,
    }
    theirs = MeterProvider([reference], shutdown_on_exit=False).get_meter("reference")
    create_db_client_operation_duration(theirs).record(1)
    (expected,), ours = metrics_of(reference).values(), found["db.client.operation.duration"]
    assert (ours.name, ours.unit, ours.description) == (
        expected.name,
        expected.unit,
        expected.description,
    )


def test_a_failure_has_its_error_type_on_the_durations_and_no_commit_counts(telemetry):
    """The operation count has only `cache.result`, as its attributes are a closed list."""
    failure = Failed(ErrorType.COMMIT_CONFLICT, "CommitFailedError", "message-text")
    MetricSink(telemetry.meter_provider)(replace(EVENT, outcome=failure))
    failed = CACHE_ATTRIBUTES | {"cache.result": "error"}
    error_type = {"error.type": "commit_conflict"}
    assert data_points(telemetry) == {
        "db.client.operation.duration": [
            ({"db.system.name": "deltalake", "db.operation.name": "MERGE", **error_type}, 2.0)
        ],
        "cache.operation.count": [(failed, 1)],
        "cache.operation.duration": [({**failed, **error_type}, 2.0)],
    }


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        (Committed((1,)), "write"),
        (Committed((1,), CommitMetrics(rows_added=0, files_added=0, retries=0)), "write"),
        (NoCommit(NoCommitReason.NOTHING_TO_DO, CommitMetrics(rows_copied=5)), "noop"),
    ],
)
def test_counts_that_are_zero_or_unknown_make_no_data_point(outcome, result, telemetry):
    """Nor do counts of an operation that made no commit."""
    MetricSink(telemetry.meter_provider)(replace(EVENT, outcome=outcome))
    found = data_points(telemetry)
    assert sorted(found) == [
        "cache.operation.count",
        "cache.operation.duration",
        "db.client.operation.duration",
    ]
    assert found["cache.operation.count"] == [({**CACHE_ATTRIBUTES, "cache.result": result}, 1)]


@pytest.mark.parametrize("views", [False, True])
def test_no_identifier_of_a_write_reaches_a_metric(views):
    """No identifier is an attribute, or is dropped by a view into an exemplar."""
    reader = InMemoryMetricReader()
    drops_all = [View(instrument_name="*", attribute_keys=set())] if views else []
    provider = MeterProvider([reader], views=drops_all, shutdown_on_exit=False)
    span = trace.NonRecordingSpan(
        trace.SpanContext(1, 2, False, trace.TraceFlags(trace.TraceFlags.SAMPLED))  # noqa: FBT003 - is_remote
    )
    MetricSink(provider)(EVENT, trace.set_span_in_context(span))
    points = [p for metric in metrics_of(reader).values() for p in metric.data.data_points]
    exemplars = [exemplar for point in points for exemplar in point.exemplars]
    # Without their times, whose digits may be those of an identifier.
    text = str([point.attributes for point in points] + [e.filtered_attributes for e in exemplars])
    assert [word for word in IDENTIFYING if word in text] == []
    assert {(e.trace_id, e.span_id) for e in exemplars} == {(1, 2)}
    dropped = {key for e in exemplars for key in e.filtered_attributes}
    bounded = {*CACHE_ATTRIBUTES, "db.system.name", "db.operation.name", "delta.change"}
    assert dropped == (bounded if views else set())


@pytest.mark.parametrize("views", [False, True])
def test_views_set_boundaries_where_advice_is_not_taken(views):
    """A reader may set boundaries for all histograms; only views take precedence."""
    reader = InMemoryMetricReader(
        preferred_aggregation={HistogramInstrument: ExplicitBucketHistogramAggregation([1])}
    )
    ours = metric_views() if views else []
    provider = MeterProvider([reader], views=ours, shutdown_on_exit=False)
    MetricSink(provider)(EVENT)
    found = metrics_of(reader)
    bounds = {
        name: tuple(metric.data.data_points[0].explicit_bounds)
        for name, metric in found.items()
        if isinstance(metric.data, Histogram)
    }
    assert bounds == {
        "db.client.operation.duration": DB_DURATION_BUCKETS if views else (1,),
        "cache.operation.duration": CACHE_DURATION_BUCKETS if views else (1,),
    }
    (point,) = found["cache.operation.duration"].data.data_points
    assert dict(point.attributes) == CACHE_ATTRIBUTES


def test_views_keep_only_the_listed_attributes():
    """The views allow only the listed attributes of each histogram, error type included."""
    assert {view._instrument_name: sorted(view._attribute_keys) for view in metric_views()} == {
        "db.client.operation.duration": ["db.operation.name", "db.system.name", "error.type"],
        "cache.operation.duration": [
            "cache.operation",
            "cache.policy",
            "cache.result",
            "cache.scope",
            "error.type",
        ],
    }


def test_views_without_an_sdk_say_what_to_install(monkeypatch):
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(ImportError, match=r"install deltawitness\[otel\]"):
        metric_views()


def test_the_65th_policy_is_the_others_for_writes_and_cache_spans_together(telemetry):
    """Writes and cache spans share one cap of policy names."""
    sink = MetricSink(telemetry.meter_provider)
    for number in range(63):
        sink(replace(EVENT, intent=replace(EVENT.intent, policy=f"policy-{number}")))
    use_providers(None, telemetry.meter_provider)
    try:
        for policy in ("policy-63", "policy-64", "policy-0"):
            with cache_span(
                "cache.read", cache_policy=policy, cache_scope="view", operation="read"
            ):
                pass
    finally:
        use_providers(None, None)
    sink(replace(EVENT, intent=replace(EVENT.intent, policy="policy-65")))
    counts: dict[str, int] = {}
    for attributes, count in data_points(telemetry)["cache.operation.count"]:
        policy = attributes["cache.policy"]
        counts[policy] = counts.get(policy, 0) + count
    assert counts == {f"policy-{n}": 1 for n in range(1, 64)} | {"policy-0": 2, "_other": 2}


def test_without_an_sdk_recording_does_nothing():
    """The API's no-op instruments accept every call."""
    MetricSink(NoOpMeterProvider())(EVENT)
    counters = InternalCounters(NoOpMeterProvider())
    counters.count_error("sink")
    counters.count_dropped("delivery", 3)


def test_internal_counters_count_and_never_raise():
    """They do not raise when the SDK raises."""

    class Broken:
        def add(self, *args, **kwargs):
            raise RuntimeError

    reader = InMemoryMetricReader()
    counters = InternalCounters(MeterProvider([reader], shutdown_on_exit=False))
    counters.count_dropped("delivery", 3)
    counters.count_dropped("sink")
    points = metrics_of(reader)["deltawitness.events.dropped"].data.data_points
    assert sorted((p.attributes["deltawitness.component"], p.value) for p in points) == [
        ("delivery", 3),
        ("sink", 1),
    ]
    counters._errors = counters._dropped = Broken()
    counters.count_error("sink")
    counters.count_dropped("sink")
    statements = StatementInstruments(NoOpMeterProvider())
    statements._repeats = Broken()
    statements.count_repeat(Operation.MERGE)
