"""The engine's own methods, whether or not they are replaced: how our code calls past itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["OBSERVED", "original", "set_replaced"]

OBSERVED = "_deltawitness_original"
"""Attribute of an observing function: the function that it stands for."""

_are_replaced = False


def set_replaced(are_replaced: bool) -> None:
    """Say whether any method of the engine is replaced: while none is, none has to be asked."""
    global _are_replaced  # noqa: PLW0603 - the classes are the process's, and so is this
    _are_replaced = are_replaced


def original(instance: Any, name: str) -> Callable[..., Any]:
    """Return the bound method of that name as the engine, or a subclass of it, defines it."""
    method: Callable[..., Any] = getattr(instance, name)
    if not _are_replaced:
        return method
    function = getattr(method, OBSERVED, None)
    return method if function is None else function.__get__(instance)
