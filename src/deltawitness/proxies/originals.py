"""The engine's own methods, whether or not they are replaced: how our code calls past itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["are_replaced", "note_replaced", "note_restored", "original"]

_replaced: dict[tuple[type, str], Callable[..., Any]] = {}
"""The functions that stood on the engine's classes before ours."""


def note_replaced(owner: type, name: str, function: Callable[..., Any]) -> None:
    """Remember the function that a class had under a name."""
    _replaced[owner, name] = function


def note_restored(owner: type, name: str) -> None:
    """Forget it: it is back in its place."""
    _replaced.pop((owner, name), None)


def are_replaced() -> bool:
    """Tell whether the engine's classes are patched at the moment."""
    return bool(_replaced)


def original(instance: Any, name: str) -> Callable[..., Any]:
    """Return the bound method of that name past ours.

    While the classes are patched that is the engine's own, also where a subclass overrides it: the
    subclass has been asked, and has called up to what we stand for.
    """
    if _replaced:
        for owner in type(instance).__mro__:
            function = _replaced.get((owner, name))
            if function is not None:
                return function.__get__(instance)  # type: ignore[no-any-return]  # a function binds to a method
    method: Callable[..., Any] = getattr(instance, name)
    return method
