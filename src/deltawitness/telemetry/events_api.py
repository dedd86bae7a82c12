"""Emit events (log records with a name) with every supported version of the OpenTelemetry API."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from opentelemetry._logs import Logger, SeverityNumber

if TYPE_CHECKING:
    from opentelemetry.context import Context

__all__ = ["emit_event"]


def emit_event(  # noqa: PLR0913 - the fields of a record
    logger: Logger,
    name: str,
    severity: SeverityNumber,
    attributes: Callable[[], Mapping[str, Any]],
    *,
    timestamp: int,
    context: Context | None = None,
) -> None:
    """Emit an event, unless the logger drops it or the API cannot emit events.

    Args:
        logger: the logger.
        name: name of the event.
        severity: its severity.
        attributes: returns its attributes; called only for an event that is emitted.
        timestamp: nanoseconds since the Unix epoch.
        context: the context whose trace the record belongs to; the current one when None.
    """
    if not _emits_events():
        return
    is_enabled = getattr(logger, "enabled", None)  # opentelemetry-api 1.45 and later
    if is_enabled is not None and not is_enabled(
        context=context, severity_number=severity, event_name=name
    ):
        return
    logger.emit(
        timestamp=timestamp,
        context=context,
        severity_number=severity,
        severity_text=severity.name,
        attributes=attributes(),
        event_name=name,
    )


@cache
def _emits_events() -> bool:
    """Return whether the API's loggers take the fields of an event: opentelemetry-api 1.38 and later.

    Before, a record has to be an object of the SDK, whose class and fields differ between versions.
    """
    return "event_name" in inspect.signature(Logger.emit).parameters
