"""Fixtures and hooks of all tests: clean state before and after each test, and time limits."""

from __future__ import annotations

import faulthandler
import os
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings

from deltawitness import forks, internal_errors
from deltawitness.delta_rs.caller_keys import forget_caller_keys
from deltawitness.delta_rs.install import uninstall
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.run import forget_process_run
from deltawitness.semconv import Env

IS_LONG = os.environ.get("DELTAWITNESS_TEST_SIZE") == "long"

settings.register_profile(
    "fair", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("long" if IS_LONG else "fair")


LONGER = 50
"""How much longer a test may take at full size: no size is more than 50 times the fair one."""
GRACE_S = 60.0
"""How long after its bound a test that cannot be interrupted ends the run."""
STDERR = pytest.StashKey[int]()


def bound_of(item):
    """Return a test's time limit in seconds: of its timeout marker, else the run's default; 0 is no limit."""
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return marker.args[0]
    chosen = item.config.getoption("timeout")
    return float(item.config.getini("timeout") if chosen is None else chosen)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Raise the time limit of each test at full size."""
    if IS_LONG:
        for item in items:
            item.add_marker(pytest.mark.timeout(LONGER * bound_of(item)), append=False)


@contextmanager
def watched(item):
    """Print the stack of each thread and end the run if the block takes longer than the test may.

    faulthandler's watchdog is a native thread that needs no interpreter. So it also ends a test that
    hangs in native code, where the handler of pytest-timeout's signal never runs.
    """
    bound = bound_of(item)
    if bound:
        faulthandler.dump_traceback_later(
            bound + GRACE_S, exit=True, file=item.config.stash[STDERR]
        )
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_configure(config):
    """Duplicate the error output of the run, because the original is captured while a test runs."""
    config.stash[STDERR] = os.dup(2)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    """Limit the time of a test's fixtures."""
    with watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    """Limit the time of a test."""
    with watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """Limit the end of the fixtures, which pytest-timeout does not after the test has failed."""
    with watched(item):
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Limit the exit of the process, which waits for the threads that tests have left running."""
    faulthandler.dump_traceback_later(GRACE_S, exit=True, file=config.stash[STDERR])


@pytest.fixture(autouse=True)
def clean_process(monkeypatch, request):
    """Undo instrumentation after a test, and fail the test if deltawitness reported internal errors.

    A test that provokes internal errors has the marker `internal_errors`.
    """
    for variable in Env:
        monkeypatch.delenv(variable, raising=False)
    forget_process_run()
    forget_caller_keys()
    internal_errors.forget()
    forks.mark_delta_rs_used()  # tests use delta-rs without observation, as a program may
    yield
    if DeltaLakeInstrumentor().is_instrumented_by_opentelemetry:
        DeltaLakeInstrumentor().uninstrument()
    uninstall()
    forget_process_run()
    if request.node.get_closest_marker("internal_errors") is None:
        assert internal_errors.seen() == {}


@pytest.fixture
def size():
    """The size of fault and property tests: the reduced one of CI, or the full one."""
    return lambda fair, full: full if IS_LONG else fair


SAID = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def say(request):
    """Print a line at the end of the run, despite capturing: the amount of work of a fault test."""
    return request.config.stash.setdefault(SAID, []).append


def pytest_terminal_summary(terminalreporter):
    """Print the lines of `say`."""
    for line in terminalreporter.config.stash.get(SAID, []):
        terminalreporter.write_line(line)
