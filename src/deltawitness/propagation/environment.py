"""Child processes get the run, the cache context and the trace by their environment."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import trace

from deltawitness.internal_errors import report
from deltawitness.observe.observer import current_observer
from deltawitness.propagation.private_api import POPEN_ENV
from deltawitness.run import CacheContext, current_cache_context, current_run, is_suppressed
from deltawitness.semconv import Env
from deltawitness.telemetry.spans import traceparent_of

__all__ = ["child_environment", "execute", "popen", "posix_spawn", "run_environment", "system"]

Call = Callable[..., Any]

SITE_DIRECTORIES = "PYTHONPATH"
"""Variable by which `deltawitness run` activates Python processes, with `Env.ACTIVATE`."""


def run_environment() -> dict[str, str]:
    """Return the environment variables that make a worker's writes belong to the run of here and now.

    They carry the run, the cache context and the trace, and every variable of deltawitness that is set
    in this process: settings too, and so its secrets. Under `deltawitness run` they also have the
    worker observed from its start, if its Python has this package. Child processes that are started by
    `subprocess`, `multiprocessing` or `os` get them by themselves; give them to workers that are started
    by something else, such as a cluster's.

    >>> from deltawitness import run
    >>> with run("nightly", run_id="r-1"):
    ...     run_environment()["DELTAWITNESS_RUN_ID"]
    'r-1'
    """
    variables = {name.value: os.environ[name] for name in Env if name in os.environ}
    if Env.ACTIVATE in variables and SITE_DIRECTORIES in os.environ:
        variables[SITE_DIRECTORIES] = os.environ[SITE_DIRECTORIES]
    return {**variables, **child_environment()}


def child_environment() -> dict[str, str]:
    """Return the variables by which a child process joins the run and the trace of here and now."""
    variables = {**current_run().environment(), **_cache_variables(current_cache_context())}
    traceparent = traceparent_of(trace.get_current_span())
    return variables if traceparent is None else {**variables, Env.TRACEPARENT.value: traceparent}


def _cache_variables(context: CacheContext) -> dict[str, str]:
    variables = {
        Env.CACHE_POLICY: context.policy,
        Env.CACHE_SCOPE: context.scope,
        Env.CACHE_KEY: context.key,
    }
    return {name.value: str(value) for name, value in variables.items() if value}


def _missing(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an environment lacks or has as this process's own environment has them.

    A variable that differs there was chosen by the caller, and stays. A caller that chose a run has
    chosen its job and trace, too.
    """
    if given.get(Env.RUN_ID) != os.environ.get(Env.RUN_ID):
        return {}
    return {
        name: value
        for name, value in child_environment().items()
        if given.get(name) != value and given.get(name) == os.environ.get(name)
    }


def _completed(given: Any) -> Any:
    """Return a caller's environment with what it lacks, if it was made from this process's own.

    It was if it has every variable of this process, or this process's run. An environment that the
    caller has put together otherwise is the caller's.
    """
    try:
        named = {os.fsdecode(name): os.fsdecode(value) for name, value in given.items()}
        run_id = os.environ.get(Env.RUN_ID)
        is_copy = os.environ.keys() <= named.keys()
        if is_copy or (run_id is not None and named.get(Env.RUN_ID) == run_id):
            missing = _missing(named)
            return {**named, **missing} if missing else given
    except (TypeError, AttributeError):
        pass  # the engine of the call says what is wrong with it
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
    return given


def _inherited() -> dict[str, str] | None:
    """Return this process's environment with what a child lacks; None where it lacks nothing."""
    try:
        missing = _missing(os.environ)
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
        return None
    return {**os.environ, **missing} if missing else None


def popen(original: Call) -> Call:
    """Replace `subprocess.Popen.__init__`."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - stands in for it
        if is_suppressed():
            pass  # a process of our own takes part in no run
        elif len(args) > POPEN_ENV:
            if args[POPEN_ENV] is None:
                args = (*args[:POPEN_ENV], _inherited(), *args[POPEN_ENV + 1 :])
            else:
                args = (*args[:POPEN_ENV], _completed(args[POPEN_ENV]), *args[POPEN_ENV + 1 :])
        elif kwargs.get("env") is not None:
            kwargs["env"] = _completed(kwargs["env"])
        elif (inherited := _inherited()) is not None:
            kwargs["env"] = inherited
        original(self, *args, **kwargs)

    return __init__


def posix_spawn(original: Call) -> Call:
    """Replace `os.posix_spawn` and `os.posix_spawnp`."""

    def posix_spawn(path: Any, argv: Any, env: Any, /, *args: Any, **kwargs: Any) -> Any:
        return original(path, argv, _completed(env), *args, **kwargs)

    return posix_spawn


def system(original: Call) -> Call:
    """Replace `os.system`, whose shell inherits the environment of the process and no other.

    The variables are exported in the shell's own first command. Changed in this process, they would be
    changed for its other threads as well.
    """

    def system(command: Any) -> Any:
        return original(_exporting(command))

    return system


def _exporting(command: Any) -> Any:
    try:
        missing = _missing(os.environ)
        if not missing or not isinstance(command, str | bytes | os.PathLike):
            return command
        text = os.fsdecode(command)
        words = (f"{name}={shlex.quote(value)}" for name, value in missing.items())
        return f"export {' '.join(words)}; {text}"
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
        return command


def execute(original: Call, execve: Call) -> Call:
    """Replace `os.execv` (without an environment) or `os.execve`.

    What is observed so far is delivered before: the program that follows has none of it.
    """

    def execute(path: Any, args: Any, *env: Any) -> Any:
        observer = current_observer()
        if observer is not None:
            observer.prepare_exec()
        if env:
            return original(path, args, _completed(env[0]), *env[1:])
        inherited = _inherited()
        return original(path, args) if inherited is None else execve(path, args, inherited)

    return execute
