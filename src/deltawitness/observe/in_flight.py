"""A write under way: as little as the event can later be made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from deltawitness.commit.log import CommitLog
    from deltawitness.commit.outcome import RawCommit
    from deltawitness.commit.private_api import Seam
    from deltawitness.events import (
        CommitMetrics,
        Failed,
        Landed,
        NoCommitReason,
        WriteEvent,
        WriteIntent,
    )
    from deltawitness.ledger.spool.writer import Segment
    from deltawitness.observe.write_template import WriteTemplate
    from deltawitness.run import RunContext

__all__ = ["InFlightWrite"]


class InFlightWrite:
    """What the caller's thread notes down; the delivery thread reads it after that.

    Most of it stays at its default on the class: a write pays for what it sets.

    Attributes:
        seam: where the write was seen; None when it never reached the engine.
        prepared: what is the same for all such writes.
        intent: what was meant.
        run: the run that it belongs to.
        write_id: its id, also in the commit.
        commit_write_id: what tells its commits from others: the write id, unless the caller set that key.
        span: its span, still open.
        parent: the OpenTelemetry context that the span was opened in.
        storage_options: how the location is opened, when it was not through an open table.
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
        landed: whether the commit of a write that failed is in the log, when that is known beforehand.
        no_commit_reason: why there can be no commit, when that is known beforehand.
        exported: counts what was written outside Delta, on the delivery thread.
        schema: the Arrow schema that is written, still to be hashed.
        call: instance, arguments and ambient context for hooks, kept only when there are hooks.
        response: what the engine returned, likewise.
        segment: where in the spool its note is, if it is there.
        event: the finished record.
        redacted: the same, fit to leave the process.
    """

    seam: Seam | None = None
    prepared: WriteTemplate
    intent: WriteIntent
    run: RunContext
    write_id: str
    commit_write_id: str
    span: Span
    parent: Context
    location: str | None = None
    storage_options: dict[str, str] | None = None
    started_at: int
    clock: int
    duration_ns: int = 0
    thread: str
    base: int | None = None
    version: int | None = None
    commit: RawCommit | None = None
    log: CommitLog | None = None
    returned: str | None = None
    files_deleted: int | None = None
    failure: Failed | None = None
    landed: Landed | None = None
    no_commit_reason: NoCommitReason | None = None
    exported: Callable[[], CommitMetrics] | None = None
    schema: object | None = None
    call: tuple[Any, tuple[Any, ...], dict[str, Any], contextvars.Context] | None = None
    response: object = None
    segment: Segment | None = None
    event: WriteEvent | None = None
    redacted: WriteEvent | None = None
