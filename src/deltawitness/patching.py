"""Replaces functions of other packages in place, never twice, and puts the originals back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["Replacements", "unpatched"]

Call = Callable[..., Any]

_MARK = "_deltawitness_replacement"
"""Attribute of each function of ours that stands in place of another: itself, and that other."""


class Replacements:
    """The functions that were replaced, with their originals."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Call, Call]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Call], Call]) -> None:
        """Replace a function, or another object, by one that has its name, signature and documentation.

        Args:
            owner: the class or module whose attribute it is.
            name: the attribute.
            make: returns the replacement; it is given the original. That is the function of the other
                package, also where a function of ours stands in its place already.

        Raises:
            AttributeError: the owner has no such attribute.
        """
        original = unpatched(getattr(owner, name))
        replacement = make(original)
        if isinstance(replacement, FunctionType):
            functools.update_wrapper(replacement, original)
        setattr(replacement, _MARK, (replacement, original))
        if isinstance(owner, ModuleType) and isinstance(replacement, FunctionType):
            # pickle looks for a function where it says that it is
            replacement.__module__ = owner.__name__
        setattr(owner, name, replacement)
        self._replaced.append((owner, name, original, replacement))

    def restore(self) -> None:
        """Put every original back, in reverse order.

        A wrapper that somebody else has put around a replacement of ours stays where it is.
        """
        while self._replaced:
            owner, name, original, replacement = self._replaced.pop()
            if vars(owner).get(name) is replacement:
                setattr(owner, name, original)


def unpatched(function: Call) -> Call:
    """Return the function that a replacement of ours stands for; any other function as it is."""
    mark = getattr(function, _MARK, None)
    # functools.wraps copies attributes: a wrapper of somebody else's has the mark of what it wraps.
    while mark is not None and mark[0] is function:
        function = mark[1]
        mark = getattr(function, _MARK, None)
    return function
