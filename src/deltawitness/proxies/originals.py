"""The engine's own methods, whether or not they are replaced: how our code calls past itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["OBSERVED", "original"]

OBSERVED = "_deltawitness_original"
"""Attribute of an observing function: the function that it stands for."""


def original(instance: Any, name: str) -> Callable[..., Any]:
    """Return the bound method of that name as the engine, or a subclass of it, defines it."""
    method = getattr(instance, name)
    function = getattr(method, OBSERVED, None)
    return method if function is None else function.__get__(instance)  # type: ignore[no-any-return]  # a function binds to a method
