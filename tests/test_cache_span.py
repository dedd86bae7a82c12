"""A cache span tells one cache operation as a span and two metrics, and never changes it."""

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
    """Providers in memory, used by cache spans for the test."""
    created = InMemoryTelemetry.create()
    use_providers(created.tracer_provider, created.meter_provider)
    yield created
    use_providers(None, None)


def told(telemetry, name):
    return [dict(point.attributes) for point in telemetry.metric_points()[name]]


def test_a_span_has_the_operation_the_run_and_the_callers_attributes(telemetry):
    """And the two metrics have the bounded part of it."""
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
    assert told(telemetry, "cache.operation.count") == [bounded]
    assert told(telemetry, "cache.operation.duration") == [bounded]


@pytest.mark.parametrize("operation", list(CacheOperation))
def test_the_result_that_nobody_set_is_a_hit_for_a_read_and_a_write_otherwise(operation, telemetry):
    """For every operation of the closed set."""
    with cache_span("x", cache_policy="p", cache_scope="view", operation=operation):
        pass
    (attributes,) = told(telemetry, "cache.operation.count")
    expected = "hit" if operation is CacheOperation.READ else "write"
    assert (attributes["cache.operation"], attributes["cache.result"]) == (operation, expected)


def test_the_last_result_that_was_set_counts(telemetry):
    """One operation, one count."""
    with cache_span(SPAN_CACHE_READ, **READ) as (_, set_result):
        set_result("miss")
        set_result("noop")
    (point,) = telemetry.metric_points()["cache.operation.count"]
    assert (point.value, point.attributes["cache.result"]) == (1, "noop")


def test_an_exception_is_told_by_type_and_leaves_as_it_was(telemetry):
    """Also when a result had been set; it is no span event, and its text is redacted."""
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
    (counted,) = told(telemetry, "cache.operation.count")
    (timed,) = told(telemetry, "cache.operation.duration")
    assert counted["cache.result"] == "error"
    assert timed == counted | {"error.type": "permission_denied"}


@pytest.mark.parametrize(
    ("interrupt", "error_type"),
    [(KeyboardInterrupt, "interrupted"), (StopIteration, "_OTHER")],
)
def test_an_interrupt_is_told_and_goes_on(interrupt, error_type, telemetry):
    """Not every error is an ordinary one."""
    with pytest.raises(interrupt), cache_span(SPAN_CACHE_READ, **READ):
        raise interrupt
    (span,) = telemetry.spans()
    assert span.attributes["error.type"] == error_type


def test_an_error_that_cannot_say_what_it_is_leaves_as_it_was(telemetry):
    """Its own `__str__` raising does not take its place."""

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
    """The error lists what is allowed."""
    with pytest.raises(ConfigurationError, match=allowed), cache_span("x", **READ | wrong):
        pytest.fail("the block must not run")
    assert telemetry.spans() == []
    assert telemetry.metric_points() == {}


def test_a_result_outside_the_closed_set_is_refused(telemetry):
    """Where it is set."""
    with (
        pytest.raises(ConfigurationError, match="write, hit, miss, noop, error"),
        cache_span(SPAN_CACHE_READ, **READ) as (_, set_result),
    ):
        set_result("perhaps")
    (counted,) = told(telemetry, "cache.operation.count")
    assert counted["cache.result"] == "error"


def test_nothing_the_caller_adds_can_hide_or_leak(telemetry):
    """Our attributes win over the caller's; text is redacted, in lists and by name, too."""
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


def test_spans_nest_and_exemplars_point_to_their_own(telemetry):
    """The duration's exemplar leads to the span that it was measured in."""
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


def test_without_an_sdk_the_block_runs_all_the_same():
    """The API's own no-op span is yielded."""
    with cache_span(SPAN_CACHE_READ, **READ) as (span, set_result):
        set_result("miss")
    assert not span.is_recording()


class BrokenSampler(Sampler):
    """Raises when a span starts."""

    def should_sample(self, *args, **kwargs):
        """Raise."""
        raise RuntimeError

    def get_description(self):
        """Return its name."""
        return "broken"


class BrokenProcessor(SpanProcessor):
    """Raises when a span ends."""

    def on_end(self, span):
        """Raise."""
        raise RuntimeError


@pytest.mark.internal_errors
def test_a_broken_sdk_does_not_reach_the_caller(telemetry):
    """Neither at the start nor at the end; the caller's own exception stays the caller's."""
    ending = TracerProvider(shutdown_on_exit=False)
    ending.add_span_processor(BrokenProcessor())
    for provider in (TracerProvider(sampler=BrokenSampler(), shutdown_on_exit=False), ending):
        use_providers(provider, telemetry.meter_provider)
        with pytest.raises(KeyError), cache_span(SPAN_CACHE_READ, **READ):
            raise KeyError
        with cache_span(SPAN_CACHE_READ, **READ) as (_, set_result):
            set_result("miss")
    assert internal_errors.seen() == {("spans", "RuntimeError"): 4}
    assert [p.value for p in telemetry.metric_points()["cache.operation.count"]] == [2, 2]


@pytest.mark.internal_errors
def test_a_broken_meter_does_not_reach_the_caller(telemetry):
    """It is counted as an error of ours."""

    class Broken:
        def get_meter(self, *args, **kwargs):
            raise RuntimeError

    use_providers(telemetry.tracer_provider, Broken())
    with cache_span(SPAN_CACHE_READ, **READ):
        pass
    assert internal_errors.seen() == {("metrics", "RuntimeError"): 1}
    assert [span.name for span in telemetry.spans()] == ["cache.read"]
