"""Activates a process at its start, when `deltawitness run` or a parent process asked for it.

The `site` folder beside this file holds a `sitecustomize` module, which the interpreter imports
first when the folder is on `PYTHONPATH`.
"""

from __future__ import annotations

import atexit
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.carriers import child_environment
from deltawitness.config import Settings
from deltawitness.events_file import EventsFile
from deltawitness.exceptions import ConfigurationError
from deltawitness.internal import report
from deltawitness.run import adopt_run, current_run, run
from deltawitness.semconv import Env

if TYPE_CHECKING:
    from deltawitness.events import WriteSink

__all__ = ["SITE_DIRECTORY", "activate"]

SITE_DIRECTORY = str(Path(__file__).parent / "site")
"""What must be first on a child's `PYTHONPATH` for it to be activated."""

TOP = "top"
"""Value of the activation variable for the process that the command itself starts."""

CHILD = "child"
"""Its value for the processes which that one starts."""

_ASKS_FOR_EXPORT = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    "OTEL_TRACES_EXPORTER",
    "OTEL_METRICS_EXPORTER",
    "OTEL_LOGS_EXPORTER",
)


def activate() -> None:
    """Observe this process, if its environment asks for it.

    An invalid setting ends the process before the program starts, with one line that says what is
    allowed; any other trouble of ours is told in one line, and the program runs unobserved.
    """
    role = os.environ.get(Env.ACTIVATE)
    if not role:
        return
    try:
        _activate(role)
    except ConfigurationError as error:
        sys.stderr.write(f"deltawitness: {error}\n")
        sys.stderr.flush()
        os._exit(2)
    except Exception as error:  # noqa: BLE001 - the program runs, whatever happens to us
        report("activation", error)


def _activate(role: str) -> None:
    if "deltalake" in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(","):
        return
    settings = Settings.from_env()
    if asks_for_export(os.environ):
        _configure_sdk()
    from deltawitness.instrumentation import DeltaLakeInstrumentor  # noqa: PLC0415 - heavy

    instrumentor = DeltaLakeInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        return
    events_file = os.environ.get(Env.EVENTS_FILE)
    sinks: list[WriteSink] = [EventsFile(events_file)] if events_file else []
    instrumentor.instrument(settings=settings, sinks=sinks)
    if role == TOP:
        _open_run()


def _open_run() -> None:
    """Put the whole process into the run, whose span its writes and its children's share."""
    process = current_run()
    scope = run(process.job, run_id=process.run_id)
    context = scope.__enter__()
    adopt_run(context)
    os.environ.update(child_environment(), **{Env.ACTIVATE.value: CHILD})
    atexit.register(scope.__exit__, None, None, None)


def asks_for_export(environ: os._Environ[str] | dict[str, str]) -> bool:
    """Tell whether the OpenTelemetry variables name an exporter, and the SDK is there and on."""
    return (
        any(environ.get(name) for name in _ASKS_FOR_EXPORT)
        and environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and find_spec("opentelemetry.sdk") is not None
    )


def _configure_sdk() -> None:
    """Set the SDK up as `opentelemetry-instrument` does, without other instrumentations."""
    from opentelemetry.instrumentation.auto_instrumentation._load import (  # noqa: PLC0415 - optional
        _load_configurators,
        _load_distro,
    )

    _load_distro().configure()
    _load_configurators()  # type: ignore[no-untyped-call]  # untyped there
