"""Read a stream on a background thread, ahead of its consumer.

The engines block the thread that requests a batch. delta-rs refuses a request from one of its
threads ("Cannot start a runtime from within a runtime"), but requests the rows of a write from such
a thread. With a background thread, the requesting thread only waits on a queue, so it may be any
thread. In exit handlers, where Python starts no thread since 3.12, the requesting thread reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

from deltawitness.thread_start import start_thread

T = TypeVar("T")

__all__ = ["read_ahead"]

_MAX_ITEMS_AHEAD = 4
"""Maximum number of items that are read before they are requested."""

_JOIN_SECONDS = 5.0
"""Maximum time in seconds that a stopped iterator waits for the thread to finish its current item."""


def read_ahead(start: Callable[[], Iterable[T]]) -> Iterator[T]:
    """Yield the items of an iterable that a background thread creates and reads.

    The thread starts when the first item is requested, and ends with the iterator.

    Args:
        start: creates the iterable; runs on the thread.

    Raises:
        BaseException: the error of creating or reading the iterable.
    """
    reader = _Reader(start)
    try:
        yield from reader.items()
    finally:
        reader.stop()


class _End:
    """The marker after the last item, with the error if reading failed."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Reader(Generic[T]):
    """A thread that reads an iterable, and the queue of its items.

    `SimpleQueue` is used because CPython implements it in C: a batch of 8,192 rows takes less time to
    read than a `threading.Condition` takes to wake a thread.
    """

    def __init__(self, start: Callable[[], Iterable[T]]) -> None:
        self._start = start
        self._items: SimpleQueue[T | _End] = SimpleQueue()
        self._permits: SimpleQueue[None] = SimpleQueue()
        self._is_stopped = False
        for _ in range(_MAX_ITEMS_AHEAD):
            self._permits.put(None)
        self._thread = threading.Thread(target=self._run, name="deltawitness-scan", daemon=True)
        self._has_thread = start_thread(self._thread)

    def items(self) -> Iterator[T]:
        if not self._has_thread:
            yield from self._start()
            return
        while not isinstance(item := self._items.get(), _End):
            self._permits.put(None)
            yield item
        if item.error is not None:
            raise item.error

    def stop(self) -> None:
        self._is_stopped = True
        self._permits.put(None)
        if self._has_thread:
            self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        end = _End()
        try:
            for item in self._start():
                self._permits.get()
                if self._is_stopped:
                    break
                self._items.put(item)
        except BaseException as error:  # noqa: BLE001 - raised again by the reader of the items
            end = _End(error)
        finally:
            self._items.put(end)
