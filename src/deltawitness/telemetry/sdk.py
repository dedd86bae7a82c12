"""Set up the OpenTelemetry SDK in a process, from its environment variables."""

from __future__ import annotations

from deltawitness.telemetry.providers import without_tracebacks

__all__ = ["configure_sdk"]


def configure_sdk() -> None:
    """Set up the SDK as `opentelemetry-instrument` does, without other instrumentations.

    Raises:
        Exception: a distribution or an exporter rejects a setting.
    """
    from opentelemetry.instrumentation.auto_instrumentation._load import (  # noqa: PLC0415 - optional
        _load_configurators,
        _load_distro,
    )

    with without_tracebacks():
        _load_distro().configure()
        _load_configurators()  # type: ignore[no-untyped-call]  # untyped there
