"""From an observation to the event: commits found, metrics read, hashes made; off the write's path."""

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
    landed,
    metrics_of,
    search_commits,
    unchanged,
)
from deltawitness.events import (
    CommitMetrics,
    Committed,
    Exported,
    Failed,
    NoCommit,
    NoCommitReason,
    WriteEvent,
    WriteIntent,
    WriteOutcome,
)
from deltawitness.hashing import schema_hash, table_id
from deltawitness.internal_errors import fact
from deltawitness.redaction import redacted_intent, redacted_run

if TYPE_CHECKING:
    from deltawitness.observe.in_flight import InFlightWrite
    from deltawitness.settings import Settings

__all__ = ["complete_event", "minimal_event", "minimal_redacted_event"]


def complete_event(write: InFlightWrite, tail: int) -> WriteEvent:
    """Return the event of a finished write.

    Args:
        write: what the caller's thread noted down.
        tail: how many versions of the log to search for a commit whose version is not known.
    """
    outcome = fact("commit", lambda: _outcome(write, tail), None)
    return _event(write, _barely_known(write) if outcome is None else outcome)


def minimal_event(write: InFlightWrite) -> WriteEvent:
    """Return the event with what is known without reading anything: when reading hangs or fails."""
    return _event(write, _barely_known(write))


def minimal_redacted_event(event: WriteEvent, settings: Settings) -> WriteEvent:
    """Return the event as it may leave the process, without the parts that cannot be redacted."""
    run, intent, outcome = event.run, event.intent, event.outcome
    told = replace(
        event,
        run=replace(run, job="[job]", attributes=MappingProxyType({})),
        intent=WriteIntent(intent.operation, intent.cache_operation, scope=intent.scope),
        outcome=replace(outcome, message="") if isinstance(outcome, Failed) else outcome,
        table_id=None,
        thread=None,
    )
    told = fact("redaction", lambda: replace(told, run=redacted_run(run)), told)
    if settings.table_id_key is None:
        told = replace(told, table_id=event.table_id)
    return fact("redaction", lambda: replace(told, intent=redacted_intent(intent, settings)), told)


def _barely_known(write: InFlightWrite) -> WriteOutcome:
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
    trace_id, span_id = fact("spans", lambda: _trace_ids(write), _NO_TRACE)
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
        table_id=None if location is None else fact("commit", lambda: table_id(location), None),
        thread=write.thread,
        pid=os.getpid(),
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
    hashed = fact("schema", lambda: schema_hash(schema), None)
    return replace(write.intent, schema_hash=hashed)


def _outcome(write: InFlightWrite, tail: int) -> WriteOutcome:
    if write.failure is not None:
        return _failed(write, write.failure, tail)
    if write.exported is not None:
        return Exported(fact("commit", write.exported, CommitMetrics()))
    if write.no_commit_reason is not None:
        return _no_commit(write, write.no_commit_reason)
    commits = _own_commits(write, tail)
    if not commits:
        return _no_commit(write, _why_no_commit(write))
    metrics = fact(
        "commit",
        lambda: metrics_of(write.intent.operation, commits, _returned(write)),
        CommitMetrics(),
    )
    return Committed(tuple(commit.version for commit in commits), metrics)


def _no_commit(write: InFlightWrite, reason: NoCommitReason) -> NoCommit:
    metrics = _returned_metrics(write)
    # Of a commit that was not found nobody knows what it would have said.
    return NoCommit(reason, metrics if reason is NoCommitReason.NOT_FOUND else unchanged(metrics))


def _failed(write: InFlightWrite, failure: Failed, tail: int) -> Failed:
    operation = write.intent.operation
    if write.landed is not None:
        answer = write.landed
        return replace(failure, landed=answer, metrics=failed_metrics(operation, answer, ()))
    log = _log(write)
    if log is None or write.seam is None or not write.seam.commits:
        return failure
    answer, commits = landed(log, write.commit_write_id, write.base, tail)
    versions = tuple(commit.version for commit in commits)
    return replace(
        failure,
        landed=answer,
        version=versions[-1] if versions else None,
        versions=versions,
        metrics=failed_metrics(operation, answer, commits),
    )


def _own_commits(write: InFlightWrite, tail: int) -> list[RawCommit]:
    commit, seam = write.commit, write.seam
    if commit is not None and commit.is_of(write.commit_write_id) and not (seam and seam.many):
        return [commit]
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
    metrics = fact(
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
        said = json.loads(write.returned)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
