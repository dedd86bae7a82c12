"""Which writes reach the engine inside a block: for code that must know afterwards how they ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["record_write", "watch_writes"]

_noted: ContextVar[list[InFlightWrite | None] | None] = ContextVar(
    "deltawitness_noted_writes", default=None
)


@contextmanager
def watch_writes(*, is_part: bool = True) -> Iterator[list[InFlightWrite | None]]:
    """Yield a list to which each write of the block is added.

    A write whose observation has failed by an error of ours is None. Writes that nobody observes are
    not added.

    Args:
        is_part: the block is a part of the write that an outer such block is about: the outer one's
            list gets its writes as well, when the block ends.
    """
    outer = _noted.get() if is_part else None
    writes: list[InFlightWrite | None] = []
    token = _noted.set(writes)
    try:
        yield writes
    finally:
        _noted.reset(token)
        if outer is not None:
            outer.extend(writes)


def record_write(write: InFlightWrite | None) -> None:
    """Add a write to the list of the block around it, if there is one; None for an unknown write."""
    writes = _noted.get()
    if writes is not None:
        writes.append(write)
