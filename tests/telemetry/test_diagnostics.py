"""Diagnostics go to the configured sink, redacted and truncated, and never raise."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry._logs import NoOpLoggerProvider
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

from deltawitness import (
    InMemoryDiagnosticsSink,
    OtelDiagnosticsSink,
    Settings,
    internal_errors,
    run,
)
from deltawitness.settings import DiagnosticsChoice
from deltawitness.telemetry.diagnostics import diagnostics_sink, memory_diagnostics
from deltawitness.testing import InMemoryTelemetry


@pytest.fixture
def telemetry():
    """Providers in memory."""
    return InMemoryTelemetry.create()


def test_an_artifact_is_a_log_record_with_run_and_trace(telemetry):
    """The record has the structured payload, event kind, run id and current span."""
    sink = OtelDiagnosticsSink(telemetry.logger_provider)
    tracer = telemetry.tracer_provider.get_tracer("app")
    with tracer.start_as_current_span("job") as span, run("nightly") as context:
        sink.record_artifact("plan", {"nodes": 3, "files": ["/home/ann/x"], "password": "x"})
    (record,) = [found.log_record for found in telemetry.log_records()]
    assert record.event_name == "deltawitness.artifact"
    assert record.span_id == span.get_span_context().span_id
    assert dict(record.attributes) == {
        "deltawitness.run.id": context.run_id,
        "deltawitness.event.kind": "plan",
        "deltawitness.payload": {"nodes": 3, "files": ("[path]",), "password": "[secret]"},
    }


def test_a_large_payload_is_truncated_and_flagged(telemetry):
    """The limit is in bytes."""
    sink = OtelDiagnosticsSink(telemetry.logger_provider, max_bytes=40)
    sink.record_event("big", {f"k{i}": "value" for i in range(20)})
    (record,) = [found.log_record for found in telemetry.log_records()]
    assert record.event_name == "deltawitness.diagnostic"
    assert len(record.attributes["deltawitness.payload"]) == 40
    assert record.attributes["deltawitness.payload.truncated"] is True


def test_memory_stores_diagnostics_until_cleared():
    """The in-memory sink returns artifacts and events unchanged."""
    sink = InMemoryDiagnosticsSink()
    sink.record_artifact("plan", {"nodes": 3})
    sink.record_event("done", {"rows": 1})
    assert (sink.artifacts, sink.events) == ([("plan", {"nodes": 3})], [("done", {"rows": 1})])
    sink.clear()
    assert (sink.artifacts, sink.events) == ([], [])


@pytest.mark.parametrize(
    ("choice", "in_memory", "in_logs"),
    [("otel", 0, 2), ("memory", 1, 0), ("both", 1, 2), ("none", 0, 0)],
)
def test_the_setting_chooses_the_sink(choice, in_memory, in_logs, telemetry):
    """`DELTAWITNESS_DIAGNOSTICS_SINK` selects the class of the sink."""
    memory_diagnostics().clear()
    settings = Settings(diagnostics_sink=DiagnosticsChoice(choice))
    sink = diagnostics_sink(settings, telemetry.logger_provider)
    sink.record_event("done", {})
    sink.record_artifact("plan", {})
    assert len(memory_diagnostics().events) == in_memory
    assert len(memory_diagnostics().artifacts) == in_memory
    assert len(telemetry.log_records()) == in_logs
    memory_diagnostics().clear()


@pytest.mark.internal_errors
def test_a_sink_that_cannot_record_does_not_raise(caplog):
    """The error is counted, and logged once."""

    class Broken:
        def get_logger(self, *args, **kwargs):
            return self

        def enabled(self, **kwargs):
            return True

        def emit(self, **kwargs):
            raise RuntimeError

    sink = OtelDiagnosticsSink(Broken())
    sink.record_event("done", {})
    sink.record_event("done", {})
    assert internal_errors.error_counts() == {("diagnostics", "RuntimeError"): 2}
    assert len(caplog.records) == 1


def test_no_member_below_the_limit_goes_missing_unmarked(telemetry):
    """A payload of many small members is complete, or flagged as truncated."""
    sink = OtelDiagnosticsSink(telemetry.logger_provider)
    payload = {"nodes": list(range(500))}
    sink.record_artifact("plan", payload)
    (record,) = [found.log_record for found in telemetry.log_records()]
    assert record.attributes["deltawitness.payload"] == {"nodes": tuple(range(500))}
    assert "deltawitness.payload.truncated" not in record.attributes


def test_the_limit_counts_bytes_and_never_splits_a_character(telemetry):
    """Text of three bytes a character is cut between characters, at or below the limit."""
    sink = OtelDiagnosticsSink(telemetry.logger_provider, max_bytes=20)
    sink.record_event("big", {"text": "\u20ac" * 20})
    (record,) = [found.log_record for found in telemetry.log_records()]
    text = record.attributes["deltawitness.payload"]
    assert text == '{"text":"' + "\u20ac" * 3
    assert len(text.encode()) == 18


def test_every_payload_can_be_exported(telemetry):
    """Integers beyond 64 bits and lone surrogates would make the exporter drop a batch."""
    sink = OtelDiagnosticsSink(telemetry.logger_provider)
    sink.record_event("odd", {"huge": 2**63, "large": 2**63 - 1, "text": "a\ud800b"})
    records = telemetry.log_records()
    encoded = encode_logs(records)
    (record,) = [found.log_record for found in records]
    assert record.attributes["deltawitness.payload"] == {
        "huge": str(2**63),
        "large": 2**63 - 1,
        "text": "a?b",
    }
    assert len(encoded.resource_logs[0].scope_logs[0].log_records) == 1


def test_without_an_sdk_no_payload_is_built():
    """The payload is not read when the logger is disabled."""

    class Untouchable(dict):
        def items(self):
            raise AssertionError

    OtelDiagnosticsSink(NoOpLoggerProvider()).record_event("done", Untouchable(rows=1))


@pytest.mark.internal_errors
def test_memory_does_not_raise_on_what_is_no_mapping():
    """The error is counted, and nothing is stored."""
    sink = InMemoryDiagnosticsSink()
    sink.record_event("odd", 3)
    assert sink.events == []
    assert internal_errors.error_counts() == {("diagnostics", "TypeError"): 1}


def test_memory_takes_from_many_threads():
    """No item of concurrent threads is lost."""
    sink = InMemoryDiagnosticsSink()
    with ThreadPoolExecutor(8) as pool:
        for number in range(400):
            pool.submit(sink.record_event, "done", {"number": number})
    assert sorted(properties["number"] for _, properties in sink.events) == list(range(400))
