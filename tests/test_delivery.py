"""Finished items reach every step exactly once, in order, whatever a step does."""

from __future__ import annotations

import os
import threading

import pytest

from deltawitness.delivery import Delivery, Step


class Notes:
    """Errors and drops that the delivery reported."""

    def __init__(self):
        self.errors = []
        self.drops = []


STALL_S = 0.5
"""Timeout of a step that hangs: a loaded machine must run the other steps within it."""


def delivery(*steps, notes=None, busy=lambda: False, interval=0.001, capacity=1000, timeout=5.0):
    notes = notes or Notes()
    return Delivery(
        steps,
        interval=interval,
        capacity=capacity,
        step_timeout=timeout,
        is_busy=busy,
        on_error=lambda component, error: notes.errors.append((component, type(error).__name__)),
        on_drop=notes.drops.append,
    )


def test_items_reach_every_step_in_order():
    """Each item goes through all steps before the next one starts."""
    seen = []
    box = delivery(
        Step("a", lambda item: seen.append(("a", item))),
        Step("b", lambda item: seen.append(("b", item))),
    )
    for item in range(3):
        box.submit(item)
    assert box.flush(10)
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_flush_with_nothing_submitted_returns_at_once():
    """An empty delivery is flushed at once."""
    assert delivery(Step("a", print)).flush(10)


def test_a_step_that_raises_is_reported_and_skipped():
    """The next step and the next item are delivered."""
    notes, seen = Notes(), []

    def fail(_):
        raise ValueError

    box = delivery(Step("bad", fail), Step("good", seen.append), notes=notes)
    box.submit(1)
    box.submit(2)
    assert box.flush(10)
    assert seen == [1, 2]
    assert notes.errors == [("bad", "ValueError"), ("bad", "ValueError")]


@pytest.mark.slow
def test_a_step_that_hangs_is_abandoned_and_the_others_continue():
    """A hang is reported once; the item continues with the next step."""
    notes, seen, release = Notes(), [], threading.Event()
    box = delivery(
        Step("stuck", lambda _: release.wait(60)),
        Step("good", seen.append),
        notes=notes,
        timeout=STALL_S,
    )
    box.submit(1)
    assert box.flush(30)
    box.submit(2)
    assert box.flush(30)
    release.set()
    assert seen == [1, 2]
    assert notes.errors == [("stuck", "TimeoutError")]
    assert notes.drops == ["stuck"]


@pytest.mark.slow
def test_a_vital_step_that_hangs_is_tried_again_with_the_next_item():
    """A vital step is skipped for the one item only."""
    notes, seen, release = Notes(), [], threading.Event()

    def stuck_at_first(item):
        if item == 1:
            release.wait(60)
        seen.append(item)

    box = delivery(Step("commit", stuck_at_first, vital=True), notes=notes, timeout=STALL_S)
    box.submit(1)
    box.submit(2)
    assert box.flush(30)
    assert seen == [2]
    assert notes.errors == [("commit", "TimeoutError")]
    release.set()


def test_a_full_queue_drops_new_items_and_reports_them():
    """Queued items stay; new items beyond the capacity are dropped and counted."""
    notes, seen, release = Notes(), [], threading.Event()
    started = threading.Event()

    def wait(item):
        started.set()
        release.wait(60)
        seen.append(item)

    box = delivery(Step("slow", wait), notes=notes, capacity=2)
    box.submit(0)
    assert started.wait(10)
    for item in (1, 2, 3):
        box.submit(item)
    release.set()
    assert box.flush(10)
    assert seen == [0, 1, 2]
    assert notes.drops == ["delivery"]


def test_deliveries_wait_for_a_pause_between_writes():
    """Items wait while a write is in the engine; a flush does not."""
    seen = []
    box = delivery(Step("a", seen.append), busy=lambda: True)
    box.submit(1)
    assert box.flush(10)
    assert seen == [1]


def test_a_flush_that_times_out_returns_false():
    """A flush that times out returns False and loses nothing."""
    seen, release = [], threading.Event()
    box = delivery(Step("slow", lambda item: (release.wait(60), seen.append(item))))
    box.submit(1)
    assert not box.flush(0.01)
    release.set()
    assert box.flush(10)
    assert seen == [1]


def test_a_closed_delivery_has_delivered_and_ends_its_thread():
    """`close()` delivers the queued items and ends the thread."""
    seen = []
    box = delivery(Step("a", seen.append))
    box.submit(1)
    thread = box._thread
    assert box.close(10)
    thread.join(10)
    assert seen == [1]
    assert not thread.is_alive()


def test_an_item_submitted_after_the_close_is_delivered():
    """A write may end after the observer has stopped."""
    seen = []
    box = delivery(Step("a", seen.append))
    box.submit(1)
    assert box.close(10)
    box.submit(2)
    assert box.flush(10)
    assert seen == [1, 2]


def test_submissions_from_many_threads_arrive_exactly_once():
    """Items of eight threads are neither lost nor duplicated."""
    seen = []
    box = delivery(Step("a", seen.append), capacity=10_000)
    threads = [
        threading.Thread(target=lambda n=n: [box.submit((n, i)) for i in range(200)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert box.flush(30)
    assert sorted(seen) == [(n, i) for n in range(8) for i in range(200)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_delivers_its_own_items_and_not_the_parents():
    """Items queued at the fork belong to the parent; the child starts with an empty queue."""
    seen, release, started = [], threading.Event(), threading.Event()

    def note(item):
        started.set()
        if item == "parent":
            release.wait(60)
        seen.append(item)

    box = delivery(Step("a", note), interval=0.001)
    reading, writing = os.pipe()
    box.submit("warm-up")
    assert box.flush(10)
    box.submit("waits")
    child = os.fork()
    if child == 0:
        box.submit("child")
        done = box.flush(10)
        os.write(writing, repr((done, "child" in seen, seen.count("waits"))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert box.flush(10)
    output = os.read(reading, 100).decode()
    assert output in {"(True, True, 0)", "(True, True, 1)"}
    assert seen == ["warm-up", "waits"]


@pytest.mark.slow
def test_a_step_that_stalled_once_is_called_again_when_it_has_returned():
    """Items that it missed are counted; it gets the later ones."""
    stall, stalled, seen, dropped = threading.Event(), threading.Event(), [], []

    def act(item):
        if item == 0:
            stalled.set()
            stall.wait(60)
        seen.append(item)

    working = Delivery(
        [Step("sink", act)],
        interval=0.001,
        capacity=100,
        step_timeout=STALL_S,
        is_busy=lambda: False,
        on_error=lambda component, error: None,
        on_drop=dropped.append,
    )
    hanging = set(threading.enumerate())
    working.submit(0)
    assert stalled.wait(60)
    hanging = set(threading.enumerate()) - hanging
    working.submit(1)
    assert working.flush(60)
    assert dropped == ["sink"]
    stall.set()
    for thread in hanging:
        thread.join(60)
    working.submit(2)
    assert working.flush(60)
    assert seen == [0, 2]
    working.close(5)


def test_a_thread_that_cannot_be_started_is_retried(monkeypatch):
    """A temporary failure to start a thread loses no item."""
    notes, seen = Notes(), []
    box = delivery(Step("a", seen.append), notes=notes)
    with monkeypatch.context() as out_of_threads:

        def start(_):
            raise RuntimeError("can't start new thread")

        out_of_threads.setattr(threading.Thread, "start", start)
        box.submit(1)
    assert notes.errors == [("delivery", "RuntimeError")]
    box.submit(2)
    assert box.flush(10)
    assert seen == [1, 2]
