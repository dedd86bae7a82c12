"""A cache span records one operation as a span and two metrics, and never changes the operation."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanKind, StatusCode

from deltawitness import cache_span, internal_errors, run
from deltawitness.exceptions import ConfigurationError
from deltawitness.semconv import SPAN_CACHE_READ, SPAN_CACHE_SNAPSHOT, CacheOperation, CacheScope
from deltawitness.telemetry.cache_spans import use_providers
from deltawitness.testing import InMemoryTelemetry

READ = {"cache_policy": "nightly", "cache_scope": "view", "operation": "read"}


@pytest.fixture
def telemetry():
    """In-memory providers for cache spans."""
    created = InMemoryTelemetry.create()
    use_providers(created.tracer_provider, created.meter_provider)
    yield created
    use_providers(None, None)


def metric_attributes(telemetry, name):
    return [dict(point.attributes) for point in telemetry.metric_points()[name]]


def test_a_span_has_the_operation_the_run_and_the_callers_attributes(telemetry):
    """A span has the operation, the run and the caller's attributes; the metrics have the bounded ones."""
    with (
        run("nightly") as context,
        cache_span(
            SPAN_CACHE_SNAPSHOT,
            cache_policy="nightly",
            cache_scope=CacheScope.METADATA,
            operation=CacheOperation.SNAPSHOT,
            attributes={"rows": 3, "warm": True},
        ),
    ):
        pass
    (span,) = telemetry.spans()
    bounded = {
        "cache.policy": "nightly",
        "cache.scope": "metadata",
        "cache.operation": "snapshot",
        "cache.result": "write",
    }
    assert (span.name, span.kind) == ("cache.snapshot", SpanKind.INTERNAL)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes) == bounded | {
        "rows": 3,
        "warm": True,
        "deltawitness.run.id": context.run_id,
    }
    assert metric_attributes(telemetry, "cache.operation.count") == [bounded]
    assert metric_attributes(telemetry, "cache.operation.duration") == [bounded]


@pytest.mark.parametrize("operation", list(CacheOperation))
def test_the_default_result_is_hit_for_reads_and_write_otherwise(operation, telemetry):
    """The default result is `hit` for a read and `write` for every other operation."""
    with cache_span("x", cache_policy="p", cache_scope="view", operation=operation):
        pass
    (attributes,) = metric_attributes(telemetry, "cache.operation.count")
    expected = "hit" if operation is CacheOperation.READ else "write"
    assert (attributes["cache.operation"], attributes["cache.result"]) == (operation, expected)


def test_the_last_result_counts(telemetry):
    """Only the last result is counted."""
    with cache_span(SPAN_CACHE_READ, **READ) as (_, set_result):
        set_result("miss")
        set_result("noop")
    (point,) = telemetry.metric_points()["cache.operation.count"]
    assert (point.value, point.attributes["cache.result"]) == (1, "noop")


def test_an_exception_is_recorded_by_type_and_raised_unchanged(telemetry):
    """An exception sets the error type and redacted text, also after a result was set, and is raised unchanged."""
    error = PermissionError(13, "Permission denied: '/home/ann/x'")
    with (
        pytest.raises(PermissionError) as raised,
        cache_span(SPAN_CACHE_READ, **READ) as (_, set_result),
    ):
        set_result("hit")
        raise error
    assert raised.value is error
    assert error.__cause__ is error.__context__ is None
    (span,) = telemetry.spans()
    assert span.events == ()
    assert span.status.status_code is StatusCode.ERROR
    assert "/home" not in (span.status.description or "")
    assert span.attributes["error.type"] == "permission_denied"
    (counted,) = metric_attributes(telemetry, "cache.operation.count")
    (timed,) = metric_attributes(telemetry, "cache.operation.duration")
    assert counted["cache.result"] == "error"
    assert timed == counted | {"error.type": "permission_denied"}


@pytest.mark.parametrize(
    ("interrupt", "error_type"),
    [(KeyboardInterrupt, "interrupted"), (StopIteration, "_OTHER")],
)
def test_an_interrupt_is_recorded_and_raised(interrupt, error_type, telemetry):
    """A `KeyboardInterrupt` is recorded and raised unchanged."""
    with pytest.raises(interrupt), cache_span(SPAN_CACHE_READ, **READ):
        raise interrupt
    (span,) = telemetry.spans()
    assert span.attributes["error.type"] == error_type


def test_an_exception_whose_str_raises_is_raised_unchanged(telemetry):
    """An exception whose `__str__` raises is raised unchanged."""

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    error = Mute()
    with pytest.raises(Mute) as raised, cache_span(SPAN_CACHE_READ, **READ):
        raise error
    assert raised.value is error
    (span,) = telemetry.spans()
    assert (span.status.description or "", span.attributes["error.type"]) == ("", "_OTHER")


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [
        ({"cache_scope": "table"}, "view, dataset, artifact, metadata, ledger"),
        ({"operation": "truncate"}, "write, merge, update, delete, optimize"),
    ],
)
def test_scope_and_operation_outside_the_closed_sets_open_no_span(wrong, allowed, telemetry):
    """An unknown scope or operation raises an error that lists the allowed ones, and opens no span."""
    with pytest.raises(ConfigurationError, match=allowed), cache_span("x", **READ | wrong):
        pytest.fail("the block must not run")
    assert telemetry.spans() == []
    assert telemetry.metric_points() == {}


def test_a_result_outside_the_closed_set_is_refused(telemetry):
    """`set_result` refuses an unknown result."""
    with (
        pytest.raises(ConfigurationError, match="write, hit, miss, noop, error"),
        cache_span(SPAN_CACHE_READ, **READ) as (_, set_result),
    ):
        set_result("perhaps")
    (counted,) = metric_attributes(telemetry, "cache.operation.count")
    assert counted["cache.result"] == "error"


def test_attributes_of_the_caller_neither_override_nor_leak(telemetry):
    """Our attributes win over the caller's, and the caller's texts are redacted, also in lists and by name."""
    with cache_span(
        "read /home/ann/x",
        **READ,
        attributes={
            "cache.scope": "anything",
            "note": "/home/ann/x",
            "files": ["/home/ann/x"],
            "password": "abc",
        },
    ):
        pass
    (span,) = telemetry.spans()
    assert span.name == "read [path]"
    assert span.attributes["cache.scope"] == "view"
    assert span.attributes["note"] == "[path]"
    assert span.attributes["files"] == ("[path]",)
    assert span.attributes["password"] == "[secret]"


def test_spans_nest_and_exemplars_have_their_own_span(telemetry):
    """The exemplar of a duration has the id of the span that was measured."""
    with cache_span("outer", **READ) as (outer, _), cache_span("inner", **READ) as (inner, _):
        assert trace.get_current_span() is inner
    assert [(s.name, s.parent and s.parent.span_id) for s in telemetry.spans()] == [
        ("inner", outer.get_span_context().span_id),
        ("outer", None),
    ]
    (point,) = telemetry.metric_points()["cache.operation.duration"]
    assert {e.span_id for e in point.exemplars} <= {
        outer.get_span_context().span_id,
        inner.get_span_context().span_id,
    }
    assert [e.filtered_attributes for e in point.exemplars] == [{}] * len(point.exemplars)
    assert point.exemplars


def test_the_block_runs_without_an_sdk():
    """Without an SDK the block runs with the no-op span of the API."""
    with cache_span(SPAN_CACHE_READ, **READ) as (span, set_result):
        set_result("miss")
    assert not span.is_recording()


class BrokenSampler(Sampler):
    """A sampler that raises when a span starts."""

    def should_sample(self, *args, **kwargs):
        raise RuntimeError

    def get_description(self):
        return "broken"


class BrokenProcessor(SpanProcessor):
    """A processor that raises when a span ends."""

    def on_end(self, span):
        raise RuntimeError


@pytest.mark.internal_errors
def test_a_broken_sdk_does_not_reach_the_caller(telemetry):
    """An SDK that raises at the start or end of a span does not reach the caller or replace its exception."""
    ending = TracerProvider(shutdown_on_exit=False)
    ending.add_span_processor(BrokenProcessor())
    for provider in (TracerProvider(sampler=BrokenSampler(), shutdown_on_exit=False), ending):
        use_providers(provider, telemetry.meter_provider)
        with pytest.raises(KeyError), cache_span(SPAN_CACHE_READ, **READ):
            raise KeyError
        with cache_span(SPAN_CACHE_READ, **READ) as (_, set_result):
            set_result("miss")
    assert internal_errors.error_counts() == {("spans", "RuntimeError"): 4}
    assert [p.value for p in telemetry.metric_points()["cache.operation.count"]] == [2, 2]


@pytest.mark.internal_errors
def test_a_broken_meter_does_not_reach_the_caller(telemetry):
    """A meter that raises is counted as an internal error and does not reach the caller."""

    class Broken:
        def get_meter(self, *args, **kwargs):
            raise RuntimeError

    use_providers(telemetry.tracer_provider, Broken())
    with cache_span(SPAN_CACHE_READ, **READ):
        pass
    assert internal_errors.error_counts() == {("metrics", "RuntimeError"): 1}
    assert [span.name for span in telemetry.spans()] == ["cache.read"]
