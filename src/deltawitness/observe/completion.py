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
    from deltawitness.observe.in_flight import Observation
    from deltawitness.settings import Settings

__all__ = ["barely_completed", "barely_redacted", "completed"]


def completed(observation: Observation, tail: int) -> WriteEvent:
    """Return the event of a finished write.

    Args:
        observation: what the caller's thread noted down.
        tail: how many versions of the log to search for a commit whose version is not known.
    """
    outcome = fact("commit", lambda: _outcome(observation, tail), None)
    return _event(observation, _barely_known(observation) if outcome is None else outcome)


def barely_completed(observation: Observation) -> WriteEvent:
    """Return the event with what is known without reading anything: when reading hangs or fails."""
    return _event(observation, _barely_known(observation))


def barely_redacted(event: WriteEvent, settings: Settings) -> WriteEvent:
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


def _barely_known(observation: Observation) -> WriteOutcome:
    outcome: WriteOutcome
    if observation.failure is not None:
        outcome = observation.failure
    elif observation.exported is not None:
        outcome = Exported()
    elif observation.idle is not None:
        outcome = _no_commit(observation, observation.idle)
    elif observation.version is not None and observation.version != observation.base:
        outcome = Committed((observation.version,), _returned_metrics(observation))
    else:
        outcome = NoCommit(NoCommitReason.NOT_FOUND)
    return outcome


def _event(observation: Observation, outcome: WriteOutcome) -> WriteEvent:
    trace_id, span_id = fact("spans", lambda: _trace_ids(observation), _NO_TRACE)
    location = observation.location
    return WriteEvent(
        write_id=observation.write_id,
        run=observation.run,
        intent=_with_schema_hash(observation),
        outcome=outcome,
        started_at=observation.started_at,
        duration_ns=observation.duration_ns,
        trace_id=trace_id,
        span_id=span_id,
        table_id=None if location is None else fact("commit", lambda: table_id(location), None),
        thread=observation.thread,
        pid=os.getpid(),
    )


_NO_TRACE: tuple[str | None, str | None] = None, None


def _trace_ids(observation: Observation) -> tuple[str | None, str | None]:
    context = observation.span.get_span_context()
    if not context.is_valid:
        return None, None
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def _with_schema_hash(observation: Observation) -> WriteIntent:
    schema = observation.schema
    if schema is None or observation.intent.schema_hash is not None:
        return observation.intent
    hashed = fact("schema", lambda: schema_hash(schema), None)
    return replace(observation.intent, schema_hash=hashed)


def _outcome(observation: Observation, tail: int) -> WriteOutcome:
    if observation.failure is not None:
        return _failed(observation, observation.failure, tail)
    if observation.exported is not None:
        return Exported(fact("commit", observation.exported, CommitMetrics()))
    if observation.idle is not None:
        return _no_commit(observation, observation.idle)
    commits = _own_commits(observation, tail)
    if not commits:
        return _no_commit(observation, _why_no_commit(observation))
    metrics = fact(
        "commit",
        lambda: metrics_of(observation.intent.operation, commits, _returned(observation)),
        CommitMetrics(),
    )
    return Committed(tuple(commit.version for commit in commits), metrics)


def _no_commit(observation: Observation, reason: NoCommitReason) -> NoCommit:
    metrics = _returned_metrics(observation)
    # Of a commit that was not found nobody knows what it would have said.
    return NoCommit(reason, metrics if reason is NoCommitReason.NOT_FOUND else unchanged(metrics))


def _failed(observation: Observation, failure: Failed, tail: int) -> Failed:
    operation = observation.intent.operation
    if observation.landed is not None:
        answer = observation.landed
        return replace(failure, landed=answer, metrics=failed_metrics(operation, answer, ()))
    log = _log(observation)
    if log is None or observation.seam is None or not observation.seam.commits:
        return failure
    answer, commits = landed(log, observation.mark, observation.base, tail)
    versions = tuple(commit.version for commit in commits)
    return replace(
        failure,
        landed=answer,
        version=versions[-1] if versions else None,
        versions=versions,
        metrics=failed_metrics(operation, answer, commits),
    )


def _own_commits(observation: Observation, tail: int) -> list[RawCommit]:
    commit, seam = observation.commit, observation.seam
    if commit is not None and commit.is_of(observation.mark) and not (seam and seam.many):
        return [commit]
    if observation.version is not None and observation.version == observation.base:
        return []
    log = _log(observation)
    if log is None:
        return []
    if observation.version is None:
        return search_commits(log, observation.mark, observation.base, tail).commits
    first = 0 if observation.base is None else observation.base + 1
    versions = range(first, observation.version + 1)
    return find_commits(log, observation.mark, versions)


def _log(observation: Observation) -> CommitLog | None:
    if observation.log is not None or observation.location is None:
        return observation.log
    return open_log(observation.location, observation.storage_options)


def _why_no_commit(observation: Observation) -> NoCommitReason:
    if observation.intent.mode == "ignore":
        return NoCommitReason.TABLE_EXISTS
    if observation.version is not None:
        return NoCommitReason.NOTHING_TO_DO
    return NoCommitReason.NOT_FOUND


def _returned_metrics(observation: Observation) -> CommitMetrics:
    metrics = fact(
        "commit",
        lambda: metrics_of(observation.intent.operation, (), _returned(observation)),
        CommitMetrics(),
    )
    if observation.files_deleted is not None and observation.idle is None:
        return replace(metrics, files_deleted=observation.files_deleted)
    return metrics


def _returned(observation: Observation) -> Mapping[str, Any] | None:
    if observation.returned is None:
        return None
    try:
        said = json.loads(observation.returned)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
