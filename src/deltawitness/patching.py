"""Replace functions of other packages in place and restore them. A replacement is never wrapped again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["Replacements", "argument", "unpatched"]

Call = Callable[..., Any]

_ATTRIBUTE = "_deltawitness_replacement"
"""Attribute of each replacement: a tuple of the replacement itself and the original function."""


class Replacements:
    """The functions that were replaced, with their originals."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Call, Call]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Call], Call]) -> None:
        """Replace an attribute. A function gets the original's name, signature and documentation.

        Args:
            owner: the class or module that has the attribute.
            name: the attribute.
            make: called with the original, returns the replacement. The original is the function of the
                other package even when the attribute already holds a replacement of this module.

        Raises:
            AttributeError: the owner has no such attribute.
        """
        original = unpatched(getattr(owner, name))
        replacement = make(original)
        if isinstance(replacement, FunctionType):
            functools.update_wrapper(replacement, original)
        setattr(replacement, _ATTRIBUTE, (replacement, original))
        if isinstance(owner, ModuleType) and isinstance(replacement, FunctionType):
            # pickle finds a function by its __module__ and name.
            replacement.__module__ = owner.__name__
        setattr(owner, name, replacement)
        self._replaced.append((owner, name, original, replacement))

    def restore(self) -> None:
        """Restore every original, in reverse order.

        An attribute that no longer holds the replacement, such as another package's wrapper of it, stays.
        """
        while self._replaced:
            owner, name, original, replacement = self._replaced.pop()
            if vars(owner).get(name) is replacement:
                setattr(owner, name, original)


def unpatched(function: Call) -> Call:
    """Return the original of a replacement of this module; any other function is returned unchanged."""
    pair = getattr(function, _ATTRIBUTE, None)
    # functools.wraps copies attributes: another package's wrapper has the pair of what it wraps.
    while pair is not None and pair[0] is function:
        function = pair[1]
        pair = getattr(function, _ATTRIBUTE, None)
    return function


def argument(args: Sequence[Any], kwargs: Mapping[str, Any], position: int, name: str) -> Any:
    """Return an argument of a call that a replacement received; None if the caller gave none.

    Args:
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        position: position of the parameter.
        name: name of the parameter.
    """
    return args[position] if len(args) > position else kwargs.get(name)
