"""Rows of the inventory from the commits of a write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from deltawitness.commit.outcome import combine_metrics
from deltawitness.commit.reader import trace_ids_of
from deltawitness.ids_and_clock import now_ns
from deltawitness.ledger.reconcile.log_reader import Commit
from deltawitness.ledger.reconcile.targets import Target
from deltawitness.ledger.tables.operation_names import (
    cache_operation_of,
    metrics_operation_of,
    operation_of,
    save_mode_of,
)
from deltawitness.ledger.tables.schema import Source
from deltawitness.ledger.tables.write_rows import restored_input
from deltawitness.locations import table_id
from deltawitness.redaction import (
    key_hash,
    redact_label,
    redact_message,
    redact_text,
    table_name_for,
)
from deltawitness.semconv import (
    POLICY_UNMANAGED,
    USER_METADATA,
    CacheResult,
    CacheScope,
    CommitKey,
    ExpectationResult,
    ExpectationRule,
    Operation,
)
from deltawitness.settings import Settings

__all__ = ["row_from_log"]

Row = dict[str, Any]

_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_RULE = rf"(?:{'|'.join(ExpectationRule)})(?:\([^()]*\))?"
_RULES = re.compile(rf"{_RULE}(?:,{_RULE})*(?:\.\.\.)?")
_ENGINE_LENGTH = 200
_COUNT_LIMIT = 1 << 63
"""Counts from this one on do not fit an int64 column; a log may contain any number."""

_CREATING = frozenset({Operation.CREATE_TABLE, Operation.CONVERT})
"""Operations that ignore an existing table: the table is named by its location only."""


def row_from_log(
    commits: Sequence[Commit], target: Target, name: str | None, settings: Settings
) -> Row:
    """Return the row of a write from its commits.

    Args:
        commits: all commits of the write, ascending.
        target: the table.
        name: the table's name in its metadata when the write began.
        settings: whether table ids are keyed, and which table names may be recorded.
    """
    first, info = commits[0], commits[0].info
    keys = info.witness
    operation = operation_of(info.operation)
    versions = [commit.version for commit in commits]
    trace_id, span_id = trace_ids_of(keys.get(CommitKey.TRACEPARENT))
    key = _text(keys.get(CommitKey.CACHE_KEY))
    identity = table_id(target.uri, key=settings.table_id_key)
    named = None if operation in _CREATING else name
    return {
        "event_time": now_ns() // 1000 if first.time is None else first.time * 1000,
        "run_id": _plain(keys.get(CommitKey.RUN_ID)),
        "write_id": first.row_id,
        "trace_id": trace_id,
        "span_id": span_id,
        "operation": operation.value if operation else _label(info.operation),
        "cache_operation": cache_operation_of(
            info.operation, keys.get(CommitKey.CACHE_OPERATION)
        ).value,
        "scope": _scope(keys.get(CommitKey.CACHE_SCOPE)),
        "policy": _label(keys.get(CommitKey.CACHE_POLICY)) or POLICY_UNMANAGED,
        "key": None if key is None else key_hash(key),
        "result": CacheResult.WRITE.value,
        "table_uri": target.uri,
        "table_id": identity,
        "table_name": table_name_for(target.uri, named, settings.table_names),
        "version": versions[-1],
        "versions": versions,
        "mode": _label(save_mode_of(info.operation_parameters.get("mode"))),
        "schema_hash": _plain(keys.get(CommitKey.SCHEMA_HASH)),
        "plan_hash": _plain(keys.get(CommitKey.PLAN_HASH)),
        "plan_shape_hash": _plain(keys.get(CommitKey.PLAN_SHAPE_HASH)),
        "inputs": _inputs(keys.get(CommitKey.INPUTS)),
        "run_inputs": _inputs(keys.get(CommitKey.RUN_INPUTS)),
        **restored_input(info, identity, target.uri),
        "parts": _count(keys.get(CommitKey.PARTS)),
        "expectation_result": _expectation_result(keys.get(CommitKey.EXPECTATION_RESULT)),
        "expectations": _rules(keys.get(CommitKey.EXPECTATIONS)),
        "expectations_unmet": _rules(keys.get(CommitKey.EXPECTATIONS_UNMET)),
        **_metrics(commits),
        "engine": (_text(info.engine_info) or "")[:_ENGINE_LENGTH] or None,
        "witness_version": _plain(keys.get(CommitKey.WITNESS_VERSION)),
        "source": (Source.SPARK if info.is_from_spark else Source.RECONCILED).value,
        "job": _label(keys.get(CommitKey.JOB_NAME)),
        "message": _message(keys.get(CommitKey.MESSAGE) or _user_metadata(first)),
    }


def _metrics(commits: Sequence[Commit]) -> dict[str, int]:
    info = commits[0].info
    operation = metrics_operation_of(info.operation, info.witness.get(CommitKey.CACHE_OPERATION))
    counts = combine_metrics(operation, [commit.metrics for commit in commits]).known()
    return {name: count for name, count in counts.items() if abs(count) < _COUNT_LIMIT}


def _inputs(value: object) -> list[Row] | None:
    reads = value if isinstance(value, list) else []
    return [
        {"table_id": _plain(read.get("table_id")), "uri": None, "version": _count(read["version"])}
        for read in reads
        if isinstance(read, dict) and "version" in read
    ] or None


def _count(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < _COUNT_LIMIT else None


def _scope(value: object) -> str:
    is_known = isinstance(value, str) and value in set(CacheScope)
    return str(value) if is_known else CacheScope.DATASET.value


def _expectation_result(value: object) -> str | None:
    return value if isinstance(value, str) and value in set(ExpectationResult) else None


def _rules(value: object) -> str | None:
    """Return a list of rules with columns; redact a text of any other form, which a caller may have set."""
    text = _text(value)
    return text if text is None or _RULES.fullmatch(text) else redact_text(text)


def _text(value: object) -> str | None:
    # A string column cannot hold a lone surrogate.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _label(value: object) -> str | None:
    text = _text(value)
    return None if text is None else redact_label(text)


def _message(value: object) -> str | None:
    text = _text(value)
    return None if text is None else redact_message(text)


def _user_metadata(commit: Commit) -> object:
    """Return the text that another program wrote with its commit; None for our own mirror."""
    return None if commit.is_witnessed else commit.info.metadata.get(USER_METADATA)


def _plain(value: object) -> str | None:
    """Return an id or a hash; redact a text of any other form, which a caller may have set."""
    text = _text(value)
    return text if text is None or _PLAIN.fullmatch(text) else redact_text(text)
