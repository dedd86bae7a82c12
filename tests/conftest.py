"""What every test starts from: nothing instrumented, no run open, no error of ours unnoticed."""

from __future__ import annotations

import faulthandler
import os
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings

from deltawitness import forks, internal_errors
from deltawitness.delta_rs.caller_keys import reset_caller_key_warnings
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
    """The seconds that a test may take, 0 for no bound: its mark's, else the default of the run."""
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return marker.args[0]
    chosen = item.config.getoption("timeout")
    return float(item.config.getini("timeout") if chosen is None else chosen)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Give each test more time at full size."""
    if IS_LONG:
        for item in items:
            item.add_marker(pytest.mark.timeout(LONGER * bound_of(item)), append=False)


@contextmanager
def watched(item):
    """Print the stack of each thread and end the run if the block takes longer than the test may.

    The watchdog of faulthandler is a native thread that needs no interpreter. It also ends a test
    that hangs in native code, where the handler of pytest-timeout's signal never runs.
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
    """Keep the error output of the run: while a test runs, that output is captured."""
    config.stash[STDERR] = os.dup(2)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    """Watch the fixtures of a test."""
    with watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item):
    """Watch a test."""
    with watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """Watch the end of the fixtures, which pytest-timeout does not bound once the test has failed."""
    with watched(item):
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Bound the exit of the process, which waits for the threads that tests have left running."""
    faulthandler.dump_traceback_later(GRACE_S, exit=True, file=config.stash[STDERR])


@pytest.fixture(autouse=True)
def clean_process(monkeypatch, request):
    """Undo what a test instrumented; fail a test beside which something of ours failed unnoticed.

    A test that provokes our own errors says so with the marker `internal_errors`.
    """
    for variable in Env:
        monkeypatch.delenv(variable, raising=False)
    forget_process_run()
    reset_caller_key_warnings()
    internal_errors.forget()
    forks.mark_delta_rs_used()  # tests read and write tables without being observed
    yield
    if DeltaLakeInstrumentor().is_instrumented_by_opentelemetry:
        DeltaLakeInstrumentor().uninstrument()
    uninstall()
    forget_process_run()
    if request.node.get_closest_marker("internal_errors") is None:
        assert internal_errors.seen() == {}


@pytest.fixture
def size():
    """How large a fault or property test is: the fair size of CI, or the full one."""
    return lambda fair, full: full if IS_LONG else fair


SAID = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def say(request):
    """Print a line at the end of the run, whatever is captured: how much a fault test has done."""
    return request.config.stash.setdefault(SAID, []).append


def pytest_terminal_summary(terminalreporter):
    """Print what was said."""
    for line in terminalreporter.config.stash.get(SAID, []):
        terminalreporter.write_line(line)
