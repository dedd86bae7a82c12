"""The standard metadata of a commit: built from what is known of a write, merged with the caller's."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deltawitness.exceptions import MetadataKeyError
from deltawitness.redaction import key_hash, redact_label
from deltawitness.run import parse_scope
from deltawitness.semconv import (
    POLICY_UNMANAGED,
    RESERVED_COMMIT_KEYS,
    USER_METADATA,
    WITNESS_VERSION,
    CacheOperation,
    CacheResult,
    CacheScope,
    CommitKey,
)

if TYPE_CHECKING:
    from deltalake import CommitProperties

    from deltawitness.events import WriteIntent
    from deltawitness.run import RunContext

__all__ = ["CacheCommitMetadataRequest", "cache_commit_metadata"]


_OUR_KEYS = frozenset(key.value for key in CommitKey)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCommitMetadataRequest:
    """What a cache says of the commit it is about to make.

    Attributes:
        operation: what is done, one of :class:`deltawitness.semconv.CacheOperation`.
        cache_policy: name of the policy.
        cache_scope: one of :class:`deltawitness.semconv.CacheScope`.
        schema_hash: hash of the schema that is written.
        plan_hash: hash of the plan that makes the rows.
        cache_key: the entry's key.
        result: how it ends, one of :class:`deltawitness.semconv.CacheResult`.
        extra: further keys of the caller's own.
    """

    operation: CacheOperation | str
    cache_policy: str = POLICY_UNMANAGED
    cache_scope: CacheScope | str = CacheScope.DATASET
    schema_hash: str | None = None
    plan_hash: str | None = None
    cache_key: str | None = None
    result: CacheResult | str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)


def cache_commit_metadata(request: CacheCommitMetadataRequest) -> dict[str, str]:
    """Return the commit metadata of a cache write, for `CommitProperties(custom_metadata=...)`.

    Args:
        request: what is known; None fields are left out.

    Returns:
        A flat mapping of text to text, free of the keys that delta-rs reserves.

    Raises:
        ConfigurationError: the scope is outside its closed set.
        MetadataKeyError: operation or result is outside its closed set, an extra key is reserved
            by delta-rs or by the Delta protocol's typed readers, or is one of ours.

    >>> cache_commit_metadata(
    ...     CacheCommitMetadataRequest(
    ...         operation="write", cache_policy="nightly", cache_scope="view", extra={"team": "ops"}
    ...     )
    ... )
    {'cache_operation': 'write', 'cache_policy': 'nightly', 'cache_scope': 'view', 'team': 'ops'}
    """
    keys: dict[CommitKey, str | None] = {
        CommitKey.CACHE_OPERATION: _member(CacheOperation, request.operation),
        CommitKey.CACHE_POLICY: request.cache_policy,
        CommitKey.CACHE_SCOPE: parse_scope(request.cache_scope).value,
        CommitKey.SCHEMA_HASH: request.schema_hash,
        CommitKey.PLAN_HASH: request.plan_hash,
        CommitKey.CACHE_KEY: request.cache_key,
        CommitKey.CACHE_RESULT: request.result and _member(CacheResult, request.result),
    }
    ours = {key.value: value for key, value in keys.items() if value is not None}
    return ours | _checked_extra(request.extra)


def _member(choices: type[CacheOperation | CacheResult], value: str) -> str:
    try:
        return choices(value).value
    except ValueError:
        msg = f"{choices.__name__}: expected one of {', '.join(choices)}"
        raise MetadataKeyError(msg) from None


def _checked_extra(extra: Mapping[str, object]) -> dict[str, str]:
    for key in extra:
        if key in RESERVED_COMMIT_KEYS:
            msg = f"commit key {key!r} is reserved: readers of the Delta log expect their own value"
            raise MetadataKeyError(msg)
        if key in _OUR_KEYS:
            msg = f"commit key {key!r} is given by its own argument, not as an extra"
            raise MetadataKeyError(msg)
    return {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in extra.items()
        if value is not None
    }


def standard_metadata(
    intent: WriteIntent, run: RunContext, write_id: str, traceparent: str | None
) -> dict[str, Any]:
    """Return our keys for one commit; what is not known is left out.

    The cache key goes in as its hash, as it does in telemetry, so that the two can be joined; a
    policy name that holds a path or a secret is masked.
    """
    keys: dict[str, Any] = {
        CommitKey.RUN_ID.value: run.run_id,
        CommitKey.WRITE_ID.value: write_id,
    }
    if traceparent is not None:
        keys[CommitKey.TRACEPARENT.value] = traceparent
    keys[CommitKey.CACHE_POLICY.value] = redact_label(intent.policy)
    keys[CommitKey.CACHE_SCOPE.value] = intent.scope.value
    keys[CommitKey.CACHE_OPERATION.value] = intent.cache_operation.value
    if intent.cache_key is not None:
        keys[CommitKey.CACHE_KEY.value] = key_hash(intent.cache_key)
    if intent.schema_hash is not None:
        keys[CommitKey.SCHEMA_HASH.value] = intent.schema_hash
    if intent.plan_hash is not None:
        keys[CommitKey.PLAN_HASH.value] = intent.plan_hash
    if intent.inputs:
        keys[CommitKey.INPUTS.value] = [
            {"table_id": read.table_id, "version": read.version} for read in intent.inputs
        ]
    keys[CommitKey.WITNESS_VERSION.value] = WITNESS_VERSION
    return keys


def stamped(
    callers: CommitProperties | None, ours: Mapping[str, Any], *, mirror: bool
) -> CommitProperties | None:
    """Return the caller's commit properties with our keys added; the caller's object is not touched.

    Args:
        callers: the caller's properties: its keys win over ours, its retries and application
            transactions are kept. Metadata that is no mapping is left for the engine to refuse.
        ours: :func:`standard_metadata`.
        mirror: also put our keys into `userMetadata` as compact JSON, unless the caller set it.
    """
    from deltalake import CommitProperties  # noqa: PLC0415 - heavy, and loaded by the writer anyway

    given = getattr(callers, "custom_metadata", None)
    if given is not None and not isinstance(given, Mapping):
        return callers
    merged = {**ours, **(given or {})}
    if mirror and USER_METADATA not in merged:
        merged[USER_METADATA] = json.dumps(ours, separators=(",", ":"))
    if callers is None:
        return CommitProperties(custom_metadata=merged)
    # The class is a dataclass without fields: dataclasses.replace() would drop everything.
    properties = copy.copy(callers)
    properties.custom_metadata = merged
    return properties
