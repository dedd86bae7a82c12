"""What is known of a source of rows that a program passes to delta-rs itself.

delta-rs is observed without DataFusion. A session registers the function that recognizes its frames,
so that a write of a frame has the plan, the inputs and the operator metrics of that frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, Protocol

from deltawitness.observe.write_context import WriteAttributes

if TYPE_CHECKING:
    from deltawitness.observe import Observer

__all__ = [
    "KnownSource",
    "SourceMetrics",
    "current_source_metrics",
    "known_source",
    "measuring",
    "recognize_sources",
]


class SourceMetrics(Protocol):
    """Measures the operators of one source while the engine reads it."""

    def record(self, observer: Observer) -> None:
        """Record the metrics as a diagnostics artifact; never raises."""


class KnownSource(NamedTuple):
    """What is known of a source that a program passes to delta-rs.

    Attributes:
        attributes: the attributes of the write.
        metrics: measures the source's operators; None without `capture_plan_metrics`.
    """

    attributes: WriteAttributes
    metrics: SourceMetrics | None


Recognizer = Callable[[object], KnownSource | None]

_recognizers: list[Recognizer] = []


def recognize_sources(recognizer: Recognizer) -> None:
    """Ask a function about each source from now on.

    Args:
        recognizer: returns what it knows of a source, None for a source of others; never raises.
    """
    _recognizers.append(recognizer)


def known_source(source: object) -> KnownSource | None:
    """Return what is known of a source that a program passes to delta-rs; None for foreign rows.

    Args:
        source: anything that delta-rs accepts.
    """
    for recognizer in _recognizers:
        known = recognizer(source)
        if known is not None:
            return known
    return None


_measuring: ContextVar[SourceMetrics | None] = ContextVar(
    "deltawitness_measuring_a_source", default=None
)


def current_source_metrics() -> SourceMetrics | None:
    """Return what measures the frame that is exported here and now; None outside of :func:`measuring`."""
    return _measuring.get()


@contextmanager
def measuring(metrics: SourceMetrics | None) -> Iterator[None]:
    """Measure the frame that is exported inside the block.

    Args:
        metrics: of the frame; None measures nothing.
    """
    token = _measuring.set(metrics)
    try:
        yield
    finally:
        _measuring.reset(token)
