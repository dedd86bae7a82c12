"""Each write has one span, one set of data points and one log record, which are correlated."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from deltawitness import cache_context, cache_span, metric_views, read_commit_metadata, run
from deltawitness.events import InputVersion
from deltawitness.exceptions import ConfigurationError
from deltawitness.observe.write_context import WriteAttributes, write_context
from deltawitness.semconv import CACHE_DURATION_BUCKETS, DB_DURATION_BUCKETS
from deltawitness.telemetry.metrics import InternalCounters, PolicyNames

DATA = pa.table({"id": [1, 2, 3]})


@pytest.fixture
def table(tmp_path, delta_telemetry):
    """A table written under observation, so its first write is in the telemetry."""
    uri = tmp_path / "flights"
    write_deltalake(uri, DATA)
    return uri


def span_of(telemetry):
    return telemetry.spans()[-1]


def test_a_write_is_a_client_span_with_the_stable_conventions(table, delta_telemetry):
    """The span has the name, kind and attribute types of the semantic conventions."""
    write_deltalake(table, DATA, mode="append")
    span = span_of(delta_telemetry)
    commit = read_commit_metadata(table)
    assert (span.name, span.kind) == ("WRITE flights", SpanKind.CLIENT)
    assert span.status.status_code is StatusCode.UNSET
    attributes = dict(span.attributes)
    assert attributes.pop("delta.table.id").isalnum()
    assert attributes.pop("delta.commit.size.added") > 0
    assert attributes.pop("cicd.pipeline.name")
    assert attributes.pop("cache.schema.hash").isalnum()
    assert attributes.pop("code.line.number") > 0
    assert attributes == {
        "db.system.name": "deltalake",
        "db.operation.name": "WRITE",
        "db.collection.name": "flights",
        "db.query.summary": "WRITE flights",
        "cache.policy": "unmanaged",
        "cache.scope": "dataset",
        "cache.operation": "write",
        "cache.result": "write",
        "deltawitness.run.id": commit.run_id,
        "cicd.pipeline.run.id": commit.run_id,
        "deltawitness.write.id": commit.write_id,
        "delta.table.version": 1,
        "delta.write.mode": "append",
        "delta.commit.rows.added": 3,
        "delta.commit.files.added": 1,
        "delta.commit.files.removed": 0,
        "delta.commit.size.removed": 0,
        "delta.commit.retries": 0,
        "code.file.path": "tests/telemetry/test_signals.py",
        "code.function.name": f"{__name__}.test_a_write_is_a_client_span_with_the_stable_conventions",
    }


def test_the_commit_leads_to_the_span(table, delta_telemetry):
    """`traceparent` in the commit has the trace id and the span id of the write's span."""
    context = span_of(delta_telemetry).context
    traceparent = read_commit_metadata(table).metadata["traceparent"]
    assert traceparent.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")


def test_the_span_lasts_as_long_as_the_write(table, delta_telemetry):
    """The span and the duration metric have the duration of the write."""
    span = span_of(delta_telemetry)
    (point,) = delta_telemetry.metric_points()["db.client.operation.duration"]
    assert point.sum == pytest.approx((span.end_time - span.start_time) / 1e9)


def test_a_write_is_a_child_of_the_span_around_it(table, delta_telemetry):
    """A span of the program is the parent of the write's span."""
    tracer = delta_telemetry.tracer_provider.get_tracer("app")
    with tracer.start_as_current_span("job") as parent:
        write_deltalake(table, DATA, mode="append")
    (written,) = [s for s in delta_telemetry.spans() if s.name == "WRITE flights" and s.parent]
    assert written.parent.span_id == parent.get_span_context().span_id


def test_a_run_is_a_span_around_its_writes(table, delta_telemetry):
    """A run has a span, and its writes are in that trace."""
    with run("nightly", attributes={"shard": "3"}) as context:
        write_deltalake(table, DATA, mode="append")
    written, around = delta_telemetry.spans()[-2:]
    assert (around.name, around.kind) == ("nightly", SpanKind.INTERNAL)
    assert written.parent.span_id == around.context.span_id
    assert around.attributes["deltawitness.run.id"] == context.run_id
    assert around.attributes["deltawitness.run.attribute.shard"] == "3"
    assert written.attributes["deltawitness.run.attribute.shard"] == "3"


def test_a_run_that_fails_is_a_span_with_the_error(delta_telemetry):
    """The span of a failed run has the error's class only, as its text may contain anything."""
    with pytest.raises(KeyError), run("nightly"):
        raise KeyError("secret")
    span = span_of(delta_telemetry)
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "KeyError"
    assert "secret" not in span.to_json()


def test_a_failure_has_an_error_status_type_and_two_log_records(table, delta_telemetry):
    """Span, metrics and logs have the same error type; the exception is a log event, not a span event."""
    with pytest.raises(Exception, match="already exists"):
        write_deltalake(table, DATA)
    span = span_of(delta_telemetry)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "Generic error: A table already exists at: [uri]"
    assert span.attributes["error.type"] == "table_exists"
    assert span.attributes["deltawitness.landed"] == "no"
    assert span.events == ()
    failed = [
        point
        for point in delta_telemetry.metric_points()["db.client.operation.duration"]
        if "error.type" in point.attributes
    ]
    assert [dict(point.attributes) for point in failed] == [
        {
            "db.system.name": "deltalake",
            "db.operation.name": "WRITE",
            "error.type": "table_exists",
        }
    ]
    records = [record.log_record for record in delta_telemetry.log_records()[1:]]
    assert [(r.event_name, r.severity_text) for r in records] == [
        ("deltawitness.write", "ERROR"),
        ("db.client.operation.exception", "WARN"),
    ]
    assert records[1].attributes["exception.type"] == "_internal.DeltaError"
    assert {r.span_id for r in records} == {span.context.span_id}


def test_the_log_record_has_the_ids_and_attributes_of_the_span(table, delta_telemetry):
    """The record has the trace id, span id and end time of the write."""
    span, record = span_of(delta_telemetry), delta_telemetry.log_records()[-1].log_record
    assert (record.trace_id, record.span_id) == (span.context.trace_id, span.context.span_id)
    assert record.timestamp == span.end_time
    assert record.event_name == "deltawitness.write"
    for name, value in record.attributes.items():
        assert span.attributes[name] == value


def test_metrics_carry_bounded_attributes_only(table, delta_telemetry):
    """No data point has the name of a run or a table, or an id."""
    with run("nightly"), cache_context(policy="views", scope="view", key="k"):
        DeltaTable(table).delete("id = 1")
    points = delta_telemetry.metric_points()
    assert {
        name: sorted({tuple(sorted(point.attributes)) for point in found})
        for name, found in points.items()
    } == {
        "db.client.operation.duration": [("db.operation.name", "db.system.name")],
        "cache.operation.count": [
            ("cache.operation", "cache.policy", "cache.result", "cache.scope")
        ],
        "cache.operation.duration": [
            ("cache.operation", "cache.policy", "cache.result", "cache.scope")
        ],
        "delta.commit.rows": [("db.operation.name", "delta.change")],
        "delta.commit.files": [("db.operation.name", "delta.change")],
        "delta.commit.size": [("db.operation.name", "delta.change")],
    }


def test_metrics_have_the_names_units_and_buckets_of_the_conventions(table, delta_telemetry):
    """Names, units and buckets are those of the semantic conventions and of our list."""
    assert delta_telemetry.spans()
    data = delta_telemetry._metrics.get_metrics_data()
    found = {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {name: metric.unit for name, metric in found.items()} == {
        "db.client.operation.duration": "s",
        "cache.operation.count": "{operation}",
        "cache.operation.duration": "s",
        "delta.commit.rows": "{row}",
        "delta.commit.files": "{file}",
        "delta.commit.size": "By",
    }
    bounds = {
        name: tuple(metric.data.data_points[0].explicit_bounds)
        for name, metric in found.items()
        if name.endswith("duration")
    }
    assert bounds == {
        "db.client.operation.duration": DB_DURATION_BUCKETS,
        "cache.operation.duration": CACHE_DURATION_BUCKETS,
    }


def test_views_give_the_same_buckets(table):
    """For programs that create their own provider, the views set the advised buckets."""
    assert [tuple(view._aggregation._boundaries) for view in metric_views()] == [
        DB_DURATION_BUCKETS,
        CACHE_DURATION_BUCKETS,
    ]


def test_exemplars_point_to_the_span_and_hold_nothing_else(table, delta_telemetry):
    """The default filter samples within a trace; no attribute is filtered, so an exemplar has none."""
    (point,) = delta_telemetry.metric_points()["db.client.operation.duration"]
    span = span_of(delta_telemetry)
    assert [(e.trace_id, e.span_id, e.filtered_attributes) for e in point.exemplars] == [
        (span.context.trace_id, span.context.span_id, {})
    ]


def test_the_65th_policy_is_the_others():
    """Data points do not grow with the number of policies."""
    names = PolicyNames()
    bounded_names = {names.bounded(f"p{i}") for i in range(100)}
    assert len(bounded_names) == 65
    assert "_other" in bounded_names
    assert names.bounded("p0") == "p0"


def test_inputs_and_hashes_of_the_write_context_are_exported(table, delta_telemetry):
    """A write's span has the attributes of the write context around it."""
    attributes = WriteAttributes(
        plan_hash="p", schema_hash="s", inputs=(InputVersion("t", 4, "file:///x"),)
    )
    with write_context(attributes):
        write_deltalake(table, DATA, mode="append")
    attributes = span_of(delta_telemetry).attributes
    assert attributes["delta.inputs"] == ("t@4",)
    assert (attributes["cache.plan.hash"], attributes["cache.schema.hash"]) == ("p", "s")


def test_a_providers_own_flush_waits_for_the_delivery(tmp_path, delta_telemetry):
    """`force_flush` right after the last write exports its span; `uninstrument()` restores the method."""
    provider = delta_telemetry.tracer_provider
    write_deltalake(tmp_path / "t", DATA)
    assert "force_flush" in vars(provider)
    provider.force_flush()
    assert [s.name for s in delta_telemetry._spans.get_finished_spans()] == ["WRITE t"]


def test_internal_errors_and_drops_are_counted_by_component(delta_telemetry):
    """Both counters have one bounded attribute."""
    counters = InternalCounters(delta_telemetry.meter_provider)
    counters.count_error("sink")
    counters.count_dropped("delivery")
    points = delta_telemetry.metric_points()
    assert {
        name: [(dict(p.attributes), p.value) for p in points[name]]
        for name in ("deltawitness.internal.errors", "deltawitness.events.dropped")
    } == {
        "deltawitness.internal.errors": [({"deltawitness.component": "sink"}, 1)],
        "deltawitness.events.dropped": [({"deltawitness.component": "delivery"}, 1)],
    }


@pytest.mark.parametrize(
    ("operation", "chosen", "expected"),
    [("read", None, "hit"), ("read", "miss", "miss"), ("write", None, "write")],
)
def test_a_cache_span_has_its_result(operation, chosen, expected, delta_telemetry):
    """The span and the data point have the result."""
    with cache_span(
        f"cache.{operation}",
        cache_policy="nightly",
        cache_scope="view",
        operation=operation,
        attributes={"note": "/home/ann/x", "rows": 3},
    ) as (span, set_result):
        assert trace.get_current_span() is span
        if chosen is not None:
            set_result(chosen)
    seen = span_of(delta_telemetry)
    assert seen.name == f"cache.{operation}"
    assert seen.attributes["cache.result"] == expected
    assert (seen.attributes["note"], seen.attributes["rows"]) == ("[path]", 3)
    (point,) = delta_telemetry.metric_points()["cache.operation.count"]
    assert dict(point.attributes) == {
        "cache.policy": "nightly",
        "cache.scope": "view",
        "cache.operation": operation,
        "cache.result": expected,
    }


def test_a_failed_cache_span_has_the_error_and_raises_it(delta_telemetry):
    """The span has status, type and redacted text; the caller gets the original exception."""
    error = OSError(28, "No space left on device: '/home/ann/x'")
    with (
        pytest.raises(OSError) as raised,
        cache_span("cache.write", cache_policy="p", cache_scope="view", operation="write"),
    ):
        raise error
    assert raised.value is error
    span = span_of(delta_telemetry)
    assert span.attributes["error.type"] == "storage_full"
    assert span.attributes["cache.result"] == "error"
    assert "ann" not in span.to_json()


@pytest.mark.parametrize("wrong", [{"cache_scope": "table"}, {"operation": "truncate"}])
def test_a_cache_span_outside_the_closed_sets_is_refused_before_it_opens(wrong, delta_telemetry):
    """The error lists the allowed values."""
    arguments = {"cache_policy": "p", "cache_scope": "view", "operation": "read"} | wrong
    with pytest.raises(ConfigurationError, match="expected one of"), cache_span("x", **arguments):
        pass
    assert delta_telemetry.spans() == []
