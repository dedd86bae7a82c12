"""Pass the attributes of a write from an outer call to the patched engine call inside it.

Plan, policy and inputs of a write are known in a pipeline or a session; its commit is known in the
patched delta-rs call inside. The outer call sets a write context, and the inner call makes the one event
of the write with the attributes in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
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
    """Attributes of a write that are known before the engine is called; None if unknown.

    `store_plan` stores the plan under the id of the write, on the delivery thread; None stores nothing.
    """

    policy: str | None = None
    scope: CacheScope | None = None
    cache_key: str | None = None
    schema_hash: str | None = None
    plan_hash: str | None = None
    plan_shape_hash: str | None = None
    inputs: tuple[InputVersion, ...] = ()
    parts: int | None = None
    column_lineage: str | None = None
    store_plan: Callable[[str], None] | None = field(default=None, compare=False, repr=False)


NO_ATTRIBUTES = WriteAttributes()


@dataclass(slots=True)
class WriteContext:
    """An outer call in progress.

    Attributes:
        attributes: attributes of the writes inside it.
        observed: number of writes inside it that have been observed so far.
        clock: `time.perf_counter_ns()` at the start of the writes inside it; None where a write starts
            with the call of the engine.
    """

    attributes: WriteAttributes
    observed: int = field(default=0)
    clock: int | None = None


_current: ContextVar[WriteContext | None] = ContextVar("deltawitness_write_context", default=None)


current_write_context: Callable[[], WriteContext | None] = _current.get
"""Return the write context of the calling code; None outside of any. A bound method, as each write calls it."""


@contextmanager
def use_write_context(context: WriteContext | None) -> Iterator[None]:
    """Run the block in a write context that was opened on another thread; in none for None."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


class write_context:  # noqa: N801 - used as a function
    """Observe the writes inside the block with `attributes`, unless the block is in a write context already.

    The `with` statement returns the write context in force, whose `observed` counts the writes inside. A
    generator would take longer, on the path of every write of a pipeline.

    Args:
        attributes: the attributes of the writes.
    """

    __slots__ = ("_attributes", "_token")

    def __init__(self, attributes: WriteAttributes) -> None:
        self._attributes = attributes
        self._token: Token[WriteContext | None] | None = None

    def __enter__(self) -> WriteContext:
        outer = _current.get()
        if outer is not None:
            return outer
        context = WriteContext(self._attributes)
        self._token = _current.set(context)
        return context

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _current.reset(self._token)
