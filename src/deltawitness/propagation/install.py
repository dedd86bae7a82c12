"""Install propagation: replace the functions that start threads, processes and tasks of workers."""

from __future__ import annotations

import _thread
import importlib
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from deltawitness.import_hooks import when_imported
from deltawitness.internal_errors import guard, report
from deltawitness.patching import Replacements, unpatched
from deltawitness.propagation import (
    celery_tasks,
    dask_cluster,
    environment,
    processes,
    ray_cluster,
    threads,
)
from deltawitness.propagation.private_api import (
    ACTOR_CALL,
    ACTOR_CREATION,
    CELERY_SIGNALS,
    EXECUTABLES,
    GRAPH_SUBMISSION,
    POOL_CALLS,
    REMOTE_CALL,
    SPAWN_MODULES,
    TASK_EXECUTION,
    THREAD_POOL,
    THREAD_STARTERS,
    WORKER_POOLS,
)

__all__ = ["Propagation"]

Call = Callable[..., Any]

_current: Propagation | None = None
_hooked: set[tuple[str, ...]] = set()
"""Functions, and modules, that have an import hook."""


class Propagation:
    """The functions that propagation has replaced in this process."""

    def __init__(self) -> None:
        self._replacements = Replacements()
        self._is_on = False
        self._supporting_fd = {unpatched(os.execve)} & os.supports_fd

    def install(self) -> None:
        """Replace the functions; those of packages that are not imported yet when they are imported."""
        global _current
        self._is_on, _current = True, self
        self._replace(threading.Thread, "start", threads.start_thread)
        for name in THREAD_STARTERS:
            self._replace(_thread, name, threads.start_function)
        self._replace_when_imported(*THREAD_POOL, "submit", threads.submit)
        for name in POOL_CALLS:
            self._replace_when_imported("multiprocessing.pool", "Pool", name, processes.send)
        self._replace_when_imported("subprocess", "Popen", "__init__", environment.popen)
        without, with_environment = EXECUTABLES
        execv = partial(environment.execv, execve=unpatched(os.execve))
        self._replace(os, without, execv)
        self._replace(os, with_environment, environment.execve)
        if self._supporting_fd:  # a program may check `os.execve in os.supports_fd`
            os.supports_fd.add(os.execve)
        if sys.platform != "win32":
            self._replace(os, "system", environment.system)
            self._replace(os, "posix_spawn", environment.posix_spawn)
            self._replace(os, "posix_spawnp", environment.posix_spawn)
        for module in SPAWN_MODULES:
            self._replace_when_imported(module, "", "get_preparation_data", processes.prepare)
        for module, owner, name, make in (
            (*GRAPH_SUBMISSION, dask_cluster.graph_to_futures),
            (*TASK_EXECUTION, dask_cluster.execute),
            (*REMOTE_CALL, ray_cluster.remote_function),
            (*ACTOR_CREATION, ray_cluster.actor_class_remote),
            (*ACTOR_CALL, ray_cluster.actor_method_call),
        ):
            self._replace_when_imported(module, owner, name, make)
        for module in WORKER_POOLS:
            self._replace_when_imported(module, "ProcessPoolExecutor", "submit", processes.send)
        _when_imported(CELERY_SIGNALS, _connect_celery)

    def uninstall(self) -> None:
        """Restore the original functions."""
        global _current  # noqa: PLW0603 - see install
        self._is_on = False
        if _current is self:
            _current = None
            if CELERY_SIGNALS in sys.modules:
                celery_tasks.disconnect()
        os.supports_fd.discard(os.execve)
        self._replacements.restore()
        os.supports_fd.update(self._supporting_fd)

    def replace_imported(
        self, module: str, owner: str, name: str, make: Callable[[Call], Call]
    ) -> None:
        """Replace a function of an imported module, or of its class `owner`; report if it does not exist."""
        imported: Any = importlib.import_module(module)
        try:
            self._replace(getattr(imported, owner) if owner else imported, name, make)
        except AttributeError as error:
            report("propagation", error)

    def _replace_when_imported(
        self, module: str, owner: str, name: str, make: Callable[[Call], Call]
    ) -> None:
        if module in sys.modules:
            self.replace_imported(module, owner, name, make)
        elif (module, owner, name) not in _hooked:
            _hooked.add((module, owner, name))
            when_imported(module, lambda _: _replace_now(module, owner, name, make))

    def _replace(self, owner: Any, name: str, make: Callable[[Call], Call]) -> None:
        def switched(original: Call) -> Call:
            replacement = make(original)

            def call(*args: Any, **kwargs: Any) -> Any:
                # Another package's wrapper of this function still calls it after uninstall().
                return (replacement if self._is_on else original)(*args, **kwargs)

            return call

        self._replacements.replace(owner, name, switched)


def _replace_now(module: str, owner: str, name: str, make: Callable[[Call], Call]) -> None:
    if _current is not None:
        with guard("propagation"):  # an error would be raised by the program's import
            _current.replace_imported(module, owner, name, make)


def _when_imported(module: str, call: Callable[[], None]) -> None:
    """Call a function now if a module is imported, else when it is imported."""
    if module in sys.modules:
        call()
    elif (module,) not in _hooked:
        _hooked.add((module,))
        when_imported(module, lambda _: call())


def _connect_celery() -> None:
    if _current is not None:
        with guard("propagation"):
            celery_tasks.connect()
