"""Collect the writes that reach the engine inside a block, for code that needs their results afterwards."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from deltawitness.events import NoCommitReason

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["has_quarantined", "record_write", "recorded", "watch_writes"]

_watched: ContextVar[list[InFlightWrite | None] | None] = ContextVar(
    "deltawitness_watched_writes", default=None
)
"""The list of the enclosing `watch_writes` block."""


class _Recorded(threading.local):
    """How many writes each thread has recorded.

    Attributes:
        count: the number of writes.
    """

    count: int = 0


recorded: _Recorded = _Recorded()
"""The number of writes of the calling thread, to see whether a call has recorded any: faster than a block."""


class watch_writes:  # noqa: N801 - used as a function
    """Collect each write of the block in a list, which the `with` statement returns.

    None is added for a write whose observation failed by an internal error. Unobserved writes are not
    added. A generator would take longer, on the path of every write of a pipeline.

    Args:
        is_part: whether the block is part of the write that an outer block watches: then the outer
            list gets the writes as well, when the block ends.
    """

    __slots__ = ("_count", "_is_part", "_outer", "_token", "_writes")

    def __init__(self, *, is_part: bool = True) -> None:
        self._is_part = is_part
        self._writes: list[InFlightWrite | None] = []

    def __enter__(self) -> list[InFlightWrite | None]:
        self._outer = _watched.get() if self._is_part else None
        self._token = _watched.set(self._writes)
        self._count = recorded.count
        return self._writes

    def __exit__(self, *_: object) -> None:
        _watched.reset(self._token)
        if not self._is_part:
            recorded.count = self._count
        if self._outer is not None:
            self._outer.extend(self._writes)


def has_quarantined(writes: Sequence[InFlightWrite | None]) -> bool:
    """Return whether the rows of a write are in a quarantine table, so that its own table has no commit.

    Args:
        writes: the list of a `watch_writes` block around the write.
    """
    reason = NoCommitReason.QUARANTINED
    return any(write is not None and write.no_commit_reason is reason for write in writes)


def record_write(write: InFlightWrite | None) -> None:
    """Add a write to the list of the enclosing `watch_writes` block, if any; None for an unknown write."""
    recorded.count += 1
    writes = _watched.get()
    if writes is not None:
        writes.append(write)
