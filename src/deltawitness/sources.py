"""Where ids and times come from: the system's, unless a test fixes them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["fixed", "new_id", "now_ns"]


def _uuid7() -> str:
    moment = f"{time.time_ns() // 1_000_000:012x}"
    random = os.urandom(10).hex()
    # The first of the last 64 bits are the variant, 10; the two random bits after them stay.
    variant = _VARIANTS[random[3]]
    return f"{moment[:8]}-{moment[8:]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"


_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


_ids: Callable[[], str] = _uuid7
_clock: Callable[[], int] = time.time_ns


def new_id() -> str:
    """Return a new UUIDv7 as text: sortable by time, unique across machines.

    Source: RFC 9562, section 5.7 (48 bits of milliseconds, 74 random bits).

    >>> len(new_id()), new_id()[14]
    (36, '7')
    """
    return _ids()


def now_ns() -> int:
    """Return the time in nanoseconds since the Unix epoch."""
    return _clock()


@contextmanager
def fixed(
    *, ids: Callable[[], str] | None = None, clock: Callable[[], int] | None = None
) -> Iterator[None]:
    """Take ids and times from the given functions inside the block, process-wide; for tests.

    >>> with fixed(ids=lambda: "id-1", clock=lambda: 0):
    ...     new_id(), now_ns()
    ('id-1', 0)
    """
    global _ids, _clock
    before = _ids, _clock
    _ids, _clock = ids or _ids, clock or _clock
    try:
        yield
    finally:
        _ids, _clock = before
