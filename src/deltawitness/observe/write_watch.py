"""Collect the writes that reach the engine inside a block, for code that needs their results afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def watch_writes(*, is_part: bool = True) -> Iterator[list[InFlightWrite | None]]:
    """Yield a list to which each write of the block is added.

    None is added for a write whose observation failed by an internal error. Unobserved writes are not
    added.

    Args:
        is_part: whether the block is part of the write that an outer block watches: then the outer
            list gets the writes as well, when the block ends.
    """
    outer = watched_writes.get() if is_part else None
    writes: list[InFlightWrite | None] = []
    token = watched_writes.set(writes)
    try:
        yield writes
    finally:
        watched_writes.reset(token)
        if outer is not None:
            outer.extend(writes)


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
