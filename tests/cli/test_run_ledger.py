"""How long `deltawitness run` waits for the drain after the program."""

from __future__ import annotations

import itertools
import threading

import pytest

from deltawitness.cli import run_ledger
from deltawitness.cli.run_ledger import wait_while_working


@pytest.fixture(autouse=True)
def short_limits(monkeypatch):
    """Shorten the limits."""
    monkeypatch.setattr(run_ledger, "DRAIN_POLL", 0.001)
    monkeypatch.setattr(run_ledger, "DRAIN_TIMEOUT", 0.05)


@pytest.fixture
def waiting():
    """A started thread that waits for an event, and the event."""
    event = threading.Event()
    thread = threading.Thread(target=event.wait, args=(60,), daemon=True)
    thread.start()
    yield thread, event
    event.set()
    thread.join()


def test_a_drain_that_computes_is_waited_for_beyond_the_timeout(waiting):
    """On a machine without free CPU time, a drain is slow and not stuck."""
    thread, event = waiting
    seconds = itertools.count(0, run_ledger.PROGRESS)

    def cpu_time():
        used = next(seconds)
        if used > 200 * run_ledger.PROGRESS:
            event.set()
        return used

    assert wait_while_working(thread, cpu_time=cpu_time)
    assert next(seconds) > 200 * run_ledger.PROGRESS


def test_a_drain_that_waits_for_its_storage_is_not_waited_for(waiting):
    """The command ends after the timeout if the storage does not answer."""
    thread, _ = waiting
    assert not wait_while_working(thread, cpu_time=lambda: 1.0)


def test_no_drain_is_waited_for_without_limit(waiting, monkeypatch):
    """A drain that never ends does not hold the command for longer than the maximum."""
    monkeypatch.setattr(run_ledger, "LONGEST_DRAIN", 0.1)
    thread, _ = waiting
    seconds = itertools.count(0, run_ledger.PROGRESS)
    assert not wait_while_working(thread, cpu_time=lambda: next(seconds))


def test_a_drain_that_ends_is_waited_for():
    """The wait ends with the drain."""
    thread = threading.Thread(target=bool)
    thread.start()
    assert wait_while_working(thread)
