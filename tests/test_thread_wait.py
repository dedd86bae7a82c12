"""A thread that works slowly is waited for, and one that hangs is not."""

from __future__ import annotations

import itertools
import threading

import pytest

from deltawitness.thread_wait import PROGRESS_SHARE, wait_while_working

TIMEOUT = 0.02
PROGRESS = TIMEOUT * PROGRESS_SHARE * 1.01


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
    seconds = itertools.count(0, PROGRESS)

    def cpu_time():
        used = next(seconds)
        if used > 200 * PROGRESS:
            event.set()
        return used

    assert wait_while_working(thread, timeout=TIMEOUT, longest=60, cpu_time=cpu_time)
    assert next(seconds) > 200 * PROGRESS


def test_a_drain_that_waits_for_its_storage_is_not_waited_for(waiting):
    """The command ends after the timeout if the storage does not answer."""
    thread, _ = waiting
    assert not wait_while_working(thread, timeout=TIMEOUT, longest=60, cpu_time=lambda: 1.0)


def test_no_drain_is_waited_for_without_limit(waiting):
    """A drain that never ends does not hold the command for longer than the maximum."""
    thread, _ = waiting
    seconds = itertools.count(0, PROGRESS)
    assert not wait_while_working(
        thread, timeout=TIMEOUT, longest=0.1, cpu_time=lambda: next(seconds)
    )


def test_a_drain_that_ends_is_waited_for():
    """The wait ends with the drain."""
    thread = threading.Thread(target=bool)
    thread.start()
    assert wait_while_working(thread, timeout=60, longest=60)
