"""Collect the writes that reach the engine inside a block, for code that needs their results afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from deltawitness.events import NoCommitReason

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["has_quarantined", "record_write", "watch_writes", "watched_writes"]

watched_writes: ContextVar[list[InFlightWrite | None] | None] = ContextVar(
    "deltawitness_watched_writes", default=None
)
"""The list of the enclosing `watch_writes` block. The patch of `write_deltalake` sets it itself, which is
faster than a block."""


class watch_writes:  # noqa: N801 - used as a function
    """Collect each write of the block in a list, which the `with` statement returns.

    None is added for a write whose observation failed by an internal error. Unobserved writes are not
    added. A generator would take longer, on the path of every write of a pipeline.

    Args:
        is_part: whether the block is part of the write that an outer block watches: then the outer
            list gets the writes as well, when the block ends.
    """

    __slots__ = ("_is_part", "_outer", "_token", "_writes")

    def __init__(self, *, is_part: bool = True) -> None:
        self._is_part = is_part
        self._writes: list[InFlightWrite | None] = []

    def __enter__(self) -> list[InFlightWrite | None]:
        self._outer = watched_writes.get() if self._is_part else None
        self._token = watched_writes.set(self._writes)
        return self._writes

    def __exit__(self, *_: object) -> None:
        watched_writes.reset(self._token)
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
    writes = watched_writes.get()
    if writes is not None:
        writes.append(write)
