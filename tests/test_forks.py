"""The fork handlers of registered instances are called at each fork."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref

import pytest

from deltawitness.forks import register_fork_handlers


class Handler:
    """Records the handlers that are called."""

    def __init__(self, calls):
        self.calls = calls

    def before_fork(self):
        self.calls.append("before")

    def after_fork_in_parent(self):
        self.calls.append("parent")

    def after_fork_in_child(self):
        self.calls.append("child")


def calls_in_child(calls):
    """Fork, and return the calls that the child has recorded."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, ",".join(calls).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read().split(",")


@pytest.mark.slow
def test_handlers_are_called_before_and_after_a_fork():
    """An instance that is added after the registration takes part, and a deleted one does not."""
    instances = weakref.WeakSet()
    register_fork_handlers(instances)
    calls, deleted = [], []
    handler, other = Handler(calls), Handler(deleted)
    instances.add(handler)
    instances.add(other)
    del other
    assert calls_in_child(calls) == ["before", "child"]
    assert calls == ["before", "parent"]
    assert deleted == []


@pytest.mark.slow
def test_collections_registered_last_are_called_first_before_a_fork():
    calls = []
    first, second = Handler(calls), Handler([])
    first.before_fork = lambda: calls.append("first")
    second.before_fork = lambda: calls.append("second")
    collections = [first], [second]
    for instances in collections:
        register_fork_handlers(instances)
    try:
        assert calls_in_child(calls) == ["second", "first", "child"]
    finally:
        for instances in collections:
            instances.clear()  # a registration lasts as long as the process


PROGRAM = """
import os, sys, threading, time

counts = []
# The first registered handler is the last one before the fork.
os.register_at_fork(before=lambda: counts.append([t.name for t in threading.enumerate()[1:]]))

from deltawitness import DeltaLakeInstrumentor, Settings, run

DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=sys.argv[1], drain_interval=0.01))
from deltawitness.observe import current_observer

recorder = current_observer().recorder
with run("forks"):
    for number in range(20):
        recorder.begin()
        recorder.drains.after_operation()
        recorder.drains._start()
        current_observer()._delivery.flush(10)
        time.sleep(0.002 * number)
        child = os.fork()
        if child == 0:
            os._exit(threading.active_count() - 1)
        assert os.waitpid(child, 0)[1] == 0
        assert current_observer()._delivery.flush(10)
        names = sorted(thread.name for thread in threading.enumerate()[1:])
        assert names == ["deltawitness-delivery", "deltawitness-drain", "deltawitness-sigterm"], names
assert counts == [[]] * 20, counts
"""


@pytest.mark.slow
def test_a_program_forks_without_threads_of_the_library(tmp_path):
    """Each thread ends before the fork and goes on in the parent: a lock that it holds would stay locked."""
    program = subprocess.run(
        # The engines and NumPy have native threads, about which Python warns all the same.
        [sys.executable, "-Wignore::DeprecationWarning", "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (program.returncode, program.stderr) == (0, "")
