"""From a finished write to a row of the inventory; from a note without a row to as much as is left.

A row is a JSON object of the inventory's columns, times as microseconds since the Unix epoch. A note
is what the caller's own thread could say of a write for a microsecond or two: a row of its own, and
under names with an underscore what is needed to find the rest in the table's log. Neither holds
anything that the ledger may not: text is redacted, keys are hashed, locations carry no credentials.
"""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from deltawitness.commit.log import open_log
from deltawitness.commit.outcome import (
    RawCommit,
    failed_metrics,
    find_commits,
    find_landed,
    metrics_of,
    search_commits,
)
from deltawitness.commit.reader import parse_commit
from deltawitness.events import (
    UNCHANGED,
    Committed,
    Exported,
    Failed,
    InputVersion,
    Landed,
    NoCommit,
    NoCommitReason,
    WriteEvent,
    WriteIntent,
)
from deltawitness.hashing import canonical_uri
from deltawitness.internal_errors import fact
from deltawitness.ledger.tables.schema import Source
from deltawitness.redaction import key_hash, message_for_ledger, redact_label
from deltawitness.semconv import WITNESS_VERSION, CacheResult, Operation
from deltawitness.settings import LedgerMessages

__all__ = ["as_json", "event_row", "intent_part", "ledger_uri", "place_part", "row_of_provisional"]

Row = dict[str, Any]

_MICROSECONDS = 1000
_NANOSECONDS_PER_MS = 1e6


def as_json(row: Mapping[str, Any]) -> str:
    """Return a row as one line of JSON, without what is not known."""
    known = {name: value for name, value in row.items() if value is not None}
    text = json.dumps(known, separators=(",", ":"))
    return text if _SURROGATE not in text else _without_halves(text)


_SURROGATE = "\\ud"


def _without_halves(text: str) -> str:
    """Return JSON without halves of surrogate pairs, which JSON may spell and Arrow does not take."""
    whole = json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")
    return json.dumps(json.loads(whole), separators=(",", ":"))


def ledger_uri(location: str) -> str:
    """Return a location as the ledger keeps it: absolute, in one spelling, without credentials.

    >>> ledger_uri("s3a://key:secret@bucket/t/?sig=x")
    's3://bucket/t'
    >>> ledger_uri("abfss://container@account.dfs.core.windows.net/t?sig=x")
    'abfs://container@account.dfs.core.windows.net/t'
    """
    return canonical_uri(location)


# --- whole rows ------------------------------------------------------------------------------------


def event_row(
    event: WriteEvent,
    told: WriteEvent,
    location: str | None,
    messages: LedgerMessages = LedgerMessages.SAFE,
) -> Row:
    """Return the row of a write.

    Args:
        event: the full record.
        told: the same, fit to leave the process.
        location: the table's location, absolute.
        messages: what is kept of an error's text.
    """
    return {
        "event_time": event.started_at // _MICROSECONDS,
        "run_id": event.run.run_id,
        "write_id": event.write_id,
        "trace_id": event.trace_id,
        "span_id": event.span_id,
        "job": told.run.job,
        **intent_part(told.intent),
        "result": event.result.value,
        "table_uri": None
        if location is None
        else fact("ledger", lambda: ledger_uri(location), None),
        "table_id": told.table_id,
        "inputs": fact("ledger", lambda: _inputs(event.intent.inputs, told.intent.inputs), None),
        "run_inputs": fact(
            "ledger", lambda: _inputs(event.intent.run_inputs, told.intent.run_inputs), None
        ),
        "duration_ms": event.duration_ns / _NANOSECONDS_PER_MS,
        **_outcome_part(event, messages),
        "thread": fact("ledger", lambda: _thread(event), None),
        **fact("ledger", place_part, {}),
        "pid": event.pid,
        "source": Source.OBSERVED.value,
    }


def intent_part(intent: WriteIntent) -> Row:
    """Return the columns that say what a write means to do."""
    return {
        "operation": intent.operation.value,
        "cache_operation": intent.cache_operation.value,
        "scope": intent.scope.value,
        "policy": redact_label(intent.policy),
        "key": None if intent.cache_key is None else key_hash(intent.cache_key),
        "table_name": intent.table_name,
        "mode": intent.mode,
        "schema_hash": intent.schema_hash,
        "plan_hash": intent.plan_hash,
        "plan_shape_hash": intent.plan_shape_hash,
    }


def _inputs(
    reads: tuple[InputVersion, ...], redacted: tuple[InputVersion, ...]
) -> list[Row] | None:
    return [
        {
            "table_id": named.table_id,
            "uri": None if read.uri is None else ledger_uri(read.uri),
            "version": read.version,
        }
        for read, named in zip(reads, redacted, strict=True)
    ] or None


def _thread(event: WriteEvent) -> str | None:
    return None if event.thread is None else redact_label(event.thread)


def _outcome_part(event: WriteEvent, messages: LedgerMessages) -> Row:
    match event.outcome:
        case Committed() as committed:
            return _versions(committed.versions) | committed.metrics.known()
        case Exported() as exported:
            return dict(exported.metrics.known())
        case NoCommit() as idle:
            return {"reason": idle.reason.value, **idle.metrics.known()}
        case Failed() as failed:
            return {
                "error_type": failed.error_type.value,
                "exception_type": failed.exception_type,
                "error_message": fact(
                    "ledger", lambda: message_for_ledger(failed.message, messages), None
                ),
                "landed": failed.landed.value,
                **_versions(failed.versions),
                **failed.metrics.known(),
            }


def _versions(versions: tuple[int, ...]) -> Row:
    return {"version": versions[-1], "versions": list(versions)} if versions else {}


def place_part() -> Row:
    """Return the columns that say where an operation was observed, and with which versions."""
    return {"host": _host(), "pid": os.getpid(), **versions_part()}


@cache
def _host() -> str:
    return socket.gethostname()


@cache
def versions_part() -> Mapping[str, str | None]:
    """Return the columns that say which libraries were at work."""
    return {
        "engine": f"delta-rs:py-{_version_of('deltalake')}",
        "deltalake_version": _version_of("deltalake"),
        "datafusion_version": _version_of("datafusion"),
        "witness_version": WITNESS_VERSION,
    }


@cache
def python_version() -> str:
    """Return the version of Python that runs."""
    return platform.python_version()


@cache
def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# --- notes without a row -------------------------------------------------------------------------


def row_of_provisional(note: Row, tail: int) -> Row:
    """Return the row of a write whose process died before it could tell it whole.

    The commit is looked for in the table's log; where that cannot be read, the row holds what the
    note knew.

    Args:
        note: what the caller's thread had told.
        tail: versions of the log to look through for a commit whose version is not known.
    """
    row = {name: value for name, value in note.items() if not name.startswith("_")}
    row["source"] = Source.OBSERVED.value
    try:
        return row | _found(note, tail)
    except Exception:  # noqa: BLE001 - a log that cannot be read takes nothing from the note
        return row | _as_recorded(note)


def _found(note: Row, tail: int) -> Row:
    if "_idle" in note or "_exported" in note or note.get("table_uri") is None:
        return _as_recorded(note)
    log, mark, base = open_log(note["table_uri"]), note["_mark"], note.get("_base")
    if "error_type" in note:
        if "landed" in note:
            return _as_recorded(note)
        answer, own = find_landed(log, mark, base, tail)
        return {
            "result": CacheResult.ERROR.value,
            "landed": answer.value,
            **_versions(tuple(commit.version for commit in own)),
            **failed_metrics(Operation(note["operation"]), answer, own).known(),
        }
    after = note.get("_version")
    if after is not None:
        first = 0 if base is None else base + 1
        commits = find_commits(log, mark, range(first, after + 1))
    else:
        commits = search_commits(log, mark, base, tail).commits
    return _committed(note, commits) if commits else _as_recorded(note)


def _committed(note: Row, commits: list[RawCommit]) -> Row:
    last = parse_commit(commits[-1].version, commits[-1].content)
    return {
        "result": CacheResult.WRITE.value,
        **_versions(tuple(commit.version for commit in commits)),
        **metrics_of(Operation(note["operation"]), commits).known(),
        "schema_hash": note.get("schema_hash") or last.witness.get("schema_hash"),
    }


def _as_recorded(note: Row) -> Row:
    """Return what follows from the note alone."""
    if "error_type" in note:
        answer = Landed(note.get("landed", Landed.UNKNOWN.value))
        return {
            "result": CacheResult.ERROR.value,
            "landed": answer.value,
            **failed_metrics(Operation(note["operation"]), answer, ()).known(),
        }
    if "_exported" in note:
        return {"result": CacheResult.WRITE.value}
    after = note.get("_version")
    if "_idle" not in note and after is not None and after != note.get("_base"):
        return {"result": CacheResult.WRITE.value, **_versions((after,))}
    reason = note.get("_idle", NoCommitReason.NOT_FOUND.value)
    is_found = reason != NoCommitReason.NOT_FOUND.value
    counts = UNCHANGED.known() if is_found else {}
    return {"result": CacheResult.NOOP.value, "reason": reason, **counts}
