"""Deliver finished writes on a background thread, in order, between writes.

Creating telemetry takes too long for the write's thread, and slows the program most while a write runs.
So a daemon thread delivers finished writes in batches while no write is active; it waits at most
`MAX_WAIT` seconds for that. If a step hangs, another thread continues with the next step.

States of the thread::

    none --submit, flush--> gathering --items--> waiting for a pause --pause or MAX_WAIT--> delivering
    delivering --queue empty--> gathering --no item for IDLE_AFTER--> idle --submit, flush--> gathering
    delivering --step hangs--> abandoned: a new thread starts in its place, and this one ends on return
    any state --close--> delivering --queue empty--> none

A flush or a close does not wait for a pause. It delivers on its own thread where no thread can be
started, as in exit handlers since Python 3.12.

Before a fork the thread ends, and after it another one starts when there are items: a lock that a thread
holds at a fork stays locked in the child.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from deltawitness.forks import register_fork_handlers
from deltawitness.thread_start import start_thread

__all__ = ["Delivery", "Step"]

T = TypeVar("T")

IDLE_AFTER = 5.0
"""Seconds without items after which the thread stops polling, and has to be woken. A program that writes
more often than that does not pay for waking it."""

MAX_WAIT = 1.0
"""Seconds to wait for a pause between writes before delivering during a write."""


QUIET_POLL = 0.01
"""Seconds between two checks for a pause. Each check takes the interpreter lock from the write."""


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """One function that is called with each item.

    Attributes:
        component: name of the step in error counts and logs.
        act: the function.
        vital: whether the step runs for further items after it has hung for one. Any other step is
            skipped until the hanging call returns.
    """

    component: str
    act: Callable[[T], None]
    vital: bool = False


class _Pending(Generic[T]):
    """An item in delivery, and the index of its next step."""

    __slots__ = ("item", "step")

    def __init__(self, item: T) -> None:
        self.item = item
        self.step = 0


class _Sentinel:
    """Marks in the queue which items a flush waits for."""

    __slots__ = ("reached",)

    def __init__(self) -> None:
        self.reached = threading.Event()


class Delivery(Generic[T]):
    """Runs every item through the steps, exactly once, in the order of submission.

    Args:
        steps: functions that are called with each item, in this order.
        interval: seconds to gather items before they are delivered.
        capacity: maximum number of queued items; further items are dropped.
        step_timeout: seconds after which a step counts as hanging.
        is_busy: returns whether a write is active.
        on_error: called with the component and the error of a step that raised or hung.
        on_drop: called with the component for an item that was dropped, or that skipped an abandoned
            step.
    """

    def __init__(  # noqa: PLR0913 - collaborators, all by keyword
        self,
        steps: Sequence[Step[T]],
        *,
        interval: float,
        capacity: int,
        step_timeout: float,
        is_busy: Callable[[], bool],
        on_error: Callable[[str, BaseException], None],
        on_drop: Callable[[str], None],
    ) -> None:
        self._steps = tuple(steps)
        self._interval = interval
        self._capacity = capacity
        self._step_timeout = step_timeout
        self._is_busy = is_busy
        self._on_error = on_error
        self._on_drop = on_drop
        self._queue: deque[T | _Pending[T] | _Sentinel] = deque()
        self._abandoned: set[int] = set()
        self._reset()
        _deliveries.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._delivering = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._idle = False
        self._closed = False
        self._is_paused = False
        self._paused_at = 0.0
        self._thread: threading.Thread | None = None
        self._turn = 0
        self._current: tuple[_Pending[T], float] | None = None

    def submit(self, item: T) -> None:
        """Queue an item for delivery. Takes about a microsecond, never blocks and never raises."""
        if len(self._queue) >= self._capacity:
            self._on_drop("delivery")
            return
        self._queue.append(item)
        if (
            self._thread is None or self._idle or self._current is not None
        ):  # else there is nothing to do
            self._ensure_delivering()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all items that were submitted before the call are delivered.

        Args:
            timeout: maximum seconds to wait; None waits without limit (hanging steps are abandoned).

        Returns:
            Whether all of them were delivered in time.
        """
        if threading.current_thread() is self._thread:
            return False
        sentinel = _Sentinel()
        self._queue.append(sentinel)
        self._hurry.set()
        self._deliver_in_flush()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not sentinel.reached.wait(self._wait_seconds(deadline)):
            self._abandon_hanging_step()
            self._deliver_in_flush()
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Deliver the queued items, then end the thread. Return whether all were delivered in time."""
        delivered = self.flush(timeout)
        self._closed = True
        self._wake.set()
        self._hurry.set()
        return delivered

    def _wait_seconds(self, deadline: float | None) -> float:
        step = min(self._step_timeout, 0.25)
        return step if deadline is None else max(0.0, min(step, deadline - time.monotonic()))

    def _deliver_in_flush(self) -> None:
        """Make sure that a thread delivers; deliver on the calling thread if none can be started."""
        self._ensure_delivering()
        if self._thread is None:
            self._deliver_queue(self._turn)

    def _ensure_delivering(self) -> None:
        if self._thread is None:
            self._start()
        elif self._idle:
            self._wake.set()
        elif self._is_overdue():
            self._abandon_hanging_step()

    def _is_overdue(self) -> bool:
        current = self._current
        return current is not None and time.monotonic() - current[1] >= self._step_timeout

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._is_paused:
                return
            # Set before the start: the thread clears it when it ends.
            thread = self._thread = threading.Thread(
                target=self._work, args=(self._turn,), name="deltawitness-delivery", daemon=True
            )
            try:
                is_started = start_thread(thread)
            except RuntimeError as error:  # the limit of threads; the next item tries again
                is_started = False
                self._on_error("delivery", error)
            if not is_started:
                self._thread = None

    def _work(self, turn: int) -> None:
        while self._turn == turn and not self._is_paused:
            self._wait_for_work()
            if not self._closed:
                self._wait_for_quiet()
            self._deliver_queue(turn)
            if self._closed and not self._queue:
                # An item that is submitted after this starts a new thread.
                self._thread = None
                return
        with self._lock:
            if self._turn == turn:
                self._thread = None
        if self._queue:
            self._ensure_delivering()

    def _wait_for_work(self) -> None:
        idle_at = time.monotonic() + IDLE_AFTER
        while not self._is_ending:
            self._hurry.wait(self._interval)
            if self._queue or self._is_ending:
                return
            self._hurry.clear()
            if time.monotonic() >= idle_at:
                self._sleep()
                idle_at = time.monotonic() + IDLE_AFTER

    def _sleep(self) -> None:
        self._idle = True
        # An item may have been queued just before: its submitter saw a thread that was not yet idle.
        if not (self._queue or self._is_ending):
            self._wake.wait()
        self._idle = False
        self._wake.clear()

    def _wait_for_quiet(self) -> None:
        deadline = time.monotonic() + MAX_WAIT
        while self._is_busy() and not self._is_ending and time.monotonic() < deadline:
            if self._hurry.wait(min(self._interval, QUIET_POLL)):
                return

    @property
    def _is_ending(self) -> bool:
        return self._closed or self._is_paused

    def _deliver_queue(self, turn: int) -> None:
        deadline = time.monotonic() + MAX_WAIT
        while self._turn == turn and self._queue and not self._is_paused:
            if self._is_busy() and not self._hurry.is_set() and time.monotonic() < deadline:
                self._wait_for_quiet()
            self._deliver(turn)
        if self._turn == turn and not self._queue:
            self._hurry.clear()

    def _deliver(self, turn: int) -> None:
        with self._delivering:
            try:
                queued = self._queue.popleft()
            except IndexError:
                return
            if isinstance(queued, _Sentinel):
                queued.reached.set()
                return
            # An item whose step has hung is queued again with the index of its next one.
            pending = queued if isinstance(queued, _Pending) else _Pending(queued)
            while pending.step < len(self._steps) and self._turn == turn:
                self._run_step(pending, turn)

    def _run_step(self, pending: _Pending[T], turn: int) -> None:
        index = pending.step
        step = self._steps[index]
        if index in self._abandoned:
            self._on_drop(step.component)
            pending.step += 1
            return
        self._current = pending, time.monotonic()
        try:
            step.act(pending.item)
        except Exception as error:  # noqa: BLE001 - a sink's error must not end the thread
            self._on_error(step.component, error)
        with self._lock:
            if self._turn != turn:
                # The step was abandoned as hanging and has now returned: it can be called again.
                self._abandoned.discard(index)
                return
            self._current = None
            pending.step += 1

    def _abandon_hanging_step(self) -> None:
        with self._lock:
            if self._current is None or not self._is_overdue():
                return
            pending = self._current[0]
            step = self._steps[pending.step]
            if not step.vital:
                self._abandoned.add(pending.step)
            pending.step += 1
            self._current = None
            self._turn += 1
            self._thread = None
            # The hanging thread holds the old lock until it returns.
            self._delivering = threading.Lock()
            self._queue.appendleft(pending)
        self._on_error(step.component, TimeoutError("the step did not return in time"))
        self._start()

    def pause(self) -> None:
        """End the thread after the item that it delivers, until a fork is over.

        Call it before a lock is held that a step may need. It waits at most `MAX_WAIT` seconds.
        """
        with self._lock:
            if self._is_paused:
                return
            self._is_paused, self._paused_at = True, time.monotonic()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._hurry.set()
            self._wake.set()
            thread.join(MAX_WAIT)

    def before_fork(self) -> None:
        """Wait for the active delivery to finish, for at most `MAX_WAIT` seconds."""
        self.pause()
        # In a fork during a delivery the child would inherit locked locks of the exporters.
        self._fork_lock = self._delivering
        left = self._paused_at + MAX_WAIT - time.monotonic()
        self._held = self._fork_lock.acquire(timeout=max(0.0, left))

    def after_fork_in_parent(self) -> None:
        """Continue to deliver."""
        if self._held:
            self._fork_lock.release()
        self._is_paused = False
        if self._queue:
            self._ensure_delivering()

    def after_fork_in_child(self) -> None:
        """Reset to an empty queue without a thread."""
        # The parent delivers the items that were queued before the fork.
        self._queue.clear()
        self._reset()


_deliveries: weakref.WeakSet[Delivery[Any]] = weakref.WeakSet()
register_fork_handlers(_deliveries)
