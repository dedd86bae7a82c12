"""What is current in a thread, and functions that are called with it in another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from deltawitness.observe.write_context import (
    WriteContext,
    current_write_context,
    use_write_context,
)
from deltawitness.run import Ambient

__all__ = ["CallerContext"]


@dataclass(frozen=True, slots=True)
class CallerContext:
    """What a write takes from where it is made.

    Attributes:
        ambient: the run, the cache context, and whether writes are suppressed.
        enclosure: the call of a session that is under way.
        trace: OpenTelemetry's context.
    """

    ambient: Ambient
    enclosure: WriteContext | None
    trace: Context

    @classmethod
    def current(cls) -> Self:
        """Return those of here and now."""
        return cls(Ambient.current(), current_write_context(), otel_context.get_current())

    @property
    def is_empty(self) -> bool:
        """Whether they are those of a new thread."""
        return self.ambient.is_empty and self.enclosure is None and not self.trace

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function so that each call of it runs in these surroundings."""

        def bound(*args: Any, **kwargs: Any) -> Any:
            with self.active():
                return function(*args, **kwargs)

        return bound

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make them those of the block, whatever the thread was started in."""
        token = otel_context.attach(self.trace)
        try:
            with self.ambient.active(), use_write_context(self.enclosure):
                yield
        finally:
            otel_context.detach(token)
