"""A write under way: as little as the event can later be made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import contextvars

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from deltawitness.commit.log import CommitLog
    from deltawitness.commit.outcome import RawCommit
    from deltawitness.commit.seams import Seam
    from deltawitness.events import Failed, NoCommitReason, WriteEvent, WriteIntent
    from deltawitness.run import RunContext

__all__ = ["Observation"]


class Observation:
    """What the caller's thread notes down; the delivery thread reads it after that.

    Attributes:
        seam: where the write was seen; None when it never reached the engine.
        intent: what was meant.
        run: the run that it belongs to.
        write_id: its id, also in the commit.
        span: its span, still open.
        context: the OpenTelemetry context in which that span is the current one.
        location: the table's location as the engine names it, credentials and all.
        started_at: nanoseconds since the Unix epoch.
        clock: monotonic nanoseconds at the start.
        duration_ns: how long the engine's call took.
        thread: name of the calling thread.
        base: the table's version before the call, when that is known without asking.
        version: the table's version after the call, likewise.
        commit: the commit that was read on the way, when that was cheap.
        log: where to look for more.
        returned: the engine's own metrics.
        files_deleted: how many files a VACUUM says it deleted.
        failure: what the engine raised; `landed` is still to be told.
        idle: why there can be no commit, when that is known beforehand.
        schema: the Arrow schema that is written, still to be hashed.
        call: instance, arguments and ambient context for hooks, kept only when there are hooks.
        response: what the engine returned, likewise.
        event: the finished record.
        told: the same, fit to leave the process.
    """

    __slots__ = (
        "base",
        "call",
        "clock",
        "commit",
        "context",
        "duration_ns",
        "event",
        "failure",
        "files_deleted",
        "idle",
        "intent",
        "location",
        "log",
        "response",
        "returned",
        "run",
        "schema",
        "seam",
        "span",
        "started_at",
        "thread",
        "told",
        "version",
        "write_id",
    )

    seam: Seam | None
    intent: WriteIntent
    run: RunContext
    write_id: str
    span: Span
    context: Context
    location: str | None
    started_at: int
    clock: int
    duration_ns: int
    thread: str
    base: int | None
    version: int | None
    commit: RawCommit | None
    log: CommitLog | None
    returned: str | None
    files_deleted: int | None
    failure: Failed | None
    idle: NoCommitReason | None
    schema: object | None
    call: tuple[Any, tuple[Any, ...], dict[str, Any], contextvars.Context] | None
    response: object
    event: WriteEvent | None
    told: WriteEvent | None

    def __init__(self, intent: WriteIntent, run: RunContext, write_id: str) -> None:
        self.seam = None
        self.intent = intent
        self.run = run
        self.write_id = write_id
        self.location = None
        self.duration_ns = 0
        self.base = None
        self.version = None
        self.commit = None
        self.log = None
        self.returned = None
        self.files_deleted = None
        self.failure = None
        self.idle = None
        self.schema = None
        self.call = None
        self.response = None
        self.event = None
        self.told = None
