"""Pass what an outer call knows of a write to the patched engine call inside it.

A pipeline or a session knows the plan, the policy and the inputs of a write; the patched delta-rs call
inside knows the commit. The outer call sets a write context, and the inner call makes the one event of
the write with the attributes in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from deltawitness.events import InputVersion
from deltawitness.semconv import CacheScope

__all__ = [
    "WriteAttributes",
    "WriteContext",
    "current_write_context",
    "use_write_context",
    "write_context",
]


@dataclass(frozen=True, slots=True)
class WriteAttributes:
    """Attributes of a write that an outer call knows before the engine is called; None if unknown."""

    policy: str | None = None
    scope: CacheScope | None = None
    cache_key: str | None = None
    schema_hash: str | None = None
    plan_hash: str | None = None
    plan_shape_hash: str | None = None
    inputs: tuple[InputVersion, ...] = ()


NO_ATTRIBUTES = WriteAttributes()


@dataclass(slots=True)
class WriteContext:
    """An outer call in progress.

    Attributes:
        facts: what the call knows of the writes inside it.
        observed: number of writes inside it that have been observed so far.
    """

    facts: WriteAttributes
    observed: int = field(default=0)


_current: ContextVar[WriteContext | None] = ContextVar("deltawitness_write_context", default=None)


def current_write_context() -> WriteContext | None:
    """Return the write context of the calling code; None outside of any."""
    return _current.get()


@contextmanager
def use_write_context(context: WriteContext | None) -> Iterator[None]:
    """Run the block in a write context that was opened on another thread; in none for None."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def write_context(facts: WriteAttributes) -> Iterator[WriteContext]:
    """Observe the writes inside the block with `facts`, unless the block is in a write context already.

    Yields:
        The write context in force, whose `observed` counts the writes inside.
    """
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    context = WriteContext(facts)
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
