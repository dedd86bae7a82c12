"""Spans whose ids are generated when a write starts, and which are created after it has ended.

A commit carries the id of its write's span, so the id must exist before the engine is called. The span
itself, which costs more than the rest of the observation of a write, can wait. Where the sampler's
decision is predictable, the span is created later, with the same ids, start time and parent.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, get_current_span

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer, TraceState

__all__ = ["DeferredSpan", "DeferredSpans"]

_PREDICTABLE = frozenset(
    {
        "AlwaysOnSampler",
        (
            "ParentBased{root:AlwaysOnSampler,remoteParentSampled:AlwaysOnSampler,"
            "remoteParentNotSampled:AlwaysOffSampler,localParentSampled:AlwaysOnSampler,"
            "localParentNotSampled:AlwaysOffSampler}"
        ),
    }
)
"""Samplers, by their description, that sample a root span and the child of a sampled one."""


class DeferredSpan(NonRecordingSpan):
    """A placeholder for a span that is created later: it has the span context and nothing else.

    The span context is created at its first use, which is after the write.

    Args:
        trace_id: the trace id.
        span_id: the span id.
        flags: the trace flags.
        trace_state: the trace state of the parent; None for a root span.

    Attributes:
        traceparent: the W3C `traceparent` of the span.
    """

    def __init__(
        self, trace_id: int, span_id: int, flags: int, trace_state: TraceState | None
    ) -> None:
        # Not super().__init__(): the property below takes the place of its only attribute.
        self._ids = trace_id, span_id, flags, trace_state
        self.traceparent: str = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"

    def get_span_context(self) -> SpanContext:
        """Return the reserved span context."""
        return self._context

    @cached_property
    def _context(self) -> SpanContext:  # type: ignore[override]  # an attribute there
        trace_id, span_id, flags, trace_state = self._ids
        return SpanContext(
            trace_id,
            span_id,
            is_remote=False,
            trace_flags=TraceFlags(flags),
            trace_state=trace_state,
        )


class _ReservedIds:
    """An id generator that returns the ids of a reserved span context."""

    def __init__(self) -> None:
        self.context = SpanContext(0, 0, is_remote=False)

    def generate_span_id(self) -> int:
        return self.context.span_id

    def generate_trace_id(self) -> int:
        return self.context.trace_id

    def is_trace_id_random(self) -> bool:
        return bool(self.context.trace_flags & TraceFlags.RANDOM_TRACE_ID)


class DeferredSpans:
    """Reserves span contexts of one SDK tracer, for spans that are created later.

    Args:
        tracer: a tracer of the SDK.
    """

    def __init__(self, tracer: Any) -> None:
        self._ids = tracer.id_generator
        self._root_flags: int = TraceFlags.SAMPLED
        is_random = getattr(self._ids, "is_trace_id_random", None)  # an older SDK lacks it
        if is_random is not None and is_random():
            self._root_flags |= TraceFlags.RANDOM_TRACE_ID
        self._reserved = _ReservedIds()
        # A copy, so that the id generator of the program's tracer stays.
        self._later = copy.copy(tracer)
        self._later.id_generator = self._reserved

    @staticmethod
    def are_possible(tracer: object) -> bool:
        """Return whether the tracer is one of the SDK with a sampler whose decisions are predictable."""
        sampler = getattr(tracer, "sampler", None)
        return (
            hasattr(tracer, "id_generator")
            and sampler is not None
            and sampler.get_description() in _PREDICTABLE
        )

    def reserve(self, context: Context) -> DeferredSpan | None:
        """Return a placeholder with the span context of the later span; None for an unsampled parent.

        Args:
            context: the context with the parent of the span, if it has one.
        """
        ids = self._ids
        if context:
            parent = get_current_span(context).get_span_context()
            if parent.trace_id:
                flags = parent.trace_flags
                if not flags & TraceFlags.SAMPLED:
                    return None
                span_id = ids.generate_span_id()
                return DeferredSpan(parent.trace_id, span_id, flags, parent.trace_state)
        trace_id = ids.generate_trace_id()
        return DeferredSpan(trace_id, ids.generate_span_id(), self._root_flags, None)

    def tracer_for(self, span: DeferredSpan) -> Tracer:
        """Return a tracer whose next span has the reserved context; for one thread at a time."""
        self._reserved.context = span.get_span_context()
        tracer: Tracer = self._later
        return tracer
