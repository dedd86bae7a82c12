"""A stream that is read by a thread of its own, ahead of whoever wants its rows.

The engines block the thread that a batch is asked for on. delta-rs refuses to be asked by one of its
own threads ("Cannot start a runtime from within a runtime"), and such a thread it is that asks when
the rows feed a write. What waits here, waits for a batch alone, whatever thread it is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

__all__ = ["read_ahead"]

_AHEAD = 4
"""Items that are read before they are asked for."""

_WAITING = 5.0
"""Seconds that a reader who wants no more waits for the item that is being read."""


def read_ahead(start: Callable[[], Iterable[T]]) -> Iterator[T]:
    """Yield the items of an iterable that a thread of its own makes and reads.

    The thread starts with the first item that is asked for, and ends with the iterator.

    Args:
        start: makes the iterable.

    Raises:
        BaseException: what making or reading it raised.
    """
    reader = _Reader(start)
    try:
        yield from reader.items()
    finally:
        reader.stop()


class _Reader(Generic[T]):
    def __init__(self, start: Callable[[], Iterable[T]]) -> None:
        self._start = start
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._is_over = False
        self._is_unwanted = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="deltawitness-scan", daemon=True)
        self._thread.start()

    def items(self) -> Iterator[T]:
        while True:
            with self._changed:
                while not self._items and not self._is_over:
                    self._changed.wait()
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        with self._changed:
            self._is_unwanted = True
            self._items.clear()
            self._changed.notify_all()
        self._thread.join(_WAITING)

    def _run(self) -> None:
        try:
            for item in self._start():
                if not self._hand(item):
                    break
        except BaseException as error:  # noqa: BLE001 - raised where the items are asked for
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _hand(self, item: T) -> bool:
        """Hand an item over; return False when nobody wants any more."""
        with self._changed:
            while len(self._items) >= _AHEAD and not self._is_unwanted:
                self._changed.wait()
            if self._is_unwanted:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True
