"""The standard metadata of a commit: built from a write's intent, merged with the caller's metadata."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from deltawitness.commit.engine_version import takes_any_metadata
from deltawitness.exceptions import MetadataKeyError
from deltawitness.redaction import (
    TEXT_LIMIT,
    key_hash,
    redact_label,
    redact_message,
    redact_named,
    redact_text,
    redact_value,
    redact_version,
)
from deltawitness.run_context import CacheContext, RunContext, parse_scope
from deltawitness.semconv import (
    POLICY_UNMANAGED,
    RESERVED_COMMIT_KEYS,
    USER_METADATA,
    WITNESS_VERSION,
    CacheOperation,
    CacheResult,
    CacheScope,
    CommitKey,
    ExpectationResult,
)

if TYPE_CHECKING:
    from deltalake import CommitProperties

    from deltawitness.events import (
        ExpectationCheck,
        ExpectationReport,
        InputVersion,
        WriteIntent,
    )

__all__ = [
    "CacheCommitMetadataRequest",
    "Stamp",
    "cache_commit_metadata",
    "keys_of_expectations",
    "keys_of_run",
    "version_objects",
]


_OUR_KEYS = frozenset(key.value for key in CommitKey)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCommitMetadataRequest:
    """A cache's input to the metadata of its next commit.

    Attributes:
        operation: the operation, one of :class:`deltawitness.semconv.CacheOperation`.
        cache_policy: name of the policy.
        cache_scope: one of :class:`deltawitness.semconv.CacheScope`.
        schema_hash: hash of the written schema.
        plan_hash: hash of the plan that produces the rows.
        cache_key: the entry's key.
        result: the result, one of :class:`deltawitness.semconv.CacheResult`.
        extra: further keys of the caller. Values of secrets are masked, paths and literals are removed
            from text that is not a plain name, and long values are truncated.
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
        request: the metadata; fields that are None are left out.

    Returns:
        A flat mapping of text to text, without the keys that delta-rs reserves. The cache key is
        hashed and the policy is redacted to a label, as in every observed commit.

    Raises:
        ConfigurationError: the scope is outside its closed set.
        MetadataKeyError: operation or result is outside its closed set, an extra key is reserved
            by delta-rs or by the Delta protocol's typed readers, or is a key of deltawitness.

    >>> cache_commit_metadata(
    ...     CacheCommitMetadataRequest(
    ...         operation="write", cache_policy="nightly", cache_scope="view", extra={"team": "ops"}
    ...     )
    ... )
    {'cache_operation': 'write', 'cache_policy': 'nightly', 'cache_scope': 'view', 'team': 'ops'}
    """
    keys: dict[CommitKey, str | None] = {
        CommitKey.CACHE_OPERATION: _member(CacheOperation, request.operation),
        CommitKey.CACHE_POLICY: redact_label(request.cache_policy),
        CommitKey.CACHE_SCOPE: parse_scope(request.cache_scope).value,
        CommitKey.SCHEMA_HASH: request.schema_hash,
        CommitKey.PLAN_HASH: request.plan_hash,
        CommitKey.CACHE_KEY: None if request.cache_key is None else key_hash(request.cache_key),
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
    return {key: _extra_text(key, value) for key, value in extra.items() if value is not None}


EXTRA_LIMIT = 4096
"""Maximum characters of an extra's value as JSON: every reader of the table reads the log, repeatedly."""


def _extra_text(key: str, value: object) -> str:
    """Return the value of an extra key as text, with secrets, paths and long text masked."""
    if isinstance(value, str):
        masked = redact_named(key, value)
        return masked if len(masked) <= TEXT_LIMIT else redact_text(masked)
    plain = json.loads(json.dumps(value, default=str))
    redacted = redact_value({key: plain}).popitem()[1]
    text = redacted if isinstance(redacted, str) else json.dumps(redacted, default=str)
    return text if len(text) <= EXTRA_LIMIT else f"[{type(value).__name__}]"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Our metadata for the commits of one kind of write to one table.

    It is computed once, because it is applied to each commit on the caller's thread.

    Attributes:
        keys: our keys, except the ids of a single write. Lists are JSON text where the engine takes
            text alone.
        mirror_end: the keys as JSON, without the opening brace: the end of a JSON object.
    """

    keys: Mapping[str, Any]
    mirror_end: str

    @classmethod
    def of(cls, intent: WriteIntent) -> Stamp:
        """Return the stamp for writes of this intent, without keys whose value is not known.

        The cache key is hashed as in telemetry, so that the two can be joined. A policy name
        with a path or a secret in it is masked.
        """
        key = intent.cache_key
        optional: dict[CommitKey, Any] = {
            CommitKey.CACHE_KEY: None if key is None else key_hash(key),
            CommitKey.SCHEMA_HASH: intent.schema_hash,
            CommitKey.PLAN_HASH: intent.plan_hash,
            CommitKey.PLAN_SHAPE_HASH: intent.plan_shape_hash,
            CommitKey.INPUTS: version_objects(intent.inputs),
            CommitKey.RUN_INPUTS: version_objects(intent.run_inputs),
            CommitKey.PARTS: intent.parts,
        }
        keys: dict[str, Any] = {
            CommitKey.CACHE_POLICY.value: redact_label(intent.policy),
            CommitKey.CACHE_SCOPE.value: intent.scope.value,
            CommitKey.CACHE_OPERATION.value: intent.cache_operation.value,
            # A commit exists only where the write succeeded: a miss or an error makes none.
            CommitKey.CACHE_RESULT.value: CacheResult.WRITE.value,
            **{name.value: value for name, value in optional.items() if value is not None},
            CommitKey.WITNESS_VERSION.value: WITNESS_VERSION,
        }
        flat = keys if takes_any_metadata() else {name: _as_text(keys[name]) for name in keys}
        return cls(flat, json.dumps(keys, separators=(",", ":"))[1:])

    def with_run(self, run: RunStamp) -> Stamp:
        """Return the stamp for writes of a run: our keys about the run come first."""
        return Stamp({**run.keys, **self.keys}, run.mirror_part + self.mirror_end)

    def apply(
        self,
        callers: CommitProperties | None,
        *,
        run_id: str,
        write_id: str,
        traceparent: str | None,
        mirror: bool,
    ) -> CommitProperties | None:
        """Return a copy of the caller's commit properties with our keys added.

        Args:
            callers: the caller's properties. Its keys take precedence; its retries and
                application transactions stay. Properties whose metadata is not a mapping are returned
                unchanged, for the engine to reject.
            run_id: id of the run. This and the other ids need no escapes in JSON.
            write_id: id of the write.
            traceparent: W3C trace context of the write's span.
            mirror: also write our keys to `userMetadata` as compact JSON, unless the caller set it.
        """
        given = None if callers is None else callers.custom_metadata
        if given is not None and not isinstance(given, Mapping):
            return callers
        ours: dict[str, Any] = {_RUN_ID: run_id, _WRITE_ID: write_id}
        trace = ""
        if traceparent is not None:
            ours[_TRACEPARENT] = traceparent
            trace = f'"{_TRACEPARENT}":"{traceparent}",'
        ours.update(self.keys)
        if mirror:
            ids = f'{{"{_RUN_ID}":"{run_id}","{_WRITE_ID}":"{write_id}",'
            ours[USER_METADATA] = ids + trace + self.mirror_end
        if callers is None:
            return _commit_properties()(custom_metadata=ours)
        # CommitProperties is a dataclass without fields: dataclasses.replace() would drop everything.
        properties = copy.copy(callers)
        properties.custom_metadata = {**ours, **(given or {})}
        return properties


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class RunStamp:
    """Our metadata for the commits of one run: job name, message, author and code version.

    Attributes:
        keys: the commit keys, without those that have no value.
        mirror_part: `keys` as members of a JSON object, with a comma after each.
    """

    keys: Mapping[str, str]
    mirror_part: str

    @classmethod
    def of(cls, run: RunContext, message: str | None) -> RunStamp:
        """Return the stamp for writes of a run.

        Args:
            run: the run.
            message: the message of the write's cache context, which precedes the message of the run.
        """
        origin = run.origin
        return _run_stamp(run.job, message or run.message, origin.author, origin.code_version)

    def with_keys(self, keys: Mapping[str, str]) -> RunStamp:
        """Return the stamp with further commit keys."""
        text = json.dumps(keys, separators=(",", ":"))[1:-1]
        part = f"{self.mirror_part}{text}," if text else self.mirror_part
        return RunStamp({**self.keys, **keys}, part)


EXPECTATIONS_LIMIT = 1024
"""Maximum characters of a list of rules in a commit and in the ledger."""


def keys_of_expectations(report: ExpectationReport | None) -> dict[str, str]:
    """Return the commit keys of the expectations of a write, which are also columns of the ledger.

    The lists have the rules with their columns, such as `rows_added,nulls(id)`.

    Args:
        report: the report of the write; None if no expectation applies to it.
    """
    if report is None:
        return {}
    unmet = () if report.result is ExpectationResult.PASSED else report.unmet
    values = {
        CommitKey.EXPECTATION_RESULT: report.result.value,
        CommitKey.EXPECTATIONS: _labels(report.checked),
        CommitKey.EXPECTATIONS_UNMET: _labels(unmet),
    }
    return {name.value: value for name, value in values.items() if value}


def _labels(checks: tuple[ExpectationCheck, ...]) -> str:
    text = ",".join(dict.fromkeys(check.label for check in checks))
    return text if len(text) <= EXPECTATIONS_LIMIT else f"{text[: EXPECTATIONS_LIMIT - 3]}..."


@lru_cache(maxsize=256)
def _run_stamp(
    job: str, message: str | None, author: str | None, code_version: str | None
) -> RunStamp:
    values = {
        CommitKey.JOB_NAME: redact_label(job),
        CommitKey.MESSAGE: message and redact_message(message),
        CommitKey.AUTHOR: author and redact_message(author),
        CommitKey.CODE_VERSION: code_version and redact_version(code_version),
    }
    keys = {name.value: value for name, value in values.items() if value}
    text = json.dumps(keys, separators=(",", ":"))[1:-1]
    return RunStamp(keys, f"{text}," if text else "")


def keys_of_run(run: RunContext, cache: CacheContext) -> dict[str, str]:
    """Return our keys for the commits that an engine other than delta-rs makes in a run.

    They are those of an observed commit, without the ids of the write and without what only its engine
    knows: the operation, the schema, the plan.

    Args:
        run: the run.
        cache: policy, scope, key and message of the program's context.
    """
    return {
        _RUN_ID: run.run_id,
        **RunStamp.of(run, cache.message).keys,
        CommitKey.CACHE_POLICY.value: redact_label(cache.policy or POLICY_UNMANAGED),
        CommitKey.CACHE_SCOPE.value: (cache.scope or CacheScope.DATASET).value,
        **({} if cache.key is None else {CommitKey.CACHE_KEY.value: key_hash(cache.key)}),
        CommitKey.CACHE_RESULT.value: CacheResult.WRITE.value,
        CommitKey.WITNESS_VERSION.value: WITNESS_VERSION,
    }


def version_objects(reads: tuple[InputVersion, ...]) -> list[dict[str, object]] | None:
    """Return versions as objects for JSON; None without versions.

    Args:
        reads: the versions that a write reads.
    """
    return [{"table_id": read.table_id, "version": read.version} for read in reads] or None


def effective_write_id(properties: CommitProperties) -> str | None:
    """Return the write id in commit properties, which may be the caller's; None where there is none."""
    given = properties.custom_metadata
    write_id = given.get(_WRITE_ID) if isinstance(given, Mapping) else None
    return write_id if isinstance(write_id, str) else None


_RUN_ID = CommitKey.RUN_ID.value
_WRITE_ID = CommitKey.WRITE_ID.value
_TRACEPARENT = CommitKey.TRACEPARENT.value


@cache
def _commit_properties() -> type[CommitProperties]:
    from deltalake import CommitProperties  # noqa: PLC0415 - heavy, and loaded by the writer anyway

    return CommitProperties
