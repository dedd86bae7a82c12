"""Ray: the workers of a cluster observe writes as the driver does.

A local Ray that a program under `deltawitness run` starts needs nothing of this module. Needs Ray, which is
no dependency of deltawitness.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from deltawitness.activation import activate
from deltawitness.exceptions import ConfigurationError
from deltawitness.integrations._workers import drop_events_file, worker_variables
from deltawitness.internal_errors import guard, report
from deltawitness.run import current_cache_context, current_run
from deltawitness.semconv import ACTIVATE_CHILD, Env
from deltawitness.settings import Settings

__all__ = ["runtime_env", "set_up_worker"]

_HOOK = "worker_process_setup_hook"


def runtime_env(base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a runtime environment in which Ray's workers observe writes as this process does.

    Pass it to `ray.init`. The workers get the settings, the exporters of OpenTelemetry's variables, and
    the current run, cache context and trace. A call of a task or of an actor's method has those of its
    caller, if that is observed. A worker whose Python has no deltawitness works unobserved.

    Ray shows environment variables of a job in its dashboard and logs. Set variables with secrets, such as
    `DELTAWITNESS_STORAGE_OPTIONS` and `OTEL_EXPORTER_OTLP_HEADERS`, on the nodes of the cluster instead.

    Args:
        base: the program's runtime environment. Its variables win, and its setup hook runs after
            that of deltawitness.

    Raises:
        ConfigurationError: a setting is invalid, or has no form as a variable.

    >>> variables = runtime_env({"env_vars": {"REGION": "north"}}).get("env_vars")
    >>> variables.get("REGION"), variables.get("DELTAWITNESS_ACTIVATE")
    ('north', 'child')

    The process is observed from then on, until:

    >>> from deltawitness import DeltaLakeInstrumentor
    >>> DeltaLakeInstrumentor().uninstrument()
    """
    given = dict(base or {})
    variables = {**worker_variables(), **given.get("env_vars", {})}
    return {**given, "env_vars": variables, _HOOK: _hook_before(given.get(_HOOK))}


def _hook_before(following: Callable[[], object] | str | None) -> Callable[[], None]:
    """Return a hook that sets up a worker, then calls the hook of the program.

    It is pickled by value, so that a worker without this package runs nevertheless.
    """

    def deltawitness_hook() -> None:
        try:
            from deltawitness.integrations.ray import set_up_worker  # noqa: PLC0415 - runs in a worker
        except ImportError:
            pass
        else:
            set_up_worker()
        if isinstance(following, str):
            from importlib import import_module  # noqa: PLC0415 - as above

            module, _, name = following.rpartition(".")
            getattr(import_module(module), name)()
        elif following is not None:
            following()

    return deltawitness_hook


def set_up_worker() -> None:
    """Observe the writes of this worker process, as its environment variables say.

    Ray calls it at the start of a worker with the runtime environment of :func:`runtime_env`. As text it is
    for a file: `{"worker_process_setup_hook": "deltawitness.integrations.ray.set_up_worker"}`. The worker
    runs unobserved if a variable is invalid.
    """
    with guard("activation"):
        variables = dict(os.environ)
        drop_events_file(variables)
        if Env.EVENTS_FILE not in variables:
            os.environ.pop(Env.EVENTS_FILE, None)
        try:
            Settings.from_env()
            current_run()
            current_cache_context()
        except ConfigurationError as error:
            report("activation", error)
            return
        os.environ.setdefault(Env.ACTIVATE, ACTIVATE_CHILD)
        activate()
