"""Spans whose ids are given out while a write starts, and which are made after it has ended.

A commit carries its span's id, so the id must be there before the engine starts; the span itself,
which costs a write more than all else we do for it, need not. Where the sampler's decision is known
beforehand, the span is made later, with the ids, the start time and the parent of then.
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
    """Stands for a span that will be made later: it has the context, and keeps nothing else."""


class _GivenIds:
    """An id generator that gives out what was reserved."""

    def __init__(self) -> None:
        self.context = SpanContext(0, 0, is_remote=False)

    def generate_span_id(self) -> int:
        return self.context.span_id

    def generate_trace_id(self) -> int:
        return self.context.trace_id

    def is_trace_id_random(self) -> bool:
        return bool(self.context.trace_flags & TraceFlags.RANDOM_TRACE_ID)


class DeferredSpans:
    """Reserves span contexts of one SDK tracer, and gives them to the spans made later.

    Args:
        tracer: a tracer of the SDK.
    """

    def __init__(self, tracer: Any) -> None:
        self._ids = tracer.id_generator
        self._given = _GivenIds()
        # A tracer of our own: the program's keeps its ids.
        self._later = copy.copy(tracer)
        self._later.id_generator = self._given

    @staticmethod
    def are_possible(tracer: object) -> bool:
        """Tell whether the tracer is the SDK's and its sampler's decisions are known beforehand."""
        sampler = getattr(tracer, "sampler", None)
        return (
            hasattr(tracer, "id_generator")
            and sampler is not None
            and sampler.get_description() in _PREDICTABLE
        )

    def reserve(self, parent: SpanContext) -> DeferredSpan | None:
        """Return a stand-in with the context that the span will have; None for an unsampled parent."""
        if not parent.trace_id:
            flags = TraceFlags.SAMPLED
            if self._ids.is_trace_id_random():
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
        self._given.context = span.get_span_context()
        tracer: Tracer = self._later
        return tracer
