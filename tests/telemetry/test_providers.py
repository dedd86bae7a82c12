"""The reason why OpenTelemetry cannot be set up, in one line."""

from __future__ import annotations

import pytest

from deltawitness.telemetry.providers import setup_reason

NO_EXPORTER = (
    "Requested component 'otlp_proto_grpc' not found in entry point 'opentelemetry_traces_exporter'"
)
NO_TYPO = "Requested component 'nosuch' not found in entry point 'opentelemetry_traces_exporter'"
HINT = ": pip install 'deltawitness[otel]'"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(NO_EXPORTER), NO_EXPORTER + HINT),
        (
            ModuleNotFoundError("no exporter", name="opentelemetry.exporter.otlp"),
            "no exporter" + HINT,
        ),
        (RuntimeError(NO_TYPO), NO_TYPO),
        (ModuleNotFoundError("no module", name="mine"), "no module"),
        (ValueError("first\nsecond"), "first"),
    ],
    ids=str,
)
def test_a_missing_extra_is_named(error, expected, monkeypatch):
    """Only a missing package of OpenTelemetry is a missing extra."""
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    assert setup_reason(error) == expected
