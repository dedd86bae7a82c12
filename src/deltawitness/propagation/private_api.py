"""Undocumented names of other packages that propagation depends on. Each has a contract test.

A release that removes one of them fails `tests/propagation/test_private_api.py`.
"""

from __future__ import annotations

__all__ = [
    "ACTOR_CALL",
    "ACTOR_CREATION",
    "CELERY_SIGNALS",
    "EXECUTABLES",
    "GRAPH_SUBMISSION",
    "POOL_CALLS",
    "POPEN_ENV",
    "REMOTE_CALL",
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

REMOTE_CALL = ("ray.remote_function", "RemoteFunction", "_remote")
"""Module, class and method by which a task of Ray is submitted. The object has `_function` (exported when
the task is first submitted in a job), `_function_signature`, `_inject_lock` and
`_last_export_cluster_and_job`."""

ACTOR_CREATION = ("ray.actor", "ActorClass", "_remote")
"""Module, class and method by which an actor of Ray is created. `__ray_metadata__` of the object has
`modified_class`, a subclass of the program's class, and `method_meta` with `methods` and `signatures`."""

ACTOR_CALL = ("ray.actor", "ActorHandle", "_actor_method_call")
"""Module, class and method by which a method of an actor of Ray is called. `_ray_method_signatures` of the
object has the parameters of each method."""

CELERY_SIGNALS = "celery.signals"
"""Module of Celery's signals, which are public."""
