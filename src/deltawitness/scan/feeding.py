"""Record whether delta-rs is reading the rows of a write, so that scans avoid a deadlock with it.

delta-rs reads the rows of a write on its own few threads (one per processor). A scan that runs tasks on
the same threads then waits for threads that wait for the scan. A scan with one partition runs on the
thread that reads it, and its I/O requests run on threads that do only I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["end_feeding", "feeding_delta_rs", "is_feeding", "start_feeding"]

_writes: list[None] = []
"""An entry for each write that reads rows now: one list per process, because delta-rs has one thread pool. A
list needs no lock to add and remove an entry."""

start_feeding: Callable[[None], None] = _writes.append
"""Start a block of :func:`feeding_delta_rs`, with the argument None; in less time, for each write."""

end_feeding: Callable[[], None] = _writes.pop
"""End the block that :func:`start_feeding` has started."""


@contextmanager
def feeding_delta_rs() -> Iterator[None]:
    """Make scans that start during the block, on any thread, use one partition."""
    start_feeding(None)
    try:
        yield
    finally:
        end_feeding()


def is_feeding() -> bool:
    """Return whether any thread of the process is inside :func:`feeding_delta_rs`."""
    return bool(_writes)
