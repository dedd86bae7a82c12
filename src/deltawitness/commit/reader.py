"""Read commits tolerantly: content on which a stricter reader fails is reported, not raised."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.commit.log import CommitLog, open_log
from deltawitness.commit.private_api import storage_options_of
from deltawitness.exceptions import CommitNotFoundError
from deltawitness.semconv import RECEIPT_ID, RESERVED_COMMIT_KEYS, USER_METADATA, CommitKey

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "CommitInfo",
    "CommitMetadata",
    "commit_metadata",
    "history",
    "is_integer",
    "parse_commit",
    "parse_commit_info",
    "read_commit_metadata",
    "trace_ids_of",
]

# `job` and `tags` are reserved because typed readers parse them, but a caller can write them by delta-rs.
_GENERATED = RESERVED_COMMIT_KEYS - {USER_METADATA, "job", "tags"}


_ORIGIN = ("job", "notebook", "clusterId", "txnId")
"""Keys of the job, notebook, cluster and transaction of a commit. Keys that name a user are left out."""


@dataclass(frozen=True)
class CommitMetadata:
    """One commit's `commitInfo`, with the engine's fields separated from the metadata.

    Attributes:
        version: the table version of the commit.
        operation: the operation's name; None when it is missing or not text.
        timestamp: milliseconds since the Unix epoch; None when it is missing or not a number.
        engine_info: name and version of the engine that wrote the commit.
        operation_parameters: the operation's parameters.
        operation_metrics: the operation's metrics, under the engine's names.
        metadata: every other key: those of deltawitness and the caller's.
        origin: the keys in which an engine records what ran it: `job`, `notebook`, `clusterId` and `txnId`.
        problems: content on which a stricter reader fails, one sentence each.
    """

    version: int
    operation: str | None = None
    timestamp: int | None = None
    engine_info: str | None = None
    operation_parameters: Mapping[str, Any] = field(default_factory=dict)
    operation_metrics: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def witness(self) -> Mapping[str, Any]:
        """Our keys of this commit, from `userMetadata` when the flat keys are missing.

        Spark preserves `userMetadata` when it rewrites a commit, and drops keys that it does not know.
        A list that is JSON text in the log, as releases of delta-rs before 1.6.0 write it, is parsed.
        """
        flat = {key.value: self.metadata[key] for key in CommitKey if key in self.metadata}
        for key in _LISTS.intersection(flat):
            flat[key] = _list_from(flat[key])
        return flat or _mirrored(self.metadata.get(USER_METADATA))

    @property
    def is_from_spark(self) -> bool:
        """Whether our keys are in `userMetadata` alone, as in the commits of an observed Spark session."""
        is_flat = any(key.value in self.metadata for key in CommitKey)
        return not is_flat and bool(self.witness)

    @property
    def write_ids(self) -> frozenset[str]:
        """Every write id in the commit, flat and mirrored: a caller may have replaced the flat one."""
        mirrored = _mirrored(self.metadata.get(USER_METADATA)).get(CommitKey.WRITE_ID)
        return frozenset(text for text in (self.write_id, mirrored) if isinstance(text, str))

    @property
    def receipt_id(self) -> str | None:
        """The id by which an unobserved write finds the commit that created its table."""
        return _text(self.metadata.get(RECEIPT_ID))

    @property
    def run_id(self) -> str | None:
        """The id of the run that wrote it; None for an unobserved commit."""
        return self.witness.get(CommitKey.RUN_ID)

    @property
    def write_id(self) -> str | None:
        """The id of the write that made it; None for an unobserved commit."""
        return self.witness.get(CommitKey.WRITE_ID)


def read_commit_metadata(
    table_or_uri: str | os.PathLike[str] | DeltaTable,
    version: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> CommitMetadata:
    """Return the metadata of one commit of a table, without opening the table.

    Args:
        table_or_uri: an open table, or a table's path or URI.
        version: version of the commit; the last one when None.
        storage_options: as for `DeltaTable`; those of an open table when None.

    Raises:
        CommitNotFoundError: the log has no such commit; it may have been removed.
        OSError: the storage cannot be read.
    """
    log = _log_of(table_or_uri, storage_options)
    number = _last(log) if version is None else version
    raw = None if number is None else log.read(number)
    if number is None or raw is None:
        msg = (
            "there is no Delta log"
            if number is None or _last(log) is None
            else f"the table's log does not have commit {number}"
        )
        raise CommitNotFoundError(msg)
    return parse_commit(number, raw)


def history(
    table_or_uri: str | os.PathLike[str] | DeltaTable,
    limit: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> Iterator[CommitMetadata]:
    """Yield a table's commits, newest first, also from logs on which `DeltaTable.history` fails.

    Args:
        table_or_uri: an open table, or a table's path or URI.
        limit: maximum number of commits, 0 or more; all in the log when None.
        storage_options: as for `DeltaTable`; those of an open table when None.

    Raises:
        ValueError: the limit is negative.
        OSError: the storage cannot be read.
    """
    if limit is not None and limit < 0:
        msg = "limit: expected 0 or more"
        raise ValueError(msg)
    log = _log_of(table_or_uri, storage_options)
    for version in itertools.islice(reversed(log.versions()), limit):
        raw = log.read(version)
        if raw is not None:
            yield parse_commit(version, raw)


def _log_of(
    table_or_uri: str | os.PathLike[str] | DeltaTable, storage_options: dict[str, str] | None
) -> CommitLog:
    if isinstance(table_or_uri, str | os.PathLike):
        uri = os.fspath(table_or_uri)
        return open_log(str(Path(uri)) if isinstance(table_or_uri, Path) else uri, storage_options)
    options = storage_options or storage_options_of(table_or_uri)
    return open_log(table_or_uri.table_uri, options)


def _last(log: CommitLog) -> int | None:
    versions = log.versions()
    return versions[-1] if versions else None


def parse_commit(version: int, raw: bytes) -> CommitMetadata:
    """Return the `commitInfo` in `raw`, the content of a commit file.

    Of a duplicate key, the first value is used, which is the engine's. A line that is not JSON is
    skipped. Both are reported in `problems`.
    """
    return commit_metadata(version, parse_commit_info(raw))


class CommitInfo(NamedTuple):
    """The `commitInfo` of a commit in the log, unchanged.

    Attributes:
        fields: its keys and values; None if the commit has none.
        problems: what is wrong with it, such as a duplicate key.
    """

    fields: dict[str, Any] | None
    problems: list[str]

    @property
    def operation_metrics(self) -> Mapping[str, Any]:
        """The metrics of the operation, as the engine spells them."""
        return _mapping((self.fields or {}).get("operationMetrics"))


def commit_metadata(version: int, parsed: CommitInfo) -> CommitMetadata:
    """Return the metadata of a commit, from its parsed `commitInfo`.

    Args:
        version: version of the commit.
        parsed: its `commitInfo`.
    """
    info, problems = parsed.fields, list(parsed.problems)
    if info is None:
        return CommitMetadata(version, problems=(*problems, "the commit has no commitInfo"))
    in_commit_timestamp = info.get("inCommitTimestamp")
    if in_commit_timestamp is not None and not is_integer(in_commit_timestamp):
        problems.append("inCommitTimestamp is not a number")
    timestamp = info.get("timestamp")
    metadata = info.copy()
    for key in _GENERATED.intersection(info):
        del metadata[key]
    return CommitMetadata(
        version=version,
        operation=_text(info.get("operation")),
        timestamp=timestamp if is_integer(timestamp) else None,
        # delta-rs before 1.1.0 names itself only here.
        engine_info=_text(info.get("engineInfo")) or _text(info.get("clientVersion")),
        operation_parameters=_mapping(info.get("operationParameters")),
        operation_metrics=_mapping(info.get("operationMetrics")),
        metadata=metadata,
        problems=tuple(problems),
        origin={key: info[key] for key in _ORIGIN if info.get(key) is not None},
    )


def parse_commit_info(raw: bytes) -> CommitInfo:
    """Return the `commitInfo` in the content of a commit file, as :func:`parse_commit` reads it.

    Args:
        raw: the content.
    """
    problems: list[str] = []
    for line in raw.splitlines():
        # Skip other actions without parsing them: they are most of a large commit.
        if b'"commitInfo"' not in line[:32]:
            continue
        try:
            action = _parse(line, problems)
        except ValueError:
            problems.append("the commitInfo line is not JSON")
            continue
        info = action.get("commitInfo") if isinstance(action, dict) else None
        if isinstance(info, dict):
            return CommitInfo(info, problems)
    return CommitInfo(None, problems)


def _parse(line: bytes, problems: list[str]) -> Any:
    """Parse a line of a commit. Of a duplicate key, the first value is used, and a problem is added.

    Raises:
        ValueError: the line is not JSON.
    """
    try:
        return _UNIQUE_KEYS.decode(line.decode("utf-8", "surrogatepass"))
    except _DuplicateKeyError:
        return json.loads(line, object_pairs_hook=_first_value_of(problems))


class _DuplicateKeyError(Exception):
    """A key is twice in an object of JSON."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKeyError
    return found


_UNIQUE_KEYS = json.JSONDecoder(object_pairs_hook=_unique)
"""Made once, because each write of a pipeline parses its commit on the thread of the program."""


def _first_value_of(problems: list[str]) -> Any:
    def keep_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        first: dict[str, Any] = {}
        for key, value in pairs:
            if key in first:
                problems.append(f"the key {key!r} is there twice")
            else:
                first[key] = value
        return first

    return keep_first


_IDENTIFYING = frozenset({CommitKey.WRITE_ID.value, CommitKey.WITNESS_VERSION.value})
"""A JSON object with one of these keys is ours. Commits of a streaming query of Spark have no write id."""


def _mirrored(user_metadata: object) -> Mapping[str, Any]:
    if not isinstance(user_metadata, str):
        return {}
    try:
        content = json.loads(user_metadata)
    except ValueError:
        return {}
    if not isinstance(content, dict) or content.keys().isdisjoint(_IDENTIFYING):
        return {}
    return {key.value: content[key] for key in CommitKey if key in content}


_LISTS = frozenset({CommitKey.INPUTS.value, CommitKey.RUN_INPUTS.value})
"""Our keys whose values are lists."""


def _list_from(value: object) -> object:
    """Return a list that is JSON text; any other value unchanged."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        return value
    return found if isinstance(found, list) else value


def is_integer(value: object) -> bool:
    """Return whether a value of a JSON document is an integer; `true` and `false` are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


_TRACEPARENT = re.compile(
    r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}"
)


def trace_ids_of(traceparent: object) -> tuple[str | None, str | None]:
    """Return the ids of the trace and the span of a W3C `traceparent`; None for each if it is invalid.

    >>> trace_ids_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    ('4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7')
    """
    found = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    return (None, None) if found is None else (found[1], found[2])
