"""What the workers of a cluster need to observe writes as the program that sends them work does."""

from __future__ import annotations

import os
from collections.abc import Mapping

from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.ledger.tables.locations import resolve
from deltawitness.observe.observer import current_observer
from deltawitness.propagation import run_environment
from deltawitness.propagation.environment import PYTHON_PATH
from deltawitness.semconv import ACTIVATE_CHILD, OTEL_PREFIX, Env
from deltawitness.settings import Settings

__all__ = ["drop_events_file", "export_variables", "worker_variables"]

_OF_THIS_MACHINE = (Env.SUPERVISOR.value, Env.CHOSEN_ROOT.value, PYTHON_PATH)
"""Variables about the process that `deltawitness run` started. A worker has its own `PYTHONPATH`."""


def worker_variables() -> dict[str, str]:
    """Return the environment variables with which a worker observes writes as this process does.

    They contain the current run, cache context and trace, the settings of this process (those that were
    given in code as well, with absolute paths), and OpenTelemetry's variables. If nothing is observed in
    this process yet, that begins.

    Raises:
        ConfigurationError: a setting is invalid, or has no form as a variable.
    """
    settings = resolve(observed_settings())
    variables = {
        **export_variables(os.environ),
        **run_environment(),
        **settings.environment(),
        Env.ACTIVATE.value: ACTIVATE_CHILD,
    }
    if settings.cache_root is not None:
        variables.pop(Env.ROOT.value, None)  # otherwise two variables would name the root
    for name in _OF_THIS_MACHINE:
        variables.pop(name, None)
    return variables


def observed_settings() -> Settings:
    """Return the settings of this process's observer; start one with those of the environment if needed.

    Raises:
        ConfigurationError: a setting in the environment is invalid.
    """
    instrumentor = DeltaLakeInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument()
    observer = current_observer()
    return Settings.from_env() if observer is None else observer.settings


def export_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of OpenTelemetry, which name the exporters."""
    return {name: value for name, value in environ.items() if name.startswith(OTEL_PREFIX)}


def drop_events_file(variables: dict[str, str]) -> None:
    """Remove the events file of `deltawitness run` from variables, unless it is on this machine."""
    path = variables.get(Env.EVENTS_FILE)
    if path and not os.path.isdir(os.path.dirname(path)):  # noqa: PTH112, PTH120 - a worker imports little
        variables.pop(Env.EVENTS_FILE.value)
