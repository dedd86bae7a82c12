"""A public function of the engine, observed from its first line to its last.

What delta-rs' own Python code does before it calls the engine cannot be seen at an inner seam. The
public function stays the object that it is, because programs have imported it by name: its code is
exchanged, which is looked up when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

__all__ = ["observe_whole_calls"]

Call = Callable[..., Any]


_PLACEHOLDER = "deltawitness"

_EXCHANGED = "_deltawitness_restore"
"""Attribute of a function whose code is exchanged: what puts its own code back."""


def _call(*args: Any, **kwargs: Any) -> Any:
    # The constant is exchanged for a callable. A global of the function's module would be gone for a
    # thread that is between the first line and the look-up when the code is put back.
    return "deltawitness".__call__(*args, **kwargs)  # type: ignore[operator]  # as said


def observe_whole_calls(function: Any, observing: Callable[[Call], Call]) -> Callable[[], None]:
    """Let each call of a function go through another callable.

    A function that is no plain Python function is left as it is.

    Args:
        function: the function.
        observing: returns the other callable; it is given what the function was.

    Returns:
        What puts the function's own code back.
    """
    if not isinstance(function, FunctionType) or function.__closure__ is not None:
        return lambda: None
    if (exchanged := vars(function).get(_EXCHANGED)) is not None:
        exchanged()  # its code is ours already: a call would be observed twice
    code, attributes = function.__code__, dict(vars(function))
    original = FunctionType(code, function.__globals__, function.__name__, function.__defaults__)
    original.__kwdefaults__ = function.__kwdefaults__
    original.__qualname__, original.__doc__ = function.__qualname__, function.__doc__
    original.__annotations__, original.__module__ = function.__annotations__, function.__module__
    observed, template = observing(original), _call.__code__
    constants = (observed if each == _PLACEHOLDER else each for each in template.co_consts)
    function.__code__ = template.replace(
        co_consts=tuple(constants), co_name=code.co_name, co_qualname=code.co_qualname
    )
    function.__wrapped__ = original  # type: ignore[attr-defined]  # its signature and source are these

    def restore() -> None:
        if vars(function).get(_EXCHANGED) is not restore:
            return  # it was exchanged again since, or put back
        function.__code__ = code
        vars(function).clear()
        vars(function).update(attributes)

    setattr(function, _EXCHANGED, restore)
    return restore
