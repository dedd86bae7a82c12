"""What a proxy around the engine knows of the writes that happen inside it.

A pipeline or a session knows the plan, the policy and the inputs; the seam inside knows the commit.
The outer one leaves its facts here, and the inner one makes the one event of the write with them.
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
    """What is known of a write before it reaches the engine; None is "not known here"."""

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
    """An open proxy call: its facts, and how many writes inside it have been observed."""

    facts: WriteAttributes
    observed: int = field(default=0)


_enclosure: ContextVar[WriteContext | None] = ContextVar("deltawitness_enclosure", default=None)


def current_write_context() -> WriteContext | None:
    """Return the proxy call that the code here and now runs inside of, if any."""
    return _enclosure.get()


@contextmanager
def use_write_context(enclosure: WriteContext | None) -> Iterator[None]:
    """Let the block be inside a proxy call that is open on another thread; inside none for None."""
    token = _enclosure.set(enclosure)
    try:
        yield
    finally:
        _enclosure.reset(token)


@contextmanager
def write_context(facts: WriteAttributes) -> Iterator[WriteContext]:
    """Let the writes inside the block be observed with `facts`; an enclosing block's facts win.

    Yields:
        The enclosure, which tells at the end whether a write inside was observed.
    """
    outer = _enclosure.get()
    if outer is not None:
        yield outer
        return
    enclosure = WriteContext(facts)
    token = _enclosure.set(enclosure)
    try:
        yield enclosure
    finally:
        _enclosure.reset(token)
