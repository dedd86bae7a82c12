"""Record in telemetry and in the ledger that a session has registered a Delta table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.locations import table_id
from deltawitness.observe.observer import current_observer
from deltawitness.redaction import table_name_for
from deltawitness.run import current_run
from deltawitness.semconv import (
    DB_COLLECTION_NAME,
    DELTA_TABLE_ID,
    DELTA_TABLE_VERSION,
    EVENT_TABLE_REGISTERED,
    OPERATION_REGISTER,
    POLICY_UNMANAGED,
    CacheOperation,
    CacheResult,
    CacheScope,
)
from deltawitness.session.core.snapshot import Registered

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from deltawitness.observe import Observer

__all__ = ["record_registration"]


def record_registration(entry: Registered) -> None:
    """Add an event to the current span and, if the settings ask for it, a row to the ledger.

    Does nothing while observation is off. Never raises.

    Args:
        entry: the table, as the session serves it.
    """
    try:
        observer = current_observer()
        if observer is not None and observer.is_on():
            _record(observer, entry)
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("session", error)


def _record(observer: Observer, entry: Registered) -> None:
    settings = observer.settings
    name = table_name_for(entry.uri, None, settings.table_names)
    span = trace.get_current_span()
    if span.is_recording():
        attributes: dict[str, AttributeValue] = {
            DELTA_TABLE_ID: table_id(entry.uri, key=settings.table_id_key),
            DELTA_TABLE_VERSION: entry.version,
        }
        if name is not None:
            attributes[DB_COLLECTION_NAME] = name
        span.add_event(EVENT_TABLE_REGISTERED, attributes)
    if settings.capture_registrations and observer.recorder is not None:
        observer.recorder.record_operation(current_run(), _row(entry, name, span))


def _row(entry: Registered, name: str | None, span: trace.Span) -> dict[str, Any]:
    uri = ledger_uri(entry.uri)
    context = span.get_span_context()
    return {
        "event_time": now_ns() // 1000,
        "duration_ms": 0.0,
        "operation": OPERATION_REGISTER,
        "cache_operation": CacheOperation.REGISTER.value,
        "scope": CacheScope.DATASET.value,
        "policy": POLICY_UNMANAGED,
        "result": CacheResult.NOOP.value,
        "table_name": name,
        "table_uri": uri,
        "table_id": table_id(uri),
        "version": entry.version,
        "trace_id": trace.format_trace_id(context.trace_id) if context.is_valid else None,
        "span_id": trace.format_span_id(context.span_id) if context.is_valid else None,
    }
