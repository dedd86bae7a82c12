"""Which writes reach the engine inside a block: for code that must know afterwards how they ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltawitness.observe.observation import Observation

__all__ = ["note_write", "noting_writes"]

_noted: ContextVar[list[Observation] | None] = ContextVar("deltawitness_noted_writes", default=None)


@contextmanager
def noting_writes() -> Iterator[list[Observation]]:
    """Yield a list to which each observed write of the block is added.

    A write that is not observed is not added. Inside another such block, its list gets none of them.
    """
    writes: list[Observation] = []
    token = _noted.set(writes)
    try:
        yield writes
    finally:
        _noted.reset(token)


def note_write(observation: Observation) -> None:
    """Add a write that is about to reach the engine to the list of the block around it, if any."""
    writes = _noted.get()
    if writes is not None:
        writes.append(observation)
