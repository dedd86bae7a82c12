"""The state of one write, from its start to the delivery of its event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from deltawitness.call_site import CallSite
    from deltawitness.commit.log import CommitLog
    from deltawitness.commit.outcome import RawCommit
    from deltawitness.commit.seams import WriteSeam
    from deltawitness.events import (
        CommitMetrics,
        ExpectationReport,
        Failed,
        Landed,
        NoCommitReason,
        WriteEvent,
        WriteIntent,
    )
    from deltawitness.ledger.spool.running import RunningSlot
    from deltawitness.ledger.spool.writer import Segment
    from deltawitness.observe.receipts import PendingReceipt
    from deltawitness.observe.write_template import WriteTemplate
    from deltawitness.run_context import RunContext

__all__ = ["InFlightWrite"]


class InFlightWrite:
    """Set by the caller's thread during the write; read by the delivery thread after it.

    Defaults are on the class, so that a write only pays for the attributes that it sets.

    Attributes:
        seam: the patched callable that saw the write; None when the write did not reach the engine.
        template: what all writes of this kind to this table share.
        intent: what the write means to do.
        run: the run that it belongs to.
        write_id: its id.
        commit_write_id: the write id in its commits: `write_id`, unless the caller set that commit key.
        span: its span, still open.
        parent: the OpenTelemetry context that the span was opened in.
        storage_options: storage options of a write by URI.
        location: the table's location as the engine spells it; may contain credentials.
        started_at: nanoseconds since the Unix epoch.
        clock: `time.perf_counter_ns()` at the start.
        duration_ns: duration of the engine's call.
        begun: `time.perf_counter_ns()` when the observation began.
        entered: the same right before the engine's call; 0 if the engine was not called.
        overhead_ns: nanoseconds that the observation took on the calling thread.
        thread: name of the calling thread.
        call_site: the line of the program that makes the write.
        base: the open table's version before the call; None without an open table.
        version: the open table's version after the call; None without an open table.
        commit: its commit, where the caller's thread could read it from a local disk.
        log: the log to search for further commits.
        returned: metrics that the engine returned, as JSON text.
        files_deleted: number of files that a VACUUM returned as deleted.
        failure: what the engine raised; its `landed` is not set yet.
        landed: whether a failed write has committed, where that follows without reading the log.
        no_commit_reason: why there is no commit, where that follows without reading the log.
        expectations: results of the expectations; during the write those that its commit has.
        exported: returns the metrics of files outside Delta; called on the delivery thread.
        store_plan: stores its plan under its id, on the delivery thread; None stores nothing.
        schema: the written Arrow schema, not hashed yet.
        call: instance, args, kwargs and `contextvars` context for the hooks; None without hooks.
        response: what the engine returned, for the response hook; None without hooks.
        slot: its place in the file of running writes, while it is in the engine.
        segment: the spool segment with its provisional record, if it was written.
        event: the finished event.
        redacted: `event` after redaction, safe to export.
        receipt: makes the receipt of the write for the program; None before the write has ended.
    """

    seam: WriteSeam | None = None
    template: WriteTemplate
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
    begun: int = 0
    entered: int = 0
    overhead_ns: int = 0
    thread: str
    call_site: CallSite | None = None
    base: int | None = None
    version: int | None = None
    commit: RawCommit | None = None
    log: CommitLog | None = None
    returned: str | None = None
    files_deleted: int | None = None
    failure: Failed | None = None
    landed: Landed | None = None
    no_commit_reason: NoCommitReason | None = None
    expectations: ExpectationReport | None = None
    exported: Callable[[], CommitMetrics] | None = None
    store_plan: Callable[[str], None] | None = None
    schema: object | None = None
    call: tuple[Any, tuple[Any, ...], dict[str, Any], contextvars.Context] | None = None
    response: object = None
    slot: RunningSlot | None = None
    segment: Segment | None = None
    event: WriteEvent | None = None
    redacted: WriteEvent | None = None
    receipt: PendingReceipt | None = None
