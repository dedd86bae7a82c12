"""Finished writes wait here and are delivered off the caller's thread, in order, between writes.

Making telemetry costs more than the write's own thread should pay, and costs it most while a write
runs. So a daemon thread takes the finished writes in small batches when no write is under way, and
never waits longer than a bound for that. A step that hangs is given up: another thread goes on
with the next step, and the caller never notices.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import register_at_fork
from typing import Any, Generic, TypeVar

__all__ = ["Delivery", "Step"]

T = TypeVar("T")

LINGER = 5.0
"""Seconds that the thread looks for items of its own accord after the last one, so that a program
that writes again and again does not have to wake it each time."""

PATIENCE = 1.0
"""Seconds that deliveries wait for a pause between writes before they go on beside one."""


QUIET_POLL = 0.01
"""Seconds between two looks for a pause: each look takes the interpreter from the write."""


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """One thing done with each item.

    Attributes:
        component: its name in error counts and logs.
        act: the thing.
        vital: a hang costs the one item only; otherwise the step is left out until it returns.
    """

    component: str
    act: Callable[[T], None]
    vital: bool = False


class _Pending(Generic[T]):
    """An item and the step it has come to; or, without an item, a mark that a flush waits for."""

    __slots__ = ("item", "reached", "step")

    def __init__(self, item: T | None) -> None:
        self.item = item
        self.step = 0
        self.reached = threading.Event() if item is None else None


class Delivery(Generic[T]):
    """Runs every item through the steps, exactly once, in the order of submission.

    Args:
        steps: what is done with each item.
        interval: seconds that items gather before they are worked off.
        capacity: items that may wait; beyond it new ones are dropped.
        step_timeout: seconds after which a step is taken to hang.
        is_busy: tells whether a write is under way.
        on_error: is told of a step that raised or hung.
        on_drop: is told of an item that was dropped, or that a given-up step did not see.
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
        self._queue: deque[_Pending[T]] = deque()
        self._given_up: set[int] = set()
        self._reset()
        _deliveries.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._delivering = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._idle = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._turn = 0
        self._current: tuple[_Pending[T], float] | None = None

    def submit(self, item: T) -> None:
        """Take an item; costs the caller a microsecond and never blocks or raises."""
        if len(self._queue) >= self._capacity:
            self._on_drop("delivery")
            return
        self._queue.append(_Pending(item))
        self._attend()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was submitted before has been delivered.

        Args:
            timeout: seconds to wait at most; None waits as long as no step hangs.

        Returns:
            Whether it was all delivered in time.
        """
        if threading.current_thread() is self._thread:
            return False
        mark: _Pending[T] = _Pending(None)
        reached = mark.reached
        self._queue.append(mark)
        self._hurry.set()
        self._attend()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not reached.wait(self._patience(deadline)):  # type: ignore[union-attr]  # a mark has its event
            self._give_up_what_hangs()
            self._attend()
            if deadline is not None and time.monotonic() >= deadline:
                return False
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Deliver what waits, then end the thread."""
        delivered = self.flush(timeout)
        self._closed = True
        self._wake.set()
        self._hurry.set()
        return delivered

    def _patience(self, deadline: float | None) -> float:
        step = min(self._step_timeout, 0.25)
        return step if deadline is None else max(0.0, min(step, deadline - time.monotonic()))

    def _attend(self) -> None:
        if self._thread is None:
            self._start()
        elif self._idle:
            self._wake.set()
        elif self._is_overdue():
            self._give_up_what_hangs()

    def _is_overdue(self) -> bool:
        current = self._current
        return current is not None and time.monotonic() - current[1] >= self._step_timeout

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, args=(self._turn,), name="deltawitness-delivery", daemon=True
                )
                try:
                    self._thread.start()
                except (
                    RuntimeError
                ) as error:  # no more threads can be had; the next item tries again
                    self._thread = None
                    self._on_error("delivery", error)

    def _work(self, turn: int) -> None:
        while self._turn == turn:
            self._wait_for_work()
            if not self._closed:
                self._wait_for_quiet()
            self._work_off(turn)
            if self._closed and not self._queue:
                # A write that ends after this is submitted to a thread of its own.
                self._thread = None
                return

    def _wait_for_work(self) -> None:
        lingering_until = time.monotonic() + LINGER
        while not self._closed:
            self._hurry.wait(self._interval)
            if self._queue or self._closed:
                return
            self._hurry.clear()
            if time.monotonic() >= lingering_until:
                self._sleep()
                lingering_until = time.monotonic() + LINGER

    def _sleep(self) -> None:
        self._idle = True
        # An item may have come in between: its submitter saw a thread that was not idle yet.
        if not self._queue and not self._closed:
            self._wake.wait()
        self._idle = False
        self._wake.clear()

    def _wait_for_quiet(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._is_busy() and not self._closed and time.monotonic() < deadline:
            if self._hurry.wait(min(self._interval, QUIET_POLL)):
                return

    def _work_off(self, turn: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._turn == turn and self._queue:
            if self._is_busy() and not self._hurry.is_set() and time.monotonic() < deadline:
                self._wait_for_quiet()
            self._deliver(turn)
        if self._turn == turn and not self._queue:
            self._hurry.clear()

    def _deliver(self, turn: int) -> None:
        with self._delivering:
            try:
                pending = self._queue.popleft()
            except IndexError:
                return
            if pending.reached is not None:
                pending.reached.set()
                return
            while pending.step < len(self._steps) and self._turn == turn:
                self._take_step(pending, turn)

    def _take_step(self, pending: _Pending[T], turn: int) -> None:
        index = pending.step
        step = self._steps[index]
        if index in self._given_up:
            self._on_drop(step.component)
            pending.step += 1
            return
        self._current = pending, time.monotonic()
        try:
            step.act(pending.item)  # type: ignore[arg-type]  # an item that is no mark
        except Exception as error:  # noqa: BLE001 - whatever a sink raises ends here
            self._on_error(step.component, error)
        with self._lock:
            if self._turn != turn:
                # Given up as hanging, and now it has returned: it may be called again.
                self._given_up.discard(index)
                return
            self._current = None
            pending.step += 1

    def _give_up_what_hangs(self) -> None:
        with self._lock:
            if self._current is None or not self._is_overdue():
                return
            pending = self._current[0]
            step = self._steps[pending.step]
            if not step.vital:
                self._given_up.add(pending.step)
            pending.step += 1
            self._current = None
            self._turn += 1
            self._thread = None
            # The hanging thread keeps the old lock for as long as it hangs.
            self._delivering = threading.Lock()
            self._queue.appendleft(pending)
        self._on_error(step.component, TimeoutError("the step did not return in time"))
        self._start()

    def before_fork(self) -> None:
        """Wait for a delivery under way."""
        # No fork in the middle of a delivery: the child would inherit the exporters' held locks.
        self._fork_lock = self._delivering
        self._held = self._fork_lock.acquire(timeout=PATIENCE)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._held:
            self._fork_lock.release()

    def after_fork_in_child(self) -> None:
        """Start anew, with nothing."""
        # What waits belongs to the parent, which delivers it.
        self._queue.clear()
        self._reset()


_deliveries: weakref.WeakSet[Delivery[Any]] = weakref.WeakSet()


def _for_each(act: Callable[[Delivery[Any]], None]) -> Callable[[], None]:
    def each() -> None:
        for delivery in list(_deliveries):
            act(delivery)

    return each


register_at_fork(
    before=_for_each(Delivery.before_fork),
    after_in_parent=_for_each(Delivery.after_fork_in_parent),
    after_in_child=_for_each(Delivery.after_fork_in_child),
)
