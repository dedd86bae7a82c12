"""Values of merges that are built and not executed yet, by the engine's merge builder."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["MAX_PENDING_MERGES", "MergeBuilders"]

MAX_PENDING_MERGES = 1024
"""Maximum number of builders; beyond it, the oldest one is dropped."""

_Value = TypeVar("_Value")


class MergeBuilders(Generic[_Value]):
    """Maps merge builders to values.

    A builder takes no attribute and no weak reference, so its id is the key. A later builder at the same
    address replaces the value of an earlier one.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[int, _Value] = OrderedDict()

    def put(self, builder: object, value: _Value) -> None:
        """Store the value of a builder."""
        self._values[id(builder)] = value
        self._values.move_to_end(id(builder))
        while len(self._values) > MAX_PENDING_MERGES:
            self._values.popitem(last=False)

    def pop(self, builder: object) -> _Value | None:
        """Remove the value of a builder, and return it; None if there is none."""
        return self._values.pop(id(builder), None)

    def clear(self) -> None:
        """Remove all values."""
        self._values.clear()
