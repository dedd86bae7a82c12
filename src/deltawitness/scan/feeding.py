"""Whether delta-rs is being fed with rows: its threads wait for them, and cannot help to read them.

delta-rs asks for the rows of a write from its own few threads (one for each processor). A scan that
runs tasks on the same threads then waits for threads that wait for the scan. A scan of one partition
runs on the thread that reads it, and its requests on threads that are for requests alone.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["feeding", "feeding_delta_rs", "is_feeding"]

_lock = threading.Lock()
_writes = 0


@contextmanager
def feeding_delta_rs() -> Iterator[None]:
    """Have scans that start inside the block, on any thread, need no thread of delta-rs."""
    _add(1)
    try:
        yield
    finally:
        _add(-1)


def feeding(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callable of delta-rs that asks for rows, as one that does so in :func:`feeding_delta_rs`."""

    @functools.wraps(call)
    def fed(*args: Any, **kwargs: Any) -> Any:
        _add(1)
        try:
            return call(*args, **kwargs)
        finally:
            _add(-1)

    return fed


def is_feeding() -> bool:
    """Tell whether some thread of the process feeds delta-rs, whatever with."""
    return _writes > 0


def _add(count: int) -> None:
    global _writes  # noqa: PLW0603 - one count for the process, as delta-rs has one set of threads
    with _lock:
        _writes += count
