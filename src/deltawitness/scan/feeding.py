"""Record whether delta-rs is reading the rows of a write, so that scans avoid a deadlock with it.

delta-rs reads the rows of a write on its own few threads (one per processor). A scan that runs tasks on
the same threads then waits for threads that wait for the scan. A scan with one partition runs on the
thread that reads it, and its I/O requests run on threads that do only I/O.
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
    """Make scans that start during the block, on any thread, use one partition."""
    _add(1)
    try:
        yield
    finally:
        _add(-1)


def feeding(call: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a callable of delta-rs that reads rows, so that it runs inside :func:`feeding_delta_rs`."""

    @functools.wraps(call)
    def fed(*args: Any, **kwargs: Any) -> Any:
        global _writes  # noqa: PLW0603 - as `_add`, whose calls each write would pay for
        with _lock:
            _writes += 1
        try:
            return call(*args, **kwargs)
        finally:
            with _lock:
                _writes -= 1

    return fed


def is_feeding() -> bool:
    """Return whether any thread of the process is inside :func:`feeding_delta_rs`."""
    return _writes > 0


def _add(count: int) -> None:
    global _writes  # noqa: PLW0603 - one count per process, because delta-rs has one thread pool
    with _lock:
        _writes += count
