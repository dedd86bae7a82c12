"""Whether OpenTelemetry's context suppresses instrumentation, as around the requests of an exporter.

`opentelemetry.instrumentation.utils` has a function for it, but its import takes half as long as all
others of `instrument()`.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry import context as otel_context
from opentelemetry.context import Context

__all__ = ["get_context", "is_instrumentation_suppressed"]

get_context: Callable[[], Context] = getattr(
    getattr(otel_context, "_RUNTIME_CONTEXT", None), "get_current", otel_context.get_current
)
"""`get_current` of OpenTelemetry without its wrapper: it is called several times per write."""

_PLAIN_KEY = "suppress_instrumentation"
_KEY = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", _PLAIN_KEY)
"""The keys that `suppress_instrumentation` of OpenTelemetry sets in the context."""


def is_instrumentation_suppressed() -> bool:
    """Return whether the calling code runs inside OpenTelemetry's `suppress_instrumentation`."""
    context = get_context()
    return bool(context) and bool(context.get(_KEY) or context.get(_PLAIN_KEY))
