"""Handling of deltawitness's own errors: count them, log each kind once, never raise them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar, TypeVarTuple

from deltawitness.forks import reset_in_child
from deltawitness.redaction import redact_text

__all__ = ["call_guarded", "guard", "guarded_value", "on_internal_error", "report"]

T = TypeVar("T")
Args = TypeVarTuple("Args")

_log = logging.getLogger("deltawitness")
_lock = threading.Lock()
reset_in_child("_lock", globals(), threading.Lock)
_counts: Counter[tuple[str, str]] = Counter()
_listener: Callable[[str], None] | None = None


def report(component: str, error: BaseException) -> None:
    """Count and log an error of deltawitness. The observed write is unaffected.

    Args:
        component: the component in which the error occurred, from a closed set.
        error: the error. Its redacted text is logged once per component and class.
    """
    kind = component, type(error).__qualname__
    with _lock:
        _counts[kind] += 1
        first = _counts[kind] == 1
    if _listener is not None:
        _listener(component)
    if first:
        _log.warning("%s failed with %s: %s", *kind, redact_text(str(error)))


def guarded_value(component: str, gather: Callable[[], T], otherwise: T) -> T:
    """Return the result of `gather()`; if it raises, report the error and return `otherwise`.

    Args:
        component: the component to report the error for.
        gather: computes one value of an event; may raise anything.
        otherwise: value of the event if `gather` raises.
    """
    try:
        return gather()
    except Exception as error:  # noqa: BLE001 - an event without one value is better than no event
        report(component, error)
        return otherwise


class guard:  # noqa: N801 - used like a function, as contextlib.suppress is
    """Report an exception of the block instead of raising it in the program.

    Only an `Exception` is reported: an interrupt or an exit of the program propagates.

    Args:
        component: the component to report the error for.

    >>> with guard("seam"):
    ...     pass
    """

    # A generator-based context manager takes four times as long, and guards are on the path of writes.

    __slots__ = ("_component",)

    def __init__(self, component: str) -> None:
        self._component = component

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, Exception):
            report(self._component, error)
            return True
        return False


def call_guarded(component: str, act: Callable[[*Args], object], *args: *Args) -> None:
    """Call `act(*args)`; if it raises, report the error: `guard` for one call, in less time.

    Args:
        component: the component to report the error for.
        act: the function.
        args: its arguments.
    """
    try:
        act(*args)
    except Exception as error:  # noqa: BLE001 - telemetry never changes the program
        report(component, error)


def on_internal_error(listener: Callable[[str], None] | None) -> None:
    """Set the function that is called with the component of each error. Metrics count errors by it."""
    global _listener  # noqa: PLW0603 - one counter per process
    _listener = listener


def error_counts() -> dict[tuple[str, str], int]:
    """Return the number of errors by component and class name. For tests."""
    with _lock:
        return dict(_counts)


def reset_counts() -> None:
    """Reset the counts, so that the next error of each kind is logged. For tests."""
    with _lock:
        _counts.clear()
