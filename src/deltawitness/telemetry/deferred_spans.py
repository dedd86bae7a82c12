"""Spans whose ids are generated when a write starts, and which are created after it has ended.

A commit carries the id of its write's span, so the id must exist before the engine is called. The span
itself, which costs more than the rest of the observation of a write, can wait. Where the sampler's
decision is predictable, the span is created later, with the same ids, start time and parent.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

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
    """A placeholder for a span that is created later: it has the span context and nothing else."""


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

    def reserve(self, parent: SpanContext) -> DeferredSpan | None:
        """Return a placeholder with the context of the later span; None for an unsampled parent."""
        if not parent.trace_id:
            flags = TraceFlags.SAMPLED
            is_random = getattr(self._ids, "is_trace_id_random", None)  # an older SDK lacks it
            if is_random is not None and is_random():
                flags |= TraceFlags.RANDOM_TRACE_ID
            trace_id = self._ids.generate_trace_id()
        elif parent.trace_flags & TraceFlags.SAMPLED:
            flags, trace_id = parent.trace_flags, parent.trace_id
        else:
            return None
        context = SpanContext(
            trace_id,
            self._ids.generate_span_id(),
            is_remote=False,
            trace_flags=TraceFlags(flags),
            trace_state=parent.trace_state,
        )
        return DeferredSpan(context)

    def tracer_for(self, span: DeferredSpan) -> Tracer:
        """Return a tracer whose next span has the reserved context; for one thread at a time."""
        self._reserved.context = span.get_span_context()
        tracer: Tracer = self._later
        return tracer
