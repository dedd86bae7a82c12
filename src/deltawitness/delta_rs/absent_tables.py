"""Tables that a caller has just seen not to exist, so that `write_deltalake` does not open them again.

The engine still checks for itself before it creates a table, except in mode `ignore`: there it appends to a
table that exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["absent_table", "current_absent", "take_absent"]

_absent: ContextVar[list[str] | None] = ContextVar("deltawitness_absent_table", default=None)


@contextmanager
def absent_table(uri: str) -> Iterator[None]:
    """Skip the look-up of a table in the next `write_deltalake` of the block.

    Args:
        uri: the location, as `write_deltalake` gets it.
    """
    token = _absent.set([uri])
    try:
        yield
    finally:
        _absent.reset(token)


current_absent: Callable[[], list[str] | None] = _absent.get
"""Return the table of the innermost block of :func:`absent_table`; None outside of any."""


def take_absent(target: object) -> bool:
    """Return whether a target is the absent table of the block; True once.

    Args:
        target: the first argument of `write_deltalake`.
    """
    absent = _absent.get()
    if not absent or target != absent[0]:
        return False
    absent.clear()
    return True
