"""Call the engine's own methods, whether or not they are patched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["REPLACED", "unpatched"]

REPLACED: dict[tuple[type, str], Callable[..., Any]] = {}
"""The engine's original functions, by class and method name; empty while nothing is patched."""


def unpatched(instance: Any, name: str) -> Callable[..., Any]:
    """Return a bound method of an engine object, bypassing the patches.

    While the classes are patched, this is the engine's method even if a subclass overrides it: the
    override has run already and has called `super()`, so the engine's method is next.

    Args:
        instance: the engine object.
        name: the name of the method.
    """
    if REPLACED:
        for owner in type(instance).__mro__:
            function = REPLACED.get((owner, name))
            if function is not None:
                return function.__get__(instance)  # type: ignore[no-any-return]  # a function binds to a method
    method: Callable[..., Any] = getattr(instance, name)
    return method
