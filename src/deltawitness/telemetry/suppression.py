"""Whether OpenTelemetry's context suppresses instrumentation, as around the requests of an exporter.

`opentelemetry.instrumentation.utils` has a function for it, but its import takes half as long as all
others of `instrument()`.
"""

from __future__ import annotations

from opentelemetry import context as otel_context

__all__ = ["is_instrumentation_suppressed"]

_PLAIN_KEY = "suppress_instrumentation"
_KEY = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", _PLAIN_KEY)
"""The keys that `suppress_instrumentation` of OpenTelemetry sets in the context."""


def is_instrumentation_suppressed() -> bool:
    """Return whether the calling code runs inside OpenTelemetry's `suppress_instrumentation`."""
    context = otel_context.get_current()
    return bool(context) and bool(context.get(_KEY) or context.get(_PLAIN_KEY))
