"""The current run, cache context and trace context of a thread, to call functions in another thread with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from deltawitness.app_transactions import BlockState, active_block, use_block
from deltawitness.observe.receipts import ReceiptBlock, active_receipts, use_receipts
from deltawitness.observe.write_context import (
    WriteContext,
    current_write_context,
    use_write_context,
)
from deltawitness.run import Ambient

__all__ = ["CallerContext"]


@dataclass(frozen=True, slots=True)
class CallerContext:
    """The context of a caller that its writes depend on.

    Attributes:
        ambient: the run, the cache context, and whether writes are suppressed.
        write_context: the active call of a session; None outside such a call.
        trace: OpenTelemetry's context.
        once: the `once` block. Its writes raise OnceError in another thread.
        receipts: the innermost open `receipts()` block; None outside of any.
    """

    ambient: Ambient
    write_context: WriteContext | None
    trace: Context
    once: BlockState | None = None
    receipts: ReceiptBlock | None = None

    @classmethod
    def current(cls) -> Self:
        """Return the context of the calling thread."""
        return cls(
            Ambient.current(),
            current_write_context(),
            otel_context.get_current(),
            active_block(),
            active_receipts(),
        )

    @property
    def is_empty(self) -> bool:
        """Whether all values are the defaults, as in a new thread."""
        return (
            self.ambient.is_empty
            and self.write_context is None
            and not self.trace
            and self.once is None
            and self.receipts is None
        )

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that calls `function` in this context."""

        def bound(*args: Any, **kwargs: Any) -> Any:
            with self.active():
                return function(*args, **kwargs)

        return bound

    @contextmanager
    def active(self) -> Iterator[None]:
        """Set this context for the block, and reset it at the end."""
        token = otel_context.attach(self.trace)
        try:
            with (
                self.ambient.active(),
                use_write_context(self.write_context),
                use_block(self.once),
                use_receipts(self.receipts),
            ):
                yield
        finally:
            otel_context.detach(token)
