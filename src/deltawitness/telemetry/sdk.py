"""Sets the OpenTelemetry SDK up in a process, as its environment says."""

from __future__ import annotations

from deltawitness.telemetry.providers import without_tracebacks

__all__ = ["configure_sdk"]


def configure_sdk() -> None:
    """Set the SDK up as `opentelemetry-instrument` does, without other instrumentations.

    Raises:
        Exception: whatever a distribution or an exporter raises when it does not accept a setting.
    """
    from opentelemetry.instrumentation.auto_instrumentation._load import (  # noqa: PLC0415 - optional
        _load_configurators,
        _load_distro,
    )

    with without_tracebacks():
        _load_distro().configure()
        _load_configurators()  # type: ignore[no-untyped-call]  # untyped there
