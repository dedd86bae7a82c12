"""The events file: each process of a program appends a JSON line per write, for the run's summary."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from deltawitness.events import Committed, Failed, WriteEvent
from deltawitness.local_files import BINARY

__all__ = ["EventLine", "EventsFile", "read_events"]


@dataclass(frozen=True, slots=True)
class EventLine:
    """The fields of one write that a summary needs. They contain no paths and no secrets."""

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
    landed: str | None = None
    message: str | None = None
    exception_type: str | None = None

    @classmethod
    def of(cls, event: WriteEvent) -> EventLine:
        """Return the line of an event, which must be redacted."""
        outcome = event.outcome
        failed = outcome if isinstance(outcome, Failed) else None
        return cls(
            operation=event.intent.operation.value,
            table=event.intent.table_name,
            table_id=event.table_id,
            result=event.result.value,
            versions=outcome.versions if isinstance(outcome, Committed | Failed) else (),
            metrics=outcome.metrics.known(),
            error_type=failed.error_type.value if failed else None,
            started_at=event.started_at,
            duration_ns=event.duration_ns,
            run_id=event.run.run_id,
            job=event.run.job,
            trace_id=event.trace_id,
            span_id=event.span_id,
            pid=event.pid,
            mode=event.intent.mode,
            landed=failed.landed.value if failed else None,
            message=failed.message if failed else None,
            exception_type=failed.exception_type if failed else None,
        )


class EventsFile:
    """A sink that appends each write to a file as a line of JSON, with one `write()` per line.

    Args:
        path: the file. It is opened for each line, so that forked children share no file position.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path

    def __call__(self, event: WriteEvent) -> None:
        """Append the line of an event, which must be redacted."""
        line = json.dumps(asdict(EventLine.of(event)), separators=(",", ":")) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | BINARY, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read_events(path: str | os.PathLike[str]) -> Iterator[EventLine]:
    """Yield the lines of an events file; skip a line that a dying process left incomplete."""
    with Path(path).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                values = json.loads(line)
                yield EventLine(**{**values, "versions": tuple(values["versions"])})
            except (ValueError, TypeError, KeyError):
                continue
