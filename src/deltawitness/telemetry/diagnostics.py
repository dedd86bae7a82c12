"""Diagnostics: artifacts and events that a program records about itself, correlated to its run."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry import _logs
from opentelemetry._logs import SeverityNumber

from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.redaction import redact_label, redact_value
from deltawitness.run import current_run
from deltawitness.semconv import (
    EVENT_ARTIFACT,
    EVENT_DIAGNOSTIC,
    EVENT_KIND,
    PAYLOAD,
    PAYLOAD_TRUNCATED,
    RUN_ID,
    SCHEMA_URL,
    SCOPE_NAME,
    WITNESS_VERSION,
)
from deltawitness.settings import DiagnosticsChoice, Settings
from deltawitness.telemetry.events_api import emit_event

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

__all__ = [
    "DiagnosticsSink",
    "InMemoryDiagnosticsSink",
    "OtelDiagnosticsSink",
    "diagnostics_sink",
]

PAYLOAD_LIMIT = 32_768
"""Maximum bytes of a payload, as JSON, in one log record."""

_INT64 = 2**63


class DiagnosticsSink(Protocol):
    """Receives artifacts (a plan, a set of operator metrics) and events; never raises."""

    def record_artifact(self, name: str, payload: Mapping[str, object]) -> None:
        """Record a structured artifact under a name."""

    def record_event(self, name: str, properties: Mapping[str, object]) -> None:
        """Record an event with its properties."""


class OtelDiagnosticsSink:
    """Emits diagnostics as OpenTelemetry log records with the current trace, span and run.

    The payload is one structured attribute (a map), redacted. A payload over the limit is truncated
    JSON text, with an attribute that says so. Without an SDK, no payload is built.

    Args:
        logger_provider: receives the log records; the global provider when None.
        max_bytes: maximum bytes of a payload, as JSON, in one record.
    """

    def __init__(
        self, logger_provider: LoggerProvider | None = None, *, max_bytes: int = PAYLOAD_LIMIT
    ) -> None:
        self._logger = _logs.get_logger(
            SCOPE_NAME, WITNESS_VERSION, logger_provider, schema_url=SCHEMA_URL
        )
        self._max_bytes = max_bytes

    def record_artifact(self, name: str, payload: Mapping[str, object]) -> None:
        """Emit an artifact."""
        self._record(EVENT_ARTIFACT, name, payload)

    def record_event(self, name: str, properties: Mapping[str, object]) -> None:
        """Emit an event."""
        self._record(EVENT_DIAGNOSTIC, name, properties)

    def _record(self, event_name: str, name: str, payload: Mapping[str, object]) -> None:
        try:
            emit_event(
                self._logger,
                event_name,
                SeverityNumber.INFO,
                lambda: {
                    RUN_ID: current_run().run_id,
                    EVENT_KIND: redact_label(name),
                    **self._payload(payload),
                },
                timestamp=now_ns(),
            )
        except Exception as error:  # noqa: BLE001 - telemetry never changes the program
            report("diagnostics", error)

    def _payload(self, payload: Mapping[str, object]) -> dict[str, Any]:
        # Every member takes at least one byte: members beyond this width exceed the limit anyway.
        redacted = redact_value(payload, width=self._max_bytes)
        text = json.dumps(redacted, separators=(",", ":"), ensure_ascii=False)
        encoded = text.encode(errors="replace")
        if len(encoded) <= self._max_bytes:
            return {PAYLOAD: json.loads(encoded, parse_int=_exportable_int)}
        truncated = encoded[: self._max_bytes].decode(errors="ignore")
        return {PAYLOAD: truncated, PAYLOAD_TRUNCATED: True}


def _exportable_int(digits: str) -> int | str:
    # The OTLP exporter drops every record of a batch for one integer beyond 64 bits.
    number = int(digits)
    return number if -_INT64 <= number < _INT64 else digits


class InMemoryDiagnosticsSink:
    """Stores diagnostics in memory, without redaction, for tests and notebooks.

    Args:
        capacity: maximum number of artifacts, and of events; the oldest are dropped first. No limit
            when None.

    >>> sink = InMemoryDiagnosticsSink()
    >>> sink.record_event("planned", {"nodes": 3})
    >>> sink.events
    [('planned', {'nodes': 3})]
    """

    def __init__(self, capacity: int | None = None) -> None:
        self._lock = threading.Lock()
        self._artifacts: deque[tuple[str, dict[str, object]]] = deque(maxlen=capacity)
        self._events: deque[tuple[str, dict[str, object]]] = deque(maxlen=capacity)

    def record_artifact(self, name: str, payload: Mapping[str, object]) -> None:
        """Store an artifact."""
        self._append(self._artifacts, name, payload)

    def record_event(self, name: str, properties: Mapping[str, object]) -> None:
        """Store an event."""
        self._append(self._events, name, properties)

    def _append(
        self, stored: deque[tuple[str, dict[str, object]]], name: str, payload: Mapping[str, object]
    ) -> None:
        try:
            entry = name, dict(payload)
        except Exception as error:  # noqa: BLE001 - telemetry never changes the program
            report("diagnostics", error)
            return
        with self._lock:
            stored.append(entry)

    @property
    def artifacts(self) -> list[tuple[str, dict[str, object]]]:
        """The stored artifacts, oldest first."""
        with self._lock:
            return list(self._artifacts)

    @property
    def events(self) -> list[tuple[str, dict[str, object]]]:
        """The stored events, oldest first."""
        with self._lock:
            return list(self._events)

    def clear(self) -> None:
        """Remove all artifacts and events."""
        with self._lock:
            self._artifacts.clear()
            self._events.clear()


class _Fanout:
    """Passes every artifact and event to each of several sinks; with none, does nothing."""

    def __init__(self, sinks: Sequence[DiagnosticsSink]) -> None:
        self._sinks = tuple(sinks)

    def record_artifact(self, name: str, payload: Mapping[str, object]) -> None:
        for sink in self._sinks:
            sink.record_artifact(name, payload)

    def record_event(self, name: str, properties: Mapping[str, object]) -> None:
        for sink in self._sinks:
            sink.record_event(name, properties)


MEMORY_CAPACITY = 1_000
"""Capacity of the process's in-memory sink."""

_memory = InMemoryDiagnosticsSink(MEMORY_CAPACITY)


def memory_diagnostics() -> InMemoryDiagnosticsSink:
    """Return the process's in-memory sink, which the settings `memory` and `both` use."""
    return _memory


def diagnostics_sink(
    settings: Settings, logger_provider: LoggerProvider | None = None
) -> DiagnosticsSink:
    """Return the sink of the settings (`DELTAWITNESS_DIAGNOSTICS_SINK`).

    Args:
        settings: `diagnostics_sink` is otel, memory, both or none.
        logger_provider: for the OpenTelemetry sink; the global one when None.
    """
    match settings.diagnostics_sink:
        case DiagnosticsChoice.OTEL:
            return OtelDiagnosticsSink(logger_provider)
        case DiagnosticsChoice.MEMORY:
            return _memory
        case DiagnosticsChoice.BOTH:
            return _Fanout([OtelDiagnosticsSink(logger_provider), _memory])
        case DiagnosticsChoice.NONE:
            return _Fanout([])
