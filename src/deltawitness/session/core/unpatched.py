"""The engine's own methods, whether or not they are replaced: how our code calls past itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["REPLACED", "unpatched"]

REPLACED: dict[tuple[type, str], Callable[..., Any]] = {}
"""The functions that stood on the engine's classes before ours; empty while nothing is patched."""


def unpatched(instance: Any, name: str) -> Callable[..., Any]:
    """Return the bound method of that name past ours.

    While the classes are patched that is the engine's own, also where a subclass overrides it: the
    subclass has been asked, and has called up to what we stand for.
    """
    if REPLACED:
        for owner in type(instance).__mro__:
            function = REPLACED.get((owner, name))
            if function is not None:
                return function.__get__(instance)  # type: ignore[no-any-return]  # a function binds to a method
    method: Callable[..., Any] = getattr(instance, name)
    return method
