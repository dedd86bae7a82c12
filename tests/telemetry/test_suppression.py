"""Suppressed instrumentation is seen as OpenTelemetry's helper function sees it."""

from __future__ import annotations

import pytest
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.utils import (
    is_instrumentation_enabled,
    suppress_http_instrumentation,
    suppress_instrumentation,
)

from deltawitness.telemetry.suppression import is_instrumentation_suppressed


@pytest.mark.parametrize(
    ("suppress", "expected"),
    [(suppress_instrumentation, True), (suppress_http_instrumentation, False)],
)
def test_a_block_suppresses_what_opentelemetry_says(suppress, expected):
    """Only the block that suppresses all instrumentation suppresses ours, and only inside of it."""
    assert not is_instrumentation_suppressed()
    with suppress():
        assert is_instrumentation_suppressed() is not is_instrumentation_enabled()
        assert is_instrumentation_suppressed() is expected
    assert not is_instrumentation_suppressed()


@pytest.mark.parametrize(
    "key",
    ["suppress_instrumentation", otel_context._SUPPRESS_INSTRUMENTATION_KEY],
    ids=["plain", "generated"],
)
def test_each_key_of_the_context_suppresses(key):
    """The SDK sets the generated key around exports; older packages set the plain one."""
    token = otel_context.attach(otel_context.set_value(key, "yes"))
    try:
        assert is_instrumentation_suppressed()
        assert not is_instrumentation_enabled()
    finally:
        otel_context.detach(token)
