"""Provisional records of writes, built on the caller's thread in a few microseconds.

Most of a record is the same for all writes of one kind to one table, run, thread and line of the program.
This part is encoded once as JSON text and joined with the few values of each write.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache

from deltawitness.call_site import CallSite
from deltawitness.commit.metadata import version_objects
from deltawitness.events import WriteIntent
from deltawitness.ledger.tables.write_rows import (
    as_json,
    intent_columns,
    ledger_uri,
    process_columns,
    reason_columns,
)
from deltawitness.redaction import redact_label
from deltawitness.run_context import RunContext

__all__ = ["intent_text", "provisional_text", "shared_text"]


def intent_text(intent: WriteIntent, location: str | None, table_id: str | None) -> str:
    """Return the JSON members that all provisional records of an intent share.

    Args:
        intent: the intent of the writes.
        location: the table's absolute location.
        table_id: the table's id.
    """
    row = intent_columns(intent) | {
        "table_uri": None if location is None else ledger_uri(location),
        "table_id": table_id,
        "inputs": version_objects(intent.inputs),
        "run_inputs": version_objects(intent.run_inputs),
    }
    return as_json(row)[1:-1]


@lru_cache(maxsize=64)
def _run_text(run_id: str, job: str, pid: int) -> str:
    row = {"run_id": run_id, "job": redact_label(job), **process_columns(), "pid": pid}
    return as_json(row)[1:-1]


def shared_text(
    intent: str,
    run: RunContext,
    thread: str,
    message: str | None = None,
    site: CallSite | None = None,
) -> str:
    """Return the members that the records of equal writes share, without the closing brace of the object.

    Args:
        intent: the text that :func:`intent_text` returned for the intent of the writes.
        run: their run.
        thread: name of the calling thread.
        message: why the program made the writes.
        site: the line of the program.
    """
    text = (
        f'{{{intent},{_run_text(run.run_id, run.job, os.getpid())},"thread":{_label_text(thread)}'
    )
    if message is not None or site is not None:
        text += _reason_text(message, site)
    return text


def provisional_text(  # noqa: PLR0913 - keyword-only values of one write
    shared: str,
    *,
    write_id: str,
    commit_write_id: str,
    started_at: int,
    duration_ns: int,
    trace_id: str | None,
    span_id: str | None,
    base: int | None,
    version: int | None,
    more: dict[str, object] | None = None,
) -> str:
    """Return a provisional record as JSON.

    Args:
        shared: the text that :func:`shared_text` returned for the write.
        write_id: id of the write.
        commit_write_id: the write id in its commit; differs from `write_id` if the caller set one.
        started_at: nanoseconds since the Unix epoch.
        duration_ns: nanoseconds that the engine's call took.
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        base: the table's version before the call.
        version: the table's version after the call.
        more: further members: an error, or the reason for no commit.
    """
    quoted = f'"{commit_write_id}"' if commit_write_id is write_id else json.dumps(commit_write_id)
    # Milliseconds by integers: the same number as text, where formatting a float is slow in cold caches.
    milliseconds, rest = divmod(duration_ns, 1_000_000)
    text = (
        f'{shared},"write_id":"{write_id}","event_time":{started_at // 1000},'
        f'"duration_ms":{milliseconds}.{rest:06d},"_mark":{quoted}'
    )
    if trace_id is not None:
        text += f',"trace_id":"{trace_id}","span_id":"{span_id}"'
    if base is not None:
        text += f',"_base":{base}'
    if version is not None:
        text += f',"_version":{version}'
    if more:
        text += "," + as_json(more)[1:-1]
    return text + "}"


@lru_cache(maxsize=256)
def _reason_text(message: str | None, site: CallSite | None) -> str:
    text = as_json(reason_columns(message, site))[1:-1]
    return f",{text}" if text else ""


@lru_cache(maxsize=256)
def _label_text(text: str) -> str:
    return json.dumps(redact_label(text))
