"""A file that the processes of one program append a line to per write: how a summary sees them all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from deltawitness.events import Committed, Failed, WriteEvent

__all__ = ["EventLine", "EventsFile", "read_events"]


@dataclass(frozen=True, slots=True)
class EventLine:
    """What a summary needs of one write; nothing in it tells a path or a secret."""

    operation: str
    table: str | None
    table_id: str | None
    result: str
    versions: tuple[int, ...]
    metrics: dict[str, int]
    error_type: str | None
    started_at: int
    duration_ns: int
    run_id: str
    job: str
    trace_id: str | None
    span_id: str | None
    pid: int | None
    mode: str | None = None

    @classmethod
    def of(cls, event: WriteEvent) -> EventLine:
        """Return the line of a redacted event."""
        outcome = event.outcome
        versions: tuple[int, ...] = ()
        match outcome:
            case Committed():
                versions = outcome.versions
            case Failed():
                versions = outcome.versions
        return cls(
            operation=event.intent.operation.value,
            table=event.intent.table_name,
            table_id=event.table_id,
            result=event.result.value,
            versions=versions,
            metrics=outcome.metrics.known(),
            error_type=outcome.error_type.value if isinstance(outcome, Failed) else None,
            started_at=event.started_at,
            duration_ns=event.duration_ns,
            run_id=event.run.run_id,
            job=event.run.job,
            trace_id=event.trace_id,
            span_id=event.span_id,
            pid=event.pid,
            mode=event.intent.mode,
        )


class EventsFile:
    """A sink that appends each write as a line of JSON, whole or not at all.

    Args:
        path: the file; it is opened anew for each line, so that a forked child shares no position.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path

    def __call__(self, event: WriteEvent) -> None:
        """Append the line of a redacted event."""
        line = json.dumps(asdict(EventLine.of(event)), separators=(",", ":")) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read_events(path: str | os.PathLike[str]) -> Iterator[EventLine]:
    """Yield the lines of an events file; a line that a dying process left torn is passed over."""
    with Path(path).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                known = json.loads(line)
                yield EventLine(**{**known, "versions": tuple(known["versions"])})
            except (ValueError, TypeError, KeyError):
                continue
