"""Ids and times: from the system, or from functions that a test sets."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import overload

from deltawitness.forks import at_fork

__all__ = ["fixed", "in_utc", "new_id", "now_ns"]


# A separate generator: a program that seeds `random` must not make our ids repeat.
_random = random.Random(os.urandom(32))  # noqa: S311 - ids have to be unique, not secret
_ends: list[str] = []
"""Random ends of the next ids. They are made in batches: for one alone, the state of the generator has to be
loaded into the caches of the processor, on the path of every write."""

_BATCH = 64

_fixed_ids: Callable[[], str] | None = None
_clock: Callable[[], int] = time.time_ns


def new_id() -> str:
    """Return a new UUIDv7 as text, sortable by time and unique across machines.

    Source: RFC 9562, section 5.7 (48 bits of milliseconds, 74 random bits).

    >>> len(new_id()), new_id()[14]
    (36, '7')
    """
    if _fixed_ids is not None:
        return _fixed_ids()
    milliseconds = time.time_ns() // 1_000_000
    try:
        end = _ends.pop()
    except IndexError:
        _ends.extend(_random_end() for _ in range(_BATCH))
        end = _random_end()  # another thread may have taken all of them
    return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-{end}"


def _random_end() -> str:
    """Return the version, the variant and the 74 random bits of an id, as the end of its text."""
    bits = _random.getrandbits(74)
    variant = 0x8000 | bits >> 48 & 0x3FFF
    return f"7{bits >> 62:03x}-{variant:04x}-{bits & 0xFFFF_FFFF_FFFF:012x}"


def _reset_in_child() -> None:
    """Let a forked child make other ids than its parent."""
    _random.seed(os.urandom(32))
    _ends.clear()


at_fork(after_in_child=_reset_in_child)


def now_ns() -> int:
    """Return the time in nanoseconds since the Unix epoch."""
    return _clock()


@overload
def in_utc(time: datetime) -> datetime: ...
@overload
def in_utc(time: None) -> None: ...
@overload
def in_utc(time: datetime | None) -> datetime | None: ...
def in_utc(time: datetime | None) -> datetime | None:
    """Return a time in UTC; a time without a time zone is in UTC already.

    >>> in_utc(datetime(2024, 2, 29, 12)).isoformat()
    '2024-02-29T12:00:00+00:00'
    """
    if time is None:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


@contextmanager
def fixed(
    *, ids: Callable[[], str] | None = None, clock: Callable[[], int] | None = None
) -> Iterator[None]:
    """Use the given functions for ids and times inside the block, in all threads. For tests.

    >>> with fixed(ids=lambda: "id-1", clock=lambda: 0):
    ...     new_id(), now_ns()
    ('id-1', 0)
    """
    global _fixed_ids, _clock
    before = _fixed_ids, _clock
    _fixed_ids, _clock = ids or _fixed_ids, clock or _clock
    try:
        yield
    finally:
        _fixed_ids, _clock = before
