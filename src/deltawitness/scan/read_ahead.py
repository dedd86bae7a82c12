"""A stream that is read by a thread of its own, ahead of whoever wants its rows.

The engines block the thread that a batch is asked for on. delta-rs refuses to be asked by one of its
own threads ("Cannot start a runtime from within a runtime"), and such a thread it is that asks when
the rows feed a write. What waits here, waits for a batch alone, whatever thread it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

__all__ = ["read_ahead"]

_MAX_ITEMS_AHEAD = 4
"""Items that are read before they are asked for."""

_JOIN_SECONDS = 5.0
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


class _End:
    """What comes after the last item: why there are no more, if reading failed."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Reader(Generic[T]):
    """A thread that reads, and what it has read.

    The queues are those that CPython implements in C: a batch of 8,192 rows takes less time to read than
    a `threading.Condition` takes to wake a thread.
    """

    def __init__(self, start: Callable[[], Iterable[T]]) -> None:
        self._start = start
        self._items: SimpleQueue[T | _End] = SimpleQueue()
        self._permits: SimpleQueue[None] = SimpleQueue()
        self._is_stopped = False
        for _ in range(_MAX_ITEMS_AHEAD):
            self._permits.put(None)
        self._thread = threading.Thread(target=self._run, name="deltawitness-scan", daemon=True)
        self._thread.start()

    def items(self) -> Iterator[T]:
        while not isinstance(item := self._items.get(), _End):
            self._permits.put(None)
            yield item
        if item.error is not None:
            raise item.error

    def stop(self) -> None:
        self._is_stopped = True
        self._permits.put(None)
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        end = _End()
        try:
            for item in self._start():
                self._permits.get()
                if self._is_stopped:
                    break
                self._items.put(item)
        except BaseException as error:  # noqa: BLE001 - raised where the items are asked for
            end = _End(error)
        finally:
            self._items.put(end)
