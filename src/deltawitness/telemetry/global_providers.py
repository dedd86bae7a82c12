"""Whether OpenTelemetry's global providers are set, without the cost of their getters.

A getter of OpenTelemetry looks up an environment variable at each call until a provider is set. That takes
microseconds, on the path of every write of a program without an SDK.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry._logs import _internal as logs_internal
from opentelemetry.metrics import _internal as metrics_internal

__all__ = ["global_providers", "is_tracer_provider_unset"]


def is_tracer_provider_unset() -> bool:
    """Return whether the tracers of a process do nothing because no global provider is set."""
    return getattr(trace, "_TRACER_PROVIDER", trace) is None


def global_providers() -> tuple[Any, Any, Any] | None:
    """Return the global providers of traces, metrics and logs; None for each that is not set.

    Returns:
        The providers; None for a release of OpenTelemetry in which this cannot be seen.
    """
    try:
        return (
            trace._TRACER_PROVIDER,  # noqa: SLF001 - see above
            metrics_internal._METER_PROVIDER,  # noqa: SLF001 - see above
            logs_internal._LOGGER_PROVIDER,  # noqa: SLF001 - see above
        )
    except AttributeError:
        return None
