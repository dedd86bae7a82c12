"""Count the rows of a source that deltawitness feeds to the engine, for the file of running writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltawitness.ledger.spool.running import RunningSlot

__all__ = ["RowCounter", "counting_rows", "current_row_counter"]

_counter: ContextVar[RowCounter | None] = ContextVar("deltawitness_row_counter", default=None)


class RowCounter:
    """Passes the number of rows of each batch to the write that reads them.

    The engine reads on a thread without the context of the caller, so the source holds this object.

    Attributes:
        slot: the place of the write; None while no write reads the source.
    """

    __slots__ = ("slot",)

    def __init__(self) -> None:
        self.slot: RunningSlot | None = None

    def add(self, count: int) -> None:
        """Add the rows of a batch."""
        slot = self.slot
        if slot is not None:
            slot.add_rows(count)


current_row_counter: Callable[[], RowCounter | None] = _counter.get
"""Return the counter of the source that the next write reads; None for a source that is not counted."""


@contextmanager
def counting_rows(counter: RowCounter) -> Iterator[None]:
    """Give the writes that enter the engine in the block a counter of their source.

    Args:
        counter: the counter that the source adds its batches to.
    """
    token = _counter.set(counter)
    try:
        yield
    finally:
        _counter.reset(token)
