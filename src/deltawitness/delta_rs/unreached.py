"""Record writes that end before the engine is called: refused, skipped, or with an unreadable source.

No seam sees such a write. It is recorded as one event all the same: as failed and not committed, or as
skipped because the table exists and the mode is `ignore`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.events import Landed, NoCommitReason
from deltawitness.locations import is_uri
from deltawitness.observe.write_context import NO_ATTRIBUTES, current_write_context
from deltawitness.observe.write_template import write_intent
from deltawitness.observe.write_watch import record_write
from deltawitness.semconv import CacheOperation, Operation

if TYPE_CHECKING:
    from deltawitness.observe import Observer
    from deltawitness.observe.in_flight import InFlightWrite

__all__ = ["UnreachedWrite", "location_of"]


@dataclass(frozen=True, slots=True)
class UnreachedWrite:
    """A write that did not reach the engine.

    Attributes:
        operation: the operation.
        cache_operation: the same operation in terms of the cache.
        location: the table's location; None when it is not known.
        mode: save mode.
        named: the table's name in its metadata.
        clock: `time.perf_counter_ns()` at its start.
    """

    operation: Operation
    cache_operation: CacheOperation
    location: str | None
    mode: str | None
    named: str | None
    clock: int

    @classmethod
    def of(
        cls, operation: Operation, target: object, table: object, mode: object, clock: int
    ) -> UnreachedWrite:
        """Return the write from a program's arguments, any of which may be invalid.

        Args:
            operation: the operation.
            target: a location or an open table.
            table: the open table, if there is one.
            mode: save mode.
            clock: `time.perf_counter_ns()` at its start.
        """
        valid_mode = mode if isinstance(mode, str) else None
        cache_operation = CacheOperation(operation.value.lower())
        return cls(
            operation, cache_operation, location_of(target), valid_mode, _name_of(table), clock
        )

    def record_failure(self, observer: Observer, error: BaseException) -> None:
        """Deliver the write as one that raised and did not commit."""
        write = self._begin(observer)
        write.landed = Landed.NO
        observer.fail(write, error)

    def record_skip(self, observer: Observer, reason: NoCommitReason) -> None:
        """Deliver the write as one that made no commit."""
        write = self._begin(observer)
        write.no_commit_reason = reason
        observer.finish(write, None, table=None)

    def _begin(self, observer: Observer) -> InFlightWrite:
        context = current_write_context()
        write = observer.begin(
            write_intent(
                observer.settings,
                NO_ATTRIBUTES if context is None else context.attributes,
                self.operation,
                self.cache_operation,
                self.location,
                named=self.named,
                mode=self.mode,
            )
        )
        if context is not None:
            context.observed += 1
        write.location = self.location
        write.started_at -= write.clock - self.clock
        write.clock = self.clock
        record_write(write)
        observer.enter(write)
        return write


def location_of(target: object) -> str | None:
    """Return the location of a write's target: a URI, a path or an open table; None for anything else."""
    if isinstance(target, str | Path):
        location = str(target)
        # Absolute, because the program may have changed its directory when the event is made.
        return location if is_uri(location) else os.path.abspath(location)  # noqa: PTH100 - text, not a file
    found = getattr(target, "table_uri", None)
    return found if isinstance(found, str) else None


def _name_of(target: object) -> str | None:
    """Return the name in the metadata of an open table; None for anything else."""
    try:
        name = target.metadata().name  # type: ignore[attr-defined]  # an open table has it
    except Exception:  # noqa: BLE001 - a program may pass anything as the table
        return None
    return name if isinstance(name, str) else None
