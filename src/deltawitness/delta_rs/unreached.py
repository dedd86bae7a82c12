"""Writes that end before the engine is given them: refused, skipped, or without a source to read.

No seam sees them. Who asks why a write is missing finds it all the same: it is one event, that it
failed and did not land, or that there was a table and the mode was `ignore`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.events import Landed, NoCommitReason
from deltawitness.observe.write_context import NO_ATTRIBUTES, current_write_context
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
        operation: what it was to do.
        cache_operation: the same in the cache layer's words.
        location: where to, as far as it is known.
        mode: save mode.
        named: the table's name in its metadata.
        clock: `time.perf_counter_ns()` when it began.
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
        """Return the write from what a program has given: anything may be wrong with it.

        Args:
            operation: what it was to do.
            target: a location or an open table.
            table: the open table, if there is one.
            mode: save mode.
            clock: `time.perf_counter_ns()` when it began.
        """
        said = mode if isinstance(mode, str) else None
        meaning = CacheOperation(operation.value.lower())
        return cls(operation, meaning, location_of(target), said, _name_of(table), clock)

    def record_failure(self, observer: Observer, error: BaseException) -> None:
        """Have the write delivered as one that raised, and did not land."""
        write = self._begin(observer)
        write.landed = Landed.NO
        observer.fail(write, error)

    def record_skip(self, observer: Observer, reason: NoCommitReason) -> None:
        """Have the write delivered as one that made no commit."""
        write = self._begin(observer)
        write.no_commit_reason = reason
        observer.finish(write, None, table=None)

    def _begin(self, observer: Observer) -> InFlightWrite:
        enclosure = current_write_context()
        write = observer.begin(
            observer.intent(
                NO_ATTRIBUTES if enclosure is None else enclosure.facts,
                self.operation,
                self.cache_operation,
                self.location,
                named=self.named,
                mode=self.mode,
            )
        )
        if enclosure is not None:
            enclosure.observed += 1
        write.location = self.location
        write.started_at -= write.clock - self.clock
        write.clock = self.clock
        record_write(write)
        observer.enter(write)
        return write


def location_of(target: object) -> str | None:
    """Return where a write was to go, as the engine is told: by URI, by path or by an open table."""
    if isinstance(target, str | Path):
        location = str(target)
        # The program may be in another directory when the event is made.
        return location if "://" in location else os.path.abspath(location)  # noqa: PTH100 - text, not a file
    found = getattr(target, "table_uri", None)
    return found if isinstance(found, str) else None


def _name_of(target: object) -> str | None:
    """Return the name in the metadata of an open table; None for anything else."""
    try:
        name = target.metadata().name  # type: ignore[attr-defined]  # an open table has it
    except Exception:  # noqa: BLE001 - whatever else a program gives to a write
        return None
    return name if isinstance(name, str) else None
