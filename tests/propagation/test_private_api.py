"""Contract tests of undocumented names in the standard library and in worker pools for propagation."""

from __future__ import annotations

import _thread
import importlib
import inspect
import multiprocessing.pool
import os
import subprocess
import threading

import pytest

from deltawitness.propagation.private_api import (
    EXECUTABLES,
    GRAPH_SUBMISSION,
    POOL_CALLS,
    POPEN_ENV,
    SPAWN_MODULES,
    TASK_EXECUTION,
    THREAD_STARTERS,
    WORKER_POOLS,
)

INSTALLED = ("multiprocessing", "joblib")


def installed(modules):
    return [module for module in modules if module.split(".")[0] in INSTALLED]


def test_popen_takes_the_environment_at_the_known_position():
    """`env` is at the expected position, for callers that pass it by position."""
    assert list(inspect.signature(subprocess.Popen).parameters)[POPEN_ENV] == "env"


def test_a_thread_calls_the_run_of_its_instance():
    """A starting thread looks up `run` on its instance."""
    seen = []
    thread = threading.Thread()
    thread.run = lambda: seen.append(1)
    thread.start()
    thread.join()
    assert seen == [1]


@pytest.mark.parametrize("name", THREAD_STARTERS)
def test_a_thread_object_does_not_start_by_the_names_of_the_low_level_module(name, monkeypatch):
    """`Thread.start` does not call the replaced functions of `_thread`, which would bind its function twice."""
    monkeypatch.setattr(_thread, name, None)
    thread = threading.Thread()
    thread.start()
    thread.join()


def test_every_exec_and_spawn_ends_in_two_functions(monkeypatch):
    """They are looked up as globals of `os` at each call."""
    seen = []
    for name in EXECUTABLES:
        monkeypatch.setattr(os, name, lambda path, *rest: seen.append(path))
    os.execl("/bin/a", "a")
    os.execle("/bin/b", "b", {})
    os.execvpe("/bin/c", ["c"], {})
    assert seen == ["/bin/a", "/bin/b", "/bin/c"]


def test_the_calls_of_a_pool_are_there():
    """Each method that sends functions to workers exists."""
    assert [name for name in POOL_CALLS if not hasattr(multiprocessing.pool.Pool, name)] == []


@pytest.mark.parametrize("module", installed(SPAWN_MODULES))
def test_a_spawned_child_is_prepared_by_a_dict(module):
    """The child unpickles the values of the dict before anything else."""
    assert isinstance(importlib.import_module(module).get_preparation_data("name"), dict)


@pytest.mark.parametrize("module", installed(WORKER_POOLS))
def test_other_worker_pools_submit_as_the_standard_one(module):
    """The function is the first argument."""
    submit = importlib.import_module(module).ProcessPoolExecutor.submit
    assert list(inspect.signature(submit).parameters)[:2] == ["self", "fn"]


def test_a_dask_client_submits_and_a_worker_runs_by_one_method_each():
    """The client reads the annotations in its method, and the worker's is a coroutine with the task's key."""
    pytest.importorskip("distributed")
    (module, owner, name), (_, _, execute) = GRAPH_SUBMISSION, TASK_EXECUTION
    client = getattr(importlib.import_module(module), owner)
    assert "get_annotations()" in inspect.getsource(getattr(client, name))
    assert name in inspect.getsource(client.submit)
    assert name in inspect.getsource(client.map)
    worker = getattr(importlib.import_module(TASK_EXECUTION[0]), TASK_EXECUTION[1])
    signature = inspect.signature(getattr(worker, execute))
    assert list(signature.parameters) == ["self", "key", "stimulus_id"]
    assert signature.parameters["stimulus_id"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "annotations" in inspect.getsource(getattr(worker, execute))
