"""Observe a public function of delta-rs from its first line to its last, by replacing its code object.

A seam inside cannot see what the Python code of delta-rs does before it calls the engine. The function
object itself cannot be replaced, because programs have imported it by name. Its code object can: Python
looks it up at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

__all__ = ["observe_whole_calls"]

Call = Callable[..., Any]


_PLACEHOLDER = "deltawitness"

_EXCHANGED = "_deltawitness_restore"
"""Attribute of a function whose code is replaced: the callable that restores it."""


def _call(*args: Any, **kwargs: Any) -> Any:
    # The constant is replaced by a callable. With a global of the function's module instead, a thread
    # between the first line and the look-up would fail when the code is restored.
    observed: Any = "deltawitness"
    return observed(*args, **kwargs)


def observe_whole_calls(function: Any, observing: Callable[[Call], Call]) -> Callable[[], None]:
    """Route each call of a function through another callable, without replacing the function object.

    Nothing is done for a callable that is not a plain Python function, or that is a closure.

    Args:
        function: the function.
        observing: takes a copy of the original function and returns the other callable.

    Returns:
        A callable that restores the function's code.
    """
    if not isinstance(function, FunctionType) or function.__closure__ is not None:
        return lambda: None
    if (exchanged := vars(function).get(_EXCHANGED)) is not None:
        exchanged()  # it is replaced already: a call would be observed twice
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
    function.__wrapped__ = original  # type: ignore[attr-defined]  # for inspect: signature and source

    def restore() -> None:
        if vars(function).get(_EXCHANGED) is not restore:
            return  # it was replaced again since, or restored
        function.__code__ = code
        vars(function).clear()
        vars(function).update(attributes)

    setattr(function, _EXCHANGED, restore)
    return restore
