"""Whether OpenTelemetry's context suppresses instrumentation, as around the requests of an exporter.

`opentelemetry.instrumentation.utils` has a function for it, but its import takes half as long as all
others of `instrument()`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

__all__ = ["get_context", "is_instrumentation_suppressed"]


def _fastest_get_current() -> Callable[[], Context]:
    """Return `get_current` of OpenTelemetry without its wrappers: it is called several times per write."""
    runtime = getattr(otel_context, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    if type(runtime) is ContextVarsRuntimeContext and isinstance(variable, ContextVar):
        return variable.get
    return getattr(runtime, "get_current", otel_context.get_current)


get_context: Callable[[], Context] = _fastest_get_current()
"""Return the current context of OpenTelemetry."""

_PLAIN_KEY = "suppress_instrumentation"
_KEY = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", _PLAIN_KEY)
"""The keys that `suppress_instrumentation` of OpenTelemetry sets in the context."""


def is_instrumentation_suppressed() -> bool:
    """Return whether the calling code runs inside OpenTelemetry's `suppress_instrumentation`."""
    context = get_context()
    return bool(context) and bool(context.get(_KEY) or context.get(_PLAIN_KEY))
