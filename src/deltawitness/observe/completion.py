"""Make the event of a finished write: find its commits, read their metrics, hash its schema.

This runs on the delivery thread, after the engine's call has returned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import format_span_id, format_trace_id

from deltawitness.commit.log import CommitLog, open_log
from deltawitness.commit.outcome import (
    RawCommit,
    failed_metrics,
    find_commits,
    find_landed,
    metrics_of,
    search_commits,
    with_zeros,
)
from deltawitness.commit.restored import restored_version, version_restored_by_time
from deltawitness.events import (
    CommitMetrics,
    Committed,
    Exported,
    Failed,
    InputVersion,
    NoCommit,
    NoCommitReason,
    WriteEvent,
    WriteIntent,
    WriteOutcome,
)
from deltawitness.hashing import schema_hash
from deltawitness.internal_errors import guarded_value
from deltawitness.locations import table_id
from deltawitness.observe.phases import phases_of
from deltawitness.redaction import redacted_intent, redacted_run
from deltawitness.run_origin import NO_ORIGIN
from deltawitness.semconv import Operation

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.settings import Settings

__all__ = [
    "complete_event",
    "may_read_log",
    "minimal_event",
    "minimal_redacted_event",
    "with_phases",
]


def complete_event(write: InFlightWrite, tail: int) -> WriteEvent:
    """Return the event of a finished write.

    Args:
        write: what the caller's thread recorded.
        tail: number of log versions to search for a commit of unknown version.
    """
    outcome = guarded_value("commit", lambda: _outcome(write, tail), None)
    event = _event(write, _minimal_outcome(write) if outcome is None else outcome)
    if write.intent.operation is not Operation.RESTORE:
        return event
    return guarded_value("commit", lambda: _with_restored(write, event), event)


def may_read_log(write: InFlightWrite) -> bool:
    """Return whether :func:`complete_event` may read the table's log, which can hang.

    Args:
        write: what the caller's thread recorded.
    """
    if write.failure is not None or write.intent.operation is Operation.RESTORE:
        return True
    return not _has_only_commit(write)


def with_phases(write: InFlightWrite, event: WriteEvent) -> WriteEvent:
    """Return the event with the phases of the engine's call; unchanged if they are not known.

    Args:
        write: what the caller's thread recorded.
        event: its event.
    """
    if not isinstance(event.outcome, Committed):
        return event
    milliseconds = event.outcome.metrics.execution_ms
    found = phases_of(event.duration_ns, milliseconds, _returned(write) or {})
    return replace(event, phases=found)


def minimal_event(write: InFlightWrite) -> WriteEvent:
    """Return the event without any I/O: used where reading the log hangs or fails."""
    return _event(write, _minimal_outcome(write))


def minimal_redacted_event(event: WriteEvent, settings: Settings) -> WriteEvent:
    """Return the event, safe to export, without the parts whose redaction fails."""
    run, intent, outcome = event.run, event.intent, event.outcome
    redacted = replace(
        event,
        run=replace(
            run, job="[job]", attributes=MappingProxyType({}), message=None, origin=NO_ORIGIN
        ),
        intent=WriteIntent(intent.operation, intent.cache_operation, scope=intent.scope),
        outcome=replace(outcome, message="") if isinstance(outcome, Failed) else outcome,
        table_id=None,
        thread=None,
    )
    redacted = guarded_value(
        "redaction", lambda: replace(redacted, run=redacted_run(run)), redacted
    )
    if settings.table_id_key is None:
        redacted = replace(redacted, table_id=event.table_id)
    return guarded_value(
        "redaction",
        lambda: replace(redacted, intent=redacted_intent(intent, settings)),
        redacted,
    )


def _minimal_outcome(write: InFlightWrite) -> WriteOutcome:
    outcome: WriteOutcome
    if write.failure is not None:
        outcome = write.failure
    elif write.exported is not None:
        outcome = Exported()
    elif write.no_commit_reason is not None:
        outcome = _no_commit(write, write.no_commit_reason)
    elif write.version is not None and write.version != write.base:
        outcome = Committed((write.version,), _returned_metrics(write))
    else:
        outcome = NoCommit(NoCommitReason.NOT_FOUND)
    return outcome


def _event(write: InFlightWrite, outcome: WriteOutcome) -> WriteEvent:
    trace_id, span_id = guarded_value("spans", lambda: _trace_ids(write), _NO_TRACE)
    location = write.location
    return WriteEvent(
        write_id=write.write_id,
        run=write.run,
        intent=_with_schema_hash(write),
        outcome=outcome,
        started_at=write.started_at,
        duration_ns=write.duration_ns,
        trace_id=trace_id,
        span_id=span_id,
        table_id=None
        if location is None
        else guarded_value("commit", lambda: table_id(location), None),
        thread=write.thread,
        pid=os.getpid(),
        call_site=write.call_site,
        overhead_ns=write.overhead_ns,
        expectations=write.expectations,
    )


_NO_TRACE: tuple[str | None, str | None] = None, None


def _trace_ids(write: InFlightWrite) -> tuple[str | None, str | None]:
    context = write.span.get_span_context()
    if not context.is_valid:
        return None, None
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def _with_schema_hash(write: InFlightWrite) -> WriteIntent:
    schema = write.schema
    if schema is None or write.intent.schema_hash is not None:
        return write.intent
    hashed = guarded_value("schema", lambda: schema_hash(schema), None)
    return replace(write.intent, schema_hash=hashed)


def _outcome(write: InFlightWrite, tail: int) -> WriteOutcome:
    if write.failure is not None:
        return _failed(write, write.failure, tail)
    if write.exported is not None:
        return Exported(guarded_value("commit", write.exported, CommitMetrics()))
    if write.no_commit_reason is not None:
        return _no_commit(write, write.no_commit_reason)
    commits = _own_commits(write, tail)
    if not commits:
        return _no_commit(write, _why_no_commit(write))
    metrics = guarded_value(
        "commit",
        lambda: metrics_of(write.intent.operation, commits, _returned(write)),
        CommitMetrics(),
    )
    return Committed(tuple(commit.version for commit in commits), metrics)


def _no_commit(write: InFlightWrite, reason: NoCommitReason) -> NoCommit:
    metrics = _returned_metrics(write)
    # A commit that was not found may have changed rows: only the other reasons imply zeros.
    return NoCommit(reason, metrics if reason is NoCommitReason.NOT_FOUND else with_zeros(metrics))


def _failed(write: InFlightWrite, failure: Failed, tail: int) -> Failed:
    operation = write.intent.operation
    if write.landed is not None:
        landed = write.landed
        return replace(failure, landed=landed, metrics=failed_metrics(operation, landed, ()))
    log = _log(write)
    if log is None or write.seam is None or not write.seam.commits:
        return failure
    landed, commits = find_landed(log, write.commit_write_id, write.base, tail)
    versions = tuple(commit.version for commit in commits)
    return replace(
        failure,
        landed=landed,
        version=versions[-1] if versions else None,
        versions=versions,
        metrics=failed_metrics(operation, landed, commits),
    )


def _with_restored(write: InFlightWrite, event: WriteEvent) -> WriteEvent:
    """Return the event of a RESTORE with the restored version as its input; unchanged if it is not known."""
    outcome, location, identity = event.outcome, write.location, event.table_id
    versions = outcome.versions if isinstance(outcome, Committed | Failed) else ()
    version = _restored(write, versions[-1]) if versions else None
    if version is None or location is None or identity is None:
        return event
    restored = InputVersion(identity, version, location)
    return replace(event, intent=replace(event.intent, inputs=(restored,)))


def _restored(write: InFlightWrite, version: int) -> int | None:
    """Return the version that a RESTORE has restored; None where the log does not say."""
    log, own = _log(write), write.commit
    if own is None or own.version != version:
        content = None if log is None else log.read(version)
        own = None if content is None else RawCommit(version, content)
    if own is None:
        return None
    found = restored_version(own.info())
    if found is not None or log is None:
        return found
    return version_restored_by_time(own.info(), log)


def _own_commits(write: InFlightWrite, tail: int) -> list[RawCommit]:
    if write.commit is not None and _has_only_commit(write):
        return [write.commit]
    if write.version is not None and write.version == write.base:
        return []
    log = _log(write)
    if log is None:
        return []
    if write.version is None:
        return search_commits(log, write.commit_write_id, write.base, tail).commits
    first = 0 if write.base is None else write.base + 1
    versions = range(first, write.version + 1)
    return find_commits(log, write.commit_write_id, versions)


def _has_only_commit(write: InFlightWrite) -> bool:
    """Return whether the caller's thread has read the only commit of the write."""
    commit, seam = write.commit, write.seam
    if commit is None or (seam is not None and seam.many):
        return False
    return commit.is_of(write.commit_write_id)


def _log(write: InFlightWrite) -> CommitLog | None:
    if write.log is not None or write.location is None:
        return write.log
    return open_log(write.location, write.storage_options)


def _why_no_commit(write: InFlightWrite) -> NoCommitReason:
    if write.intent.mode == "ignore":
        return NoCommitReason.TABLE_EXISTS
    if write.version is not None:
        return NoCommitReason.NOTHING_TO_DO
    return NoCommitReason.NOT_FOUND


def _returned_metrics(write: InFlightWrite) -> CommitMetrics:
    metrics = guarded_value(
        "commit",
        lambda: metrics_of(write.intent.operation, (), _returned(write)),
        CommitMetrics(),
    )
    if write.files_deleted is not None and write.no_commit_reason is None:
        return replace(metrics, files_deleted=write.files_deleted)
    return metrics


def _returned(write: InFlightWrite) -> Mapping[str, Any] | None:
    if write.returned is None:
        return None
    try:
        metrics = json.loads(write.returned)
    except ValueError:
        return None
    return metrics if isinstance(metrics, dict) else None
