"""Counts of the failed and slow writes of open runs, for the span of each run.

A tail sampler decides once for a trace, and the span of a long run ends hours after the decision. With the
counts on the run's span, a Collector can export the span of each run in which a write failed or was slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltawitness.events import Failed
from deltawitness.semconv import RUN_FAILED_WRITES, RUN_SLOWEST_WRITE

if TYPE_CHECKING:
    from deltawitness.events import WriteEvent
    from deltawitness.run_context import RunContext
    from deltawitness.telemetry.attributes import AttributeValue

__all__ = ["RunWrites", "WritesOfRuns"]


class RunWrites:
    """The counts of one run, and of the runs inside it.

    Args:
        enclosing: the counts of the run that encloses it, if that is open in this process.
    """

    __slots__ = ("_enclosing", "failed", "openings", "slowest_ns")

    def __init__(self, enclosing: RunWrites | None = None) -> None:
        self._enclosing = enclosing
        self.failed: int = 0
        self.slowest_ns: int = 0
        self.openings: int = 0

    def add(self, *, has_failed: bool, duration_ns: int) -> None:
        """Count a write, also for the enclosing runs; only the thread that delivers writes calls this."""
        counts: RunWrites | None = self
        while counts is not None:
            counts.failed += has_failed
            counts.slowest_ns = max(counts.slowest_ns, duration_ns)
            counts = counts._enclosing  # noqa: SLF001 - of the same class

    def attributes(self) -> dict[str, AttributeValue]:
        """Return the attributes of the run's span; none when no write was observed."""
        attributes: dict[str, AttributeValue] = {}
        if self.slowest_ns:
            attributes[RUN_SLOWEST_WRITE] = self.slowest_ns / 1e9
        if self.failed:
            attributes[RUN_FAILED_WRITES] = self.failed
        return attributes


class WritesOfRuns:
    """The counts of the runs that are open in this process, by run id."""

    def __init__(self) -> None:
        self._counts: dict[str, RunWrites] = {}

    def run_started(self, run: RunContext) -> RunWrites:
        """Return the counts of a run: new ones, or those of an open run with the same id."""
        counts = self._counts.get(run.run_id)
        if counts is None:
            counts = RunWrites(self._counts.get(run.parent_run_id or ""))
            self._counts[run.run_id] = counts
        counts.openings += 1
        return counts

    def write_ended(self, event: WriteEvent) -> None:
        """Count a write of an open run; a write of another run is not counted."""
        counts = self._counts.get(event.run.run_id)
        if counts is not None:
            counts.add(has_failed=isinstance(event.outcome, Failed), duration_ns=event.duration_ns)

    def run_ended(self, run: RunContext) -> None:
        """Forget the counts of a run when it is no longer open."""
        counts = self._counts.get(run.run_id)
        if counts is not None:
            counts.openings -= 1
            if counts.openings <= 0:
                del self._counts[run.run_id]
