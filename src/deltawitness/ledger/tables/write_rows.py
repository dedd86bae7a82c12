"""Rows of the inventory, from finished writes and from provisional records.

A row is a JSON object of the inventory's columns; times are microseconds since the Unix epoch. A
provisional record is what the caller's thread can record within a few microseconds: columns of the
row, and under names with an underscore what is needed to find the commit in the table's log. Both
are redacted: error texts are redacted, keys hashed, locations without credentials.
"""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Mapping
from functools import cache
from typing import Any

from deltawitness.call_site import CallSite
from deltawitness.commit.log import open_log
from deltawitness.commit.metadata import keys_of_expectations
from deltawitness.commit.outcome import (
    RawCommit,
    failed_metrics,
    find_commits,
    find_landed,
    metrics_of,
    search_commits,
)
from deltawitness.commit.reader import CommitMetadata, parse_commit
from deltawitness.commit.restored import restored_version
from deltawitness.distributions import installed_version
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
from deltawitness.internal_errors import guarded_value
from deltawitness.ledger.tables.schema import Source
from deltawitness.locations import canonical_uri
from deltawitness.redaction import (
    key_hash,
    message_for_ledger,
    redact_label,
    redact_message,
)
from deltawitness.semconv import WITNESS_VERSION, CacheResult, Operation
from deltawitness.settings import LedgerMessages

__all__ = [
    "as_json",
    "event_row",
    "intent_columns",
    "ledger_uri",
    "process_columns",
    "reason_columns",
    "restored_input",
    "row_of_provisional",
]

Row = dict[str, Any]

_MICROSECONDS = 1000
_NANOSECONDS_PER_MS = 1e6


def as_json(row: Mapping[str, Any]) -> str:
    """Return a row as one line of JSON, without null columns."""
    present = {name: value for name, value in row.items() if value is not None}
    text = json.dumps(present, separators=(",", ":"))
    return text if _SURROGATE not in text else _replace_lone_surrogates(text)


_SURROGATE = "\\ud"


def _replace_lone_surrogates(text: str) -> str:
    """Replace lone surrogates in JSON: JSON can spell them, Arrow rejects them."""
    replaced = json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")
    return json.dumps(json.loads(replaced), separators=(",", ":"))


def ledger_uri(location: str) -> str:
    """Return a location in the ledger's spelling: absolute, canonical, without credentials.

    >>> ledger_uri("s3a://key:secret@bucket/t/?sig=x")
    's3://bucket/t'
    >>> ledger_uri("abfss://container@account.dfs.core.windows.net/t?sig=x")
    'abfs://container@account.dfs.core.windows.net/t'
    """
    return canonical_uri(location)


# --- final rows -----------------------------------------------------------------------------------


def event_row(
    event: WriteEvent,
    redacted: WriteEvent,
    location: str | None,
    messages: LedgerMessages = LedgerMessages.SAFE,
) -> Row:
    """Return the row of a finished write.

    Args:
        event: the full record.
        redacted: `event` after redaction.
        location: the table's absolute location.
        messages: how much of an error's text to record.
    """
    return {
        "event_time": event.started_at // _MICROSECONDS,
        "run_id": event.run.run_id,
        "write_id": event.write_id,
        "trace_id": event.trace_id,
        "span_id": event.span_id,
        "job": redacted.run.job,
        **intent_columns(redacted.intent),
        "result": event.result.value,
        "table_uri": None
        if location is None
        else guarded_value("ledger", lambda: ledger_uri(location), None),
        "table_id": redacted.table_id,
        "inputs": guarded_value(
            "ledger", lambda: _inputs(event.intent.inputs, redacted.intent.inputs), None
        ),
        "run_inputs": guarded_value(
            "ledger", lambda: _inputs(event.intent.run_inputs, redacted.intent.run_inputs), None
        ),
        "duration_ms": event.duration_ns / _NANOSECONDS_PER_MS,
        "overhead_ms": None
        if event.overhead_ns is None
        else event.overhead_ns / _NANOSECONDS_PER_MS,
        **_outcome_columns(event, messages),
        "thread": guarded_value("ledger", lambda: _thread(event), None),
        **guarded_value("ledger", process_columns, {}),
        "pid": event.pid,
        "source": Source.OBSERVED.value,
        **guarded_value("ledger", lambda: reason_columns(event.message, event.call_site), {}),
        **guarded_value("ledger", lambda: keys_of_expectations(event.expectations), {}),
    }


def reason_columns(message: str | None, site: CallSite | None) -> Row:
    """Return the columns about why and where the program made a write.

    Args:
        message: the program's message.
        site: the line of the program.
    """
    columns: Row = {"message": None if message is None else redact_message(message)}
    if site is not None:
        columns |= {
            "code_file": site.file,
            "code_line": site.line,
            "code_function": site.function,
        }
    return columns


def intent_columns(intent: WriteIntent) -> Row:
    """Return the columns that describe what a write intends to do."""
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
        "parts": intent.parts,
        "column_lineage": intent.column_lineage,
    }


def _inputs(
    reads: tuple[InputVersion, ...], redacted_reads: tuple[InputVersion, ...]
) -> list[Row] | None:
    return [
        {
            "table_id": named.table_id,
            "uri": None if read.uri is None else ledger_uri(read.uri),
            "version": read.version,
        }
        for read, named in zip(reads, redacted_reads, strict=True)
    ] or None


def _thread(event: WriteEvent) -> str | None:
    return None if event.thread is None else redact_label(event.thread)


def _outcome_columns(event: WriteEvent, messages: LedgerMessages) -> Row:
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
                "error_message": guarded_value(
                    "ledger", lambda: message_for_ledger(failed.message, messages), None
                ),
                "landed": failed.landed.value,
                **_versions(failed.versions),
                **failed.metrics.known(),
            }


def _versions(versions: tuple[int, ...]) -> Row:
    return {"version": versions[-1], "versions": list(versions)} if versions else {}


def process_columns() -> Row:
    """Return the columns that describe the observing process: host, pid and library versions."""
    return {"host": _host(), "pid": os.getpid(), **version_columns()}


@cache
def _host() -> str:
    return socket.gethostname()


@cache
def version_columns() -> Mapping[str, str | None]:
    """Return the columns with the versions of the engine and the libraries."""
    return {
        "engine": f"delta-rs:py-{installed_version('deltalake')}",
        "deltalake_version": installed_version("deltalake"),
        "datafusion_version": installed_version("datafusion"),
        "witness_version": WITNESS_VERSION,
    }


@cache
def python_version() -> str:
    """Return the running Python's version."""
    return platform.python_version()


# --- provisional records without a final row -----------------------------------------------------


def row_of_provisional(provisional: Row, tail: int) -> Row:
    """Return the row of a write whose process died before recording the final row.

    Searches the table's log for the commit; if the log cannot be read, the row holds what the
    provisional record says.

    Args:
        provisional: the provisional record.
        tail: number of versions of the log to search when the record has no version.
    """
    row = {name: value for name, value in provisional.items() if not name.startswith("_")}
    row["source"] = Source.OBSERVED.value
    try:
        return row | _completed_from_log(provisional, tail)
    except Exception:  # noqa: BLE001 - without the log, use the record alone
        return row | _completed_without_log(provisional)


def _completed_from_log(provisional: Row, tail: int) -> Row:
    if "_idle" in provisional or "_exported" in provisional or provisional.get("table_uri") is None:
        return _completed_without_log(provisional)
    log, write_id, base = (
        open_log(provisional["table_uri"]),
        provisional["_mark"],
        provisional.get("_base"),
    )
    if "error_type" in provisional:
        if "landed" in provisional:
            return _completed_without_log(provisional)
        answer, own = find_landed(log, write_id, base, tail)
        return {
            "result": CacheResult.ERROR.value,
            "landed": answer.value,
            **_versions(tuple(commit.version for commit in own)),
            **failed_metrics(Operation(provisional["operation"]), answer, own).known(),
        }
    after = provisional.get("_version")
    if after is not None:
        first = 0 if base is None else base + 1
        commits = find_commits(log, write_id, range(first, after + 1))
    else:
        commits = search_commits(log, write_id, base, tail).commits
    return _committed(provisional, commits) if commits else _completed_without_log(provisional)


def _committed(provisional: Row, commits: list[RawCommit]) -> Row:
    last = parse_commit(commits[-1].version, commits[-1].content)
    return {
        "result": CacheResult.WRITE.value,
        **_versions(tuple(commit.version for commit in commits)),
        **metrics_of(Operation(provisional["operation"]), commits).known(),
        "schema_hash": provisional.get("schema_hash") or last.witness.get("schema_hash"),
        **restored_input(last, provisional.get("table_id"), provisional.get("table_uri")),
    }


def restored_input(commit: CommitMetadata, table_id: str | None, uri: str | None) -> Row:
    """Return the column with the version that a RESTORE has restored; empty for any other commit.

    A commit of a RESTORE to a time does not have the version.

    Args:
        commit: the commit.
        table_id: id of its table.
        uri: location of its table.
    """
    version = restored_version(commit)
    if version is None:
        return {}
    return {"inputs": [{"table_id": table_id, "uri": uri, "version": version}]}


def _completed_without_log(provisional: Row) -> Row:
    """Return the result columns that follow from the provisional record alone."""
    if "error_type" in provisional:
        answer = Landed(provisional.get("landed", Landed.UNKNOWN.value))
        return {
            "result": CacheResult.ERROR.value,
            "landed": answer.value,
            **failed_metrics(Operation(provisional["operation"]), answer, ()).known(),
        }
    if "_exported" in provisional:
        return {"result": CacheResult.WRITE.value}
    after = provisional.get("_version")
    if "_idle" not in provisional and after is not None and after != provisional.get("_base"):
        return {"result": CacheResult.WRITE.value, **_versions((after,))}
    reason = provisional.get("_idle", NoCommitReason.NOT_FOUND.value)
    is_found = reason != NoCommitReason.NOT_FOUND.value
    counts = UNCHANGED.known() if is_found else {}
    return {"result": CacheResult.NOOP.value, "reason": reason, **counts}
