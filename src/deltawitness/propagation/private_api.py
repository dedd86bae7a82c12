"""Undocumented names of other packages that propagation depends on. Each has a contract test.

A release that removes one of them fails `tests/propagation/test_private_api.py`.
"""

from __future__ import annotations

__all__ = [
    "EXECUTABLES",
    "GRAPH_SUBMISSION",
    "POOL_CALLS",
    "POPEN_ENV",
    "SPAWN_MODULES",
    "TASK_EXECUTION",
    "THREAD_POOL",
    "THREAD_STARTERS",
    "WORKER_POOLS",
]

POOL_CALLS = (
    "apply_async",
    "imap",
    "imap_unordered",
    "map",
    "map_async",
    "starmap",
    "starmap_async",
)
"""Methods of `multiprocessing.pool.Pool` that send functions to workers; its other methods call these."""

POPEN_ENV = 10
"""Index of `env` in the positional arguments of `subprocess.Popen`."""

EXECUTABLES = ("execv", "execve")
"""Functions of `os` that replace the program of the process, without and with an environment. `os.execl`,
`os.execvp` and `os.spawnv` call them as globals of `os`."""

THREAD_STARTERS = ("start_new_thread", "start_new")
"""Functions of `_thread` that start a thread. `threading` binds them to names in its own module, and
`threading.Thread` calls `self.run()` in the new thread."""

THREAD_POOL = ("concurrent.futures.thread", "ThreadPoolExecutor")
"""Module and class of the standard library's pool of threads."""

SPAWN_MODULES = (
    "multiprocessing.spawn",
    "loky.backend.spawn",
    "joblib.externals.loky.backend.spawn",
)
"""Modules whose `get_preparation_data(name, ...)` returns a dict that a new child unpickles first."""

WORKER_POOLS = (
    "concurrent.futures.process",
    "loky.process_executor",
    "joblib.externals.loky.process_executor",
)
"""Modules with a `ProcessPoolExecutor`; loky's is not a subclass of the standard library's."""

GRAPH_SUBMISSION = ("distributed.client", "Client", "_graph_to_futures")
"""Module, class and method by which a Dask client submits tasks; it sends `dask.get_annotations()`."""

TASK_EXECUTION = ("distributed.worker", "Worker", "execute")
"""Module, class and method that runs a task on a worker: a coroutine that takes the task's key. The
task's state, `Worker.state.tasks[key]`, has `annotations`."""
