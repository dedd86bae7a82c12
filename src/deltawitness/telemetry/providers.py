"""OpenTelemetry's global providers, or no-op providers where its settings are invalid.

A provider that an environment variable names is loaded on the first call of its getter, which raises if
it cannot be loaded. Commits and the ledger need no provider.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry._logs import NoOpLoggerProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from deltawitness.semconv import ACTIVATE_CHILD, OTEL_PREFIX, Env, OtelEnv

__all__ = ["loadable_providers", "print_setup_error", "setup_reason", "without_tracebacks"]

_LOADING: tuple[tuple[Callable[[], Any], Callable[[], Any], str], ...] = (
    (trace.get_tracer_provider, NoOpTracerProvider, OtelEnv.TRACER_PROVIDER),
    (metrics.get_meter_provider, NoOpMeterProvider, OtelEnv.METER_PROVIDER),
    (_logs.get_logger_provider, NoOpLoggerProvider, OtelEnv.LOGGER_PROVIDER),
)

_LOGGERS = (
    "opentelemetry.instrumentation.auto_instrumentation._load",
    "opentelemetry.sdk._configuration",
    "opentelemetry.util._providers",
)
"""Loggers of OpenTelemetry that log a traceback of an exception that is raised to the caller anyway."""


def loadable_providers(*given: Any) -> tuple[Any, Any, Any]:
    """Return the three given providers, with a no-op provider for each None that cannot be loaded.

    Args:
        *given: a tracer, a meter and a logger provider; None for the global one.
    """
    found: list[Any] = []
    for provider, (load, make_noop, variable) in zip(given, _LOADING, strict=True):
        chosen = provider
        if provider is None:
            try:
                with without_tracebacks():
                    load()
            except Exception as error:  # noqa: BLE001 - a provider's module may raise anything
                print_setup_error(error, variable)
                chosen = make_noop()
        found.append(chosen)
    return found[0], found[1], found[2]


def print_setup_error(error: BaseException, variable: str | None = None) -> None:
    """Print one line to stderr that names the invalid setting of OpenTelemetry and its effect.

    A child of a program under `deltawitness run` prints nothing, as it has the settings of the program.

    Args:
        error: what OpenTelemetry raised.
        variable: the setting; when None, the settings whose value is in the text of the error.
    """
    if os.environ.get(Env.ACTIVATE) == ACTIVATE_CHILD:
        return
    sys.stderr.write(
        f"deltawitness: OpenTelemetry cannot be set up: {setup_reason(error, variable)};"
        " no telemetry is exported,"
        " commits have their metadata and the ledger is written\n"
    )
    sys.stderr.flush()


def setup_reason(error: BaseException, variable: str | None = None) -> str:
    """Return one line with the invalid setting of OpenTelemetry and, if an extra is missing, its name.

    Args:
        error: what OpenTelemetry raised.
        variable: the setting; when None, the settings whose value is in the text of the error.
    """
    reason = str(error).strip() or f"no entry point has the name {os.environ.get(variable or '')!r}"
    reason = reason.splitlines()[0]
    names = [variable] if variable else _named_in(reason)
    place = f"{', '.join(names)}: " if names else ""
    return f"{place}{reason}{_EXTRA_HINT if _is_extra_missing(error) else ''}"


def _is_extra_missing(error: BaseException) -> bool:
    """Return whether OpenTelemetry raised because a package of the extra `otel` is not installed."""
    if isinstance(error, ImportError):
        return (error.name or "").startswith("opentelemetry.")
    return _NO_OTLP_EXPORTER.search(str(error)) is not None


_NO_OTLP_EXPORTER = re.compile(r"'otlp(?:_proto_\w+)?' not found")
_EXTRA_HINT = ": pip install 'deltawitness[otel]'"


def _named_in(reason: str) -> list[str]:
    """Return the variables of OpenTelemetry whose value is in a text."""
    return sorted(
        name
        for name, value in os.environ.items()
        if name.startswith(OTEL_PREFIX)
        and any(part.strip() and part.strip() in reason for part in value.split(","))
    )


@contextmanager
def without_tracebacks() -> Iterator[None]:
    """Suppress, in the block, log records of OpenTelemetry about exceptions that it raises."""

    def refuse(_: logging.LogRecord) -> bool:
        return False

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(refuse)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(refuse)
