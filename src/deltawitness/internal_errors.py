"""Handling of deltawitness's own errors: count them, log each kind once, never raise them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from deltawitness.forks import reset_in_child
from deltawitness.redaction import redact_text

__all__ = ["fact", "on_internal_error", "report"]

T = TypeVar("T")

_log = logging.getLogger("deltawitness")
_lock = threading.Lock()
reset_in_child("_lock", globals(), threading.Lock)
_seen: Counter[tuple[str, str]] = Counter()
_listener: Callable[[str], None] | None = None


def report(component: str, error: BaseException) -> None:
    """Count and log an error of deltawitness. The observed write is unaffected.

    Args:
        component: the component in which the error occurred, from a closed set.
        error: the error. Its redacted text is logged once per component and class.
    """
    kind = component, type(error).__qualname__
    with _lock:
        _seen[kind] += 1
        first = _seen[kind] == 1
    if _listener is not None:
        _listener(component)
    if first:
        _log.warning("%s failed with %s: %s", *kind, redact_text(str(error)))


def fact(component: str, gather: Callable[[], T], otherwise: T) -> T:
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


def on_internal_error(listener: Callable[[str], None] | None) -> None:
    """Set the function that is called with the component of each error. Metrics count errors by it."""
    global _listener  # noqa: PLW0603 - one counter per process
    _listener = listener


def seen() -> dict[tuple[str, str], int]:
    """Return the number of errors by component and class name. For tests."""
    with _lock:
        return dict(_seen)


def forget() -> None:
    """Reset the counts, so that the next error of each kind is logged. For tests."""
    with _lock:
        _seen.clear()
