"""Attributes and operator metrics of a source of rows that a program passes to delta-rs itself.

This package does not depend on DataFusion. So a session registers a function that recognizes its
frames, and a write of a frame gets the plan, the inputs and the operator metrics of that frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from deltawitness.column_sources import WriteColumns
from deltawitness.observe.row_counter import RowCounter, counting_rows
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
    """Measures the operators of one source while the engine reads it.

    Attributes:
        rows: counts the rows that the engine has read.
    """

    rows: RowCounter

    def record(self, observer: Observer) -> None:
        """Record the metrics as a diagnostics artifact; never raises."""


class KnownSource(NamedTuple):
    """Attributes and metrics of a source that a program passes to delta-rs.

    Attributes:
        attributes: the attributes of the write.
        metrics: measures the source's operators; None without `capture_plan_metrics`.
    """

    attributes: WriteAttributes
    metrics: SourceMetrics | None

    def of_merge(self) -> WriteAttributes:
        """Return the attributes of a MERGE of the source: the plan does not show what is assigned."""
        if self.attributes.column_lineage is None:
            return self.attributes
        reason = "the assignments of a MERGE of delta-rs are not in the plan of its source"
        return replace(self.attributes, column_lineage=WriteColumns(reason=reason).to_text())


Recognizer = Callable[[object], KnownSource | None]

_recognizers: list[Recognizer] = []


def recognize_sources(recognizer: Recognizer) -> None:
    """Register a function that is called with each source.

    Args:
        recognizer: returns the attributes and metrics of a source; None for one that it does not
            recognize. It never raises.
    """
    _recognizers.append(recognizer)


def known_source(source: object) -> KnownSource | None:
    """Return the attributes and metrics of a source; None where no recognizer recognizes it.

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


current_source_metrics: Callable[[], SourceMetrics | None] = _measuring.get
"""Return the metrics of the current :func:`measuring` block; None outside of one."""


@contextmanager
def measuring(metrics: SourceMetrics | None) -> Iterator[None]:
    """Measure the operators of a frame that is exported inside the block.

    Args:
        metrics: measures the operators; None measures nothing.
    """
    token = _measuring.set(metrics)
    try:
        with nullcontext() if metrics is None else counting_rows(metrics.rows):
            yield
    finally:
        _measuring.reset(token)
