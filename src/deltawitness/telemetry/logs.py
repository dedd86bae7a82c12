"""One log record for each write, and one more for each failure, in the context of the write's span."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from opentelemetry import _logs
from opentelemetry._logs import SeverityNumber

from deltawitness.events import Failed, WriteEvent
from deltawitness.semconv import (
    DB_OPERATION_NAME,
    DB_SYSTEM_NAME,
    ERROR_TYPE,
    EVENT_EXCEPTION,
    EVENT_WRITE,
    EXCEPTION_MESSAGE,
    EXCEPTION_TYPE,
    RUN_ID,
    SCHEMA_URL,
    SCOPE_NAME,
    WITNESS_VERSION,
    WRITE_ID,
    system_of,
)
from deltawitness.telemetry.attributes import DetailAttributes, event_attributes
from deltawitness.telemetry.events_api import emit_event

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.context import Context

__all__ = ["LogSink"]


class LogSink:
    """Emits the events of each write as OpenTelemetry log records.

    Args:
        logger_provider: receives the log records; the global provider when None.

    Source: events are log records with an event name,
    https://opentelemetry.io/docs/specs/otel/logs/data-model/#events.
    """

    def __init__(self, logger_provider: LoggerProvider | None = None) -> None:
        self._logger = _logs.get_logger(
            SCOPE_NAME, WITNESS_VERSION, logger_provider, schema_url=SCHEMA_URL
        )

    def __call__(self, event: WriteEvent, context: Context | None = None) -> None:
        """Emit the records of one write.

        Args:
            event: the redacted event.
            context: the context of the write's span, whose ids the records get.
        """
        failed = event.outcome if isinstance(event.outcome, Failed) else None
        severity = SeverityNumber.INFO if failed is None else SeverityNumber.ERROR
        self._emit(EVENT_WRITE, severity, lambda: event_attributes(event), event, context)
        if failed is not None:
            self._emit(
                EVENT_EXCEPTION,
                SeverityNumber.WARN,
                lambda: _exception_attributes(event, failed),
                event,
                context,
            )

    def _emit(
        self,
        name: str,
        severity: SeverityNumber,
        attributes: Callable[[], DetailAttributes],
        event: WriteEvent,
        context: Context | None,
    ) -> None:
        emit_event(
            self._logger,
            name,
            severity,
            attributes,
            timestamp=event.started_at + event.duration_ns,
            context=context,
        )


def _exception_attributes(event: WriteEvent, failed: Failed) -> DetailAttributes:
    return DetailAttributes(
        {
            DB_SYSTEM_NAME: system_of(event.intent.operation),
            DB_OPERATION_NAME: event.intent.operation.value,
            ERROR_TYPE: failed.error_type.value,
            EXCEPTION_TYPE: failed.exception_type,
            EXCEPTION_MESSAGE: failed.message,
            RUN_ID: event.run.run_id,
            WRITE_ID: event.write_id,
        }
    )
