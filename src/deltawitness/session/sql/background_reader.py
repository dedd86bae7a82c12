"""Run a frame on a background thread and stream its rows, which avoids a deadlock with delta-rs.

delta-rs pulls the rows of a source on a thread that its own reads need. A sorted or windowed frame
over a Delta table of many files waits for that thread, which waits for the frame. A frame that runs
on its own thread does not wait for it. In exit handlers, where Python starts no thread since 3.12, the
frame is computed before its first row is read.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from deltawitness.observe.row_counter import RowCounter, counting_rows
from deltawitness.scan.feeding import feeding_delta_rs
from deltawitness.session.core.filter_fallback import call_frame
from deltawitness.thread_start import start_thread

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame

__all__ = ["read_in_background"]

_MAX_BATCHES_AHEAD = 4
"""Maximum number of computed batches that wait for the reader."""

_POLL_SECONDS = 0.1
"""Interval in seconds at which the thread checks for a stop while the queue is full."""

_JOIN_SECONDS = 5.0
"""Maximum time in seconds that a failed write waits for the thread to finish its current batch."""

_Item: TypeAlias = "pa.RecordBatch | BaseException | None"
"""A batch, an error that ended the stream, or None at the end of the stream."""


@contextmanager
def read_in_background(frame: DataFrame) -> Iterator[pa.RecordBatchReader]:
    """Yield a reader of a frame's rows; a background thread runs the frame until the block ends.

    Args:
        frame: the frame.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    counter = RowCounter()
    with feeding_delta_rs(), counting_rows(counter):
        reader = _Reader(frame, counter)
        try:
            yield pa.RecordBatchReader.from_batches(frame.schema(), reader.batches())
        finally:
            reader.stop()


class _Reader:
    """A thread that runs a frame, and the queue of its batches.

    Args:
        frame: the frame.
        counter: counts the rows that were read.
    """

    def __init__(self, frame: DataFrame, counter: RowCounter) -> None:
        self._frame = frame
        self._counter = counter
        self._items: queue.Queue[_Item] = queue.Queue(_MAX_BATCHES_AHEAD)
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deltawitness-reader", daemon=True)
        if not start_thread(self._thread):
            self._items = queue.Queue()  # for all batches
            self._run()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches in order.

        Raises:
            BaseException: the error that the engine raised on the thread.
        """
        while True:
            item = self._items.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            self._counter.add(item.num_rows)
            yield item

    def stop(self) -> None:
        """Stop the thread, even if its batches were not all read, and wait for it up to a time limit."""
        self._is_stopped.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        try:
            batches: Any = call_frame(self._frame, "execute_stream")
            for batch in batches:
                if not self._put(batch.to_pyarrow()):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the reader of the rows
            self._put(error)

    def _put(self, item: _Item) -> bool:
        """Put an item into the queue; return False if the thread was stopped instead."""
        while not self._is_stopped.is_set():
            try:
                self._items.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
