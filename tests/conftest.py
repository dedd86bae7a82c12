"""What every test starts from: nothing instrumented, no run open, no error of ours unnoticed."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from deltawitness import internal
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.proxies.installation import uninstall
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


@pytest.fixture(autouse=True)
def clean_process(monkeypatch, request):
    """Undo what a test instrumented; fail a test beside which something of ours failed unnoticed.

    A test that provokes our own errors says so with the marker `internal_errors`.
    """
    for variable in Env:
        monkeypatch.delenv(variable, raising=False)
    forget_process_run()
    internal.forget()
    yield
    if DeltaLakeInstrumentor().is_instrumented_by_opentelemetry:
        DeltaLakeInstrumentor().uninstrument()
    uninstall()
    forget_process_run()
    if request.node.get_closest_marker("internal_errors") is None:
        assert internal.seen() == {}


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
