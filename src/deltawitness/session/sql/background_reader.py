"""A frame's rows as a stream that nothing waits for but its reader.

delta-rs asks a source for its rows from a thread that its own reads need. A frame over a Delta table
of many files, sorted or windowed, then waits for that thread, which waits for the frame: neither
engine goes on. Run by a thread of ours the frame goes on, and hands its batches over.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from deltawitness.scan.feeding import feeding_delta_rs
from deltawitness.session.core.filter_fallback import call_frame

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame

__all__ = ["read_in_background"]

_MAX_BATCHES_AHEAD = 4
"""Batches that are computed before they are asked for."""

_POLL_SECONDS = 0.1
"""Seconds after which a thread that nobody reads from looks whether anybody still does."""

_JOIN_SECONDS = 5.0
"""Seconds that a write which has failed waits for the batch that is still computed for it."""

_Item: TypeAlias = "pa.RecordBatch | BaseException | None"
"""A batch; or why there are no more; or that there are none."""


@contextmanager
def read_in_background(frame: DataFrame) -> Iterator[pa.RecordBatchReader]:
    """Yield a frame's rows as a stream, run by a thread of its own for as long as the block lasts.

    Args:
        frame: the frame.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

    with feeding_delta_rs():
        reader = _Reader(frame)
        try:
            yield pa.RecordBatchReader.from_batches(frame.schema(), reader.batches())
        finally:
            reader.stop()


class _Reader:
    """A thread that runs a frame, and what it hands over.

    Args:
        frame: the frame.
    """

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame
        self._items: queue.Queue[_Item] = queue.Queue(_MAX_BATCHES_AHEAD)
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deltawitness-reader", daemon=True)
        self._thread.start()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches as they come.

        Raises:
            BaseException: what the engine raised.
        """
        while True:
            item = self._items.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def stop(self) -> None:
        """Let the thread end, whether or not it was read to its end; wait for it, but not for ever."""
        self._is_stopped.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        try:
            batches: Any = call_frame(self._frame, "execute_stream")
            for batch in batches:
                if not self._put(batch.to_pyarrow()):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the rows are asked for
            self._put(error)

    def _put(self, item: _Item) -> bool:
        """Hand something over; return False when nobody asks for it any more."""
        while not self._is_stopped.is_set():
            try:
                self._items.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
