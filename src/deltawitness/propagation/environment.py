"""Pass the run, the cache context and the trace to child processes in environment variables."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from opentelemetry import trace

from deltawitness.internal_errors import report
from deltawitness.observe.observer import Observer, current_observer
from deltawitness.processes import SITE_DIRECTORY
from deltawitness.propagation.private_api import POPEN_ENV
from deltawitness.run import current_cache_context, current_run, is_process_run, is_suppressed
from deltawitness.run_context import CacheContext
from deltawitness.semconv import Env
from deltawitness.telemetry.spans import traceparent_of

__all__ = [
    "child_environment",
    "execv",
    "execve",
    "popen",
    "posix_spawn",
    "run_environment",
    "system",
]

Call = Callable[..., Any]

NO_VARIABLES: Mapping[str, str] = MappingProxyType({})

PYTHON_PATH = "PYTHONPATH"
"""Variable by which `deltawitness run` activates Python processes, together with `Env.ACTIVATE`."""


_NOT_FOR_WORKERS = {Env.REPLACED_PID, Env.NOTIFY_URL, Env.NOTIFY_SECRET}


def run_environment() -> dict[str, str]:
    """Return the environment variables that make a worker's writes belong to the current run.

    The variables contain the run, the cache context and the trace, and the variables of deltawitness
    that are set in this process, except those of `deltawitness notify`: settings too, so treat them as
    secret. Under `deltawitness run` they also activate observation in the worker, if its Python has this
    package. Child processes of
    `subprocess`, `multiprocessing` and `os` get the variables automatically. Set them for workers that
    are started in other ways, such as those of a cluster.

    >>> from deltawitness import run
    >>> with run("nightly", run_id="r-1"):
    ...     run_environment()["DELTAWITNESS_RUN_ID"]
    'r-1'
    """
    names = (name for name in Env if name in os.environ and name not in _NOT_FOR_WORKERS)
    variables = {name.value: os.environ[name] for name in names}
    if Env.ACTIVATE in variables and PYTHON_PATH in os.environ:
        variables[PYTHON_PATH] = os.environ[PYTHON_PATH]
    return {**variables, **child_environment()}


def child_environment() -> dict[str, str]:
    """Return the variables by which a child process joins the current run and trace."""
    variables = {
        # A run that was opened under the id of the parent's implicit run is implicit no longer.
        **({Env.IMPLICIT_RUN.value: ""} if os.environ.get(Env.IMPLICIT_RUN) else {}),
        **current_run().environment(),
        **_cache_variables(current_cache_context()),
    }
    traceparent = traceparent_of(trace.get_current_span())
    return variables if traceparent is None else {**variables, Env.TRACEPARENT.value: traceparent}


def _cache_variables(context: CacheContext) -> dict[str, str]:
    variables = {
        Env.CACHE_POLICY: context.policy,
        Env.CACHE_SCOPE: context.scope,
        Env.CACHE_KEY: context.key,
        Env.MESSAGE: context.message,
    }
    return {name.value: str(value) for name, value in variables.items() if value}


def _missing(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to add to an environment for a child process.

    A variable is added if the environment lacks it or has the value of this process's environment. A
    different value was set by the caller and stays. If the caller set another run, nothing is added,
    since job and trace belong to the run.
    """
    if given.get(Env.RUN_ID) != os.environ.get(Env.RUN_ID):
        return {}
    return {
        name: value
        for name, value in child_environment().items()
        if given.get(name) != value and given.get(name) == os.environ.get(name)
    }


def _with_missing(given: Any, more: Mapping[str, str] = NO_VARIABLES) -> Any:
    """Return a caller's environment with the missing variables and `more`, if it is a copy of this process's.

    An environment counts as a copy if it has every variable of this process, or this process's run. Any
    other environment is returned unchanged.
    """
    try:
        named = {os.fsdecode(name): os.fsdecode(value) for name, value in given.items()}
        if plan := _plan_variables(named):
            return {**named, **plan, **more}
        run_id = os.environ.get(Env.RUN_ID)
        is_copy = os.environ.keys() <= named.keys()
        if is_copy or (run_id is not None and named.get(Env.RUN_ID) == run_id):
            missing = {**_missing(named), **more}
            return {**named, **missing} if missing else given
    except (TypeError, AttributeError):
        pass  # the called function raises for an invalid environment
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
    return given


def _plan_variables(named: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which a child of a planned program is redirected to clones as well.

    They are added to every environment that lacks them, because the child would write real tables.
    """
    folder = os.environ.get(Env.PLAN_FOLDER)
    if folder is None:
        return {}
    paths = [part for part in named.get(PYTHON_PATH, "").split(os.pathsep) if part]
    if named.get(Env.PLAN_FOLDER) == folder and paths[:1] == [SITE_DIRECTORY]:
        return {}
    others = [part for part in paths if part != SITE_DIRECTORY]
    return {
        Env.PLAN_FOLDER.value: folder,
        PYTHON_PATH: os.pathsep.join([SITE_DIRECTORY, *others]),
    }


def _own_with_missing(more: Mapping[str, str] = NO_VARIABLES) -> dict[str, str] | None:
    """Return this process's environment with the missing variables and `more`; None if there are none."""
    try:
        missing = {**_missing(os.environ), **_plan_variables(os.environ), **more}
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
        return None
    return {**os.environ, **missing} if missing else None


def popen(original: Call) -> Call:
    """Replace `subprocess.Popen.__init__`."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - replaces Popen.__init__
        if is_suppressed():
            pass  # a helper process of deltawitness belongs to no run
        elif len(args) > POPEN_ENV:
            if args[POPEN_ENV] is None:
                args = (*args[:POPEN_ENV], _own_with_missing(), *args[POPEN_ENV + 1 :])
            else:
                args = (*args[:POPEN_ENV], _with_missing(args[POPEN_ENV]), *args[POPEN_ENV + 1 :])
        elif kwargs.get("env") is not None:
            kwargs["env"] = _with_missing(kwargs["env"])
        elif (environment := _own_with_missing()) is not None:
            kwargs["env"] = environment
        original(self, *args, **kwargs)

    return __init__


def posix_spawn(original: Call) -> Call:
    """Replace `os.posix_spawn` and `os.posix_spawnp`."""

    def posix_spawn(path: Any, argv: Any, env: Any, /, *args: Any, **kwargs: Any) -> Any:
        return original(path, argv, _with_missing(env), *args, **kwargs)

    return posix_spawn


def system(original: Call) -> Call:
    """Replace `os.system`, whose shell always inherits the environment of the process.

    The command is prefixed with an `export` of the variables. Setting them in this process's environment
    would change them for its other threads as well.
    """

    def system(command: Any) -> Any:
        return original(_exporting(command))

    return system


def _exporting(command: Any) -> Any:
    try:
        missing = {**_missing(os.environ), **_plan_variables(os.environ)}
        if not missing or not isinstance(command, str | bytes | os.PathLike):
            return command
        text = os.fsdecode(command)
        words = (f"{name}={shlex.quote(value)}" for name, value in missing.items())
        return f"export {' '.join(words)}; {text}"
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
        return command


def execv(original: Call, execve: Call) -> Call:
    """Replace `os.execv`.

    Args:
        original: the original `os.execv`.
        execve: the original `os.execve`, which is called if variables have to be added.
    """

    def execv(path: Any, argv: Any, /) -> Any:
        with _prepare_exec(path) as run_variable:
            environment = _own_with_missing(run_variable)
            if environment is None:
                return original(path, argv)
            with suppress(
                OSError
            ):  # let execv raise: an error of execve names the file, one of execv does not
                execve(path, argv, environment)
            return original(path, argv)

    return execv


def execve(original: Call) -> Call:
    """Replace `os.execve`."""

    def execve(path: Any, argv: Any, env: Any) -> Any:
        with _prepare_exec(path) as run_variable:
            return original(path, argv, _with_missing(env, run_variable))

    return execve


@contextmanager
def _prepare_exec(path: Any) -> Iterator[dict[str, str]]:
    """Deliver all observed writes before the block replaces the program; resume observing if it fails.

    Nothing is done for a path that is not executable: `os.execvp` tries several paths.

    Yields:
        The variable by which the new program continues the run of this process. Empty if the process
        joined the run of another process, or has no run in the ledger.
    """
    resume: Callable[[], object] = bool
    run_variable: dict[str, str] = {}
    try:
        observer = current_observer()
        if observer is not None and _is_executable(path):
            run_variable = _run_variable(observer)
            resume = observer.prepare_exec()
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
    try:
        yield run_variable
    finally:  # reached only if the exec failed
        resume()


def _run_variable(observer: Observer) -> dict[str, str]:
    run, recorder = current_run(), observer.recorder
    is_own = is_process_run(run) and not run.is_joined
    is_recorded = recorder is not None and recorder.is_open and run.run_id in recorder.run_ids
    return {Env.REPLACED_PID.value: str(os.getpid())} if is_own and is_recorded else {}


def _is_executable(path: Any) -> bool:
    if isinstance(path, int):
        return True  # an open file
    try:
        return os.access(path, os.X_OK) and not Path(os.fsdecode(path)).is_dir()
    except (TypeError, ValueError):
        return False  # the call raises for an invalid path
