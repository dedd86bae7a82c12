"""The one place where errors of our own end: counted, logged once per kind, never raised."""

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
    """Take note of an error of ours; the write that it happened beside is unaffected.

    Args:
        component: which part it happened in, from a closed set.
        error: what happened; only its redacted text is logged, once per component and class.
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
    """Return one fact of an event; where it cannot be had, report the error and go on without it.

    Args:
        component: which part the fact belongs to.
        gather: returns the fact; may raise anything.
        otherwise: stands for a fact that cannot be had.
    """
    try:
        return gather()
    except Exception as error:  # noqa: BLE001 - the event is worth more than any of its facts
        report(component, error)
        return otherwise


def on_internal_error(listener: Callable[[str], None] | None) -> None:
    """Have `listener` told the component of each error: how metrics come to count them."""
    global _listener  # noqa: PLW0603 - one counter per process
    _listener = listener


def seen() -> dict[tuple[str, str], int]:
    """Return how often which component failed with which class of error; for tests."""
    with _lock:
        return dict(_seen)


def forget() -> None:
    """Start counting and logging anew; for tests."""
    with _lock:
        _seen.clear()
