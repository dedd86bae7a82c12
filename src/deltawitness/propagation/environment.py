"""Child processes get the run, the cache context and the trace by their environment."""

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
from deltawitness.propagation.private_api import POPEN_ENV
from deltawitness.run import (
    CacheContext,
    current_cache_context,
    current_run,
    is_process_run,
    is_suppressed,
)
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

NOTHING_MORE: Mapping[str, str] = MappingProxyType({})

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
    here = (name for name in Env if name in os.environ and name != Env.REPLACED_PID)
    variables = {name.value: os.environ[name] for name in here}
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


def _completed(given: Any, more: Mapping[str, str] = NOTHING_MORE) -> Any:
    """Return a caller's environment with what it lacks, and more, if it was made from this process's own.

    It was if it has every variable of this process, or this process's run. An environment that the
    caller has put together otherwise is the caller's.
    """
    try:
        named = {os.fsdecode(name): os.fsdecode(value) for name, value in given.items()}
        run_id = os.environ.get(Env.RUN_ID)
        is_copy = os.environ.keys() <= named.keys()
        if is_copy or (run_id is not None and named.get(Env.RUN_ID) == run_id):
            missing = {**_missing(named), **more}
            return {**named, **missing} if missing else given
    except (TypeError, AttributeError):
        pass  # the engine of the call says what is wrong with it
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
    return given


def _inherited(more: Mapping[str, str] = NOTHING_MORE) -> dict[str, str] | None:
    """Return this process's environment with what a child lacks, and more; None where it lacks nothing."""
    try:
        missing = {**_missing(os.environ), **more}
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


def execv(original: Call, execve: Call) -> Call:
    """Replace `os.execv`.

    Args:
        original: the function.
        execve: the original `os.execve`, which is called where the environment lacks something.
    """

    def execv(path: Any, argv: Any, /) -> Any:
        with _replacing(path) as continuing:
            inherited = _inherited(continuing)
            if inherited is None:
                return original(path, argv)
            with suppress(OSError):  # it names the file, which that of execv does not
                execve(path, argv, inherited)
            return original(path, argv)

    return execv


def execve(original: Call) -> Call:
    """Replace `os.execve`."""

    def execve(path: Any, argv: Any, env: Any) -> Any:
        with _replacing(path) as continuing:
            return original(path, argv, _completed(env, continuing))

    return execve


@contextmanager
def _replacing(path: Any) -> Iterator[dict[str, str]]:
    """Deliver what is observed so far before the block replaces the program; go on if it fails.

    A path that cannot be executed prepares nothing: `os.execvp` tries one after the other.

    Yields:
        The variable by which the new program continues the run of this process; none where the
        process takes part in the run of another one, or has no run.
    """
    resume: Callable[[], object] = bool
    continuing: dict[str, str] = {}
    try:
        observer = current_observer()
        if observer is not None and _is_executable(path):
            continuing = _continuing(observer)
            resume = observer.prepare_exec()
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report("propagation", error)
    try:
        yield continuing
    finally:  # a block that succeeds does not come here
        resume()


def _continuing(observer: Observer) -> dict[str, str]:
    run, recorder = current_run(), observer.recorder
    is_own = is_process_run(run) and not run.is_joined
    is_kept = recorder is not None and recorder.is_open and run.run_id in recorder.run_ids
    return {Env.REPLACED_PID.value: str(os.getpid())} if is_own and is_kept else {}


def _is_executable(path: Any) -> bool:
    if isinstance(path, int):
        return True  # an open file
    try:
        return os.access(path, os.X_OK) and not Path(os.fsdecode(path)).is_dir()
    except (TypeError, ValueError):
        return False  # the call says what is wrong with it
