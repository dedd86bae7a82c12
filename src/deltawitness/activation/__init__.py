"""Activate observation at process start, when `deltawitness run` or a parent process requested it.

The `site` folder next to this file has a `sitecustomize` module, which the interpreter imports at start
when the folder is on `PYTHONPATH`. It runs in every Python process of a program, and most of them write
no table. So this module does only what is needed at once; the rest waits for the import of `deltalake`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from deltawitness.exceptions import ConfigurationError
from deltawitness.extras import is_installed
from deltawitness.import_hooks import when_imported
from deltawitness.run import current_cache_context, current_run
from deltawitness.semconv import ACTIVATE_TOP, Env, OtelEnv
from deltawitness.settings import Settings

__all__ = [
    "LOADED",
    "NOT_EXPORTED",
    "activate",
    "asks_for_export",
    "is_disabled",
    "is_sdk_disabled",
    "names_exporter",
    "report_not_exported",
]

_EXPORT_VARIABLES = (
    OtelEnv.ENDPOINT,
    OtelEnv.TRACES_ENDPOINT,
    OtelEnv.METRICS_ENDPOINT,
    OtelEnv.LOGS_ENDPOINT,
    OtelEnv.TRACES_EXPORTER,
    OtelEnv.METRICS_EXPORTER,
    OtelEnv.LOGS_EXPORTER,
)


def activate() -> None:
    """Observe this process if `DELTAWITNESS_ACTIVATE` is set.

    The process that `deltawitness run` starts is observed from its start, because its run is the parent
    of its children's runs; a child is observed when it imports `deltalake`. An invalid setting ends the
    process with exit code 2 before the program starts, with one line that names the valid values. Any
    other error is logged in one line, and the program runs unobserved.
    """
    if os.environ.get(Env.PLAN_FOLDER) or os.environ.get(Env.PLAN_VERSIONS):
        _redirect()
    role = os.environ.get(Env.ACTIVATE)
    if role:
        _report_loaded()
    if not role or is_disabled("deltalake"):
        return
    try:
        settings = Settings.from_env()
        current_run()
        current_cache_context()
        if settings.expectations is not None:
            _check_expectations(settings.expectations)
    except ConfigurationError as error:
        sys.stderr.write(f"deltawitness: {error}\n")
        sys.stderr.flush()
        os._exit(2)
    if role == ACTIVATE_TOP:
        if names_exporter(os.environ) and not is_installed("opentelemetry.sdk"):
            report_not_exported(_NO_SDK)
        _observe(settings, is_top=True)
    else:
        when_imported("deltalake", lambda _: _observe(settings, is_top=False))


def _redirect() -> None:
    """Redirect the tables of this process as a plan requires; if that fails, end it: it would write tables."""
    from deltawitness.clones.redirect import install_redirection  # noqa: PLC0415 - rarely used

    try:
        install_redirection(os.environ)
    except Exception as error:  # noqa: BLE001 - whatever it is, the program must not start
        sys.stderr.write(f"deltawitness plan: {error!r}\n")
        sys.stderr.flush()
        os._exit(2)


def _check_expectations(path: str) -> None:
    """Check a file of expectations: without it, the program would write unchecked.

    Raises:
        ConfigurationError: the file cannot be read, or an expectation in it is invalid.
    """
    from deltawitness.expectations.file import load_expectations  # noqa: PLC0415 - seldom needed

    load_expectations(path)


LOADED = ".loaded"
"""Ending of the file beside the events file that says that a process has loaded the library."""


def _report_loaded() -> None:
    """Let `deltawitness run` see that a Python process of the program has loaded the library."""
    events_file = os.environ.get(Env.EVENTS_FILE)
    if events_file:
        with suppress(OSError):
            os.close(os.open(events_file + LOADED, os.O_WRONLY | os.O_CREAT, 0o600))


NOT_EXPORTED = ".not-exported"
"""Suffix of the file, next to the events file, with the reason why the program exports no telemetry."""

_NO_SDK = "opentelemetry-sdk is not installed in the program's environment: pip install 'deltawitness[otel]'"


def report_not_exported(reason: str) -> None:
    """Write why this process exports no telemetry to a file that the summary of `deltawitness run` reads."""
    events_file = os.environ.get(Env.EVENTS_FILE)
    if events_file:
        with suppress(OSError):
            Path(events_file + NOT_EXPORTED).write_text(reason, encoding="utf-8")


def is_disabled(instrumentation: str) -> bool:
    """Return whether `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` disables an instrumentation, or all (`*`)."""
    words = os.environ.get(OtelEnv.DISABLED_INSTRUMENTATIONS, "").split(",")
    return not {instrumentation, "*"}.isdisjoint(word.strip() for word in words)


def _observe(settings: Settings, *, is_top: bool) -> None:
    from deltawitness.activation.process import observe_process  # noqa: PLC0415 - heavy
    from deltawitness.internal_errors import report  # noqa: PLC0415 - as above

    try:
        observe_process(settings, is_top=is_top, is_exporting=asks_for_export(os.environ))
    except Exception as error:  # noqa: BLE001 - an internal error must not stop the program
        report("activation", error)


def asks_for_export(environ: Mapping[str, str]) -> bool:
    """Return whether the OpenTelemetry variables name an exporter, and the SDK is installed and enabled."""
    return (
        names_exporter(environ)
        and not is_sdk_disabled(environ)
        and is_installed("opentelemetry.sdk")
    )


def names_exporter(environ: Mapping[str, str]) -> bool:
    """Return whether an OpenTelemetry variable names an exporter or an endpoint."""
    return any(environ.get(name) for name in _EXPORT_VARIABLES)


def is_sdk_disabled(environ: Mapping[str, str]) -> bool:
    """Return whether `OTEL_SDK_DISABLED` turns the SDK off."""
    return environ.get(OtelEnv.SDK_DISABLED, "").lower() == "true"
