"""Commits read back with tolerance: what other readers choke on is reported, not raised."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.commit.log import CommitLog, open_log
from deltawitness.commit.private_api import storage_options_of
from deltawitness.exceptions import CommitNotFoundError
from deltawitness.semconv import RECEIPT_ID, RESERVED_COMMIT_KEYS, USER_METADATA, CommitKey

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["CommitMetadata", "history", "read_commit_metadata"]

# `job` and `tags` are reserved for readers with types, and yet a caller can have delta-rs write them.
_GENERATED = RESERVED_COMMIT_KEYS - {USER_METADATA, "job", "tags"}


@dataclass(frozen=True)
class CommitMetadata:
    """One commit's `commitInfo`, with the engine's own fields told apart from the metadata.

    Attributes:
        version: the table version it made.
        operation: what the engine says it did, if it says so.
        timestamp: milliseconds since the Unix epoch, if it is a number.
        engine_info: which engine wrote it.
        operation_parameters: the operation's parameters.
        operation_metrics: the operation's metrics, under the engine's names.
        metadata: every other key: ours and the caller's.
        problems: what a stricter reader would fail on, one sentence each.
    """

    version: int
    operation: str | None = None
    timestamp: int | None = None
    engine_info: str | None = None
    operation_parameters: Mapping[str, Any] = field(default_factory=dict)
    operation_metrics: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @cached_property
    def witness(self) -> Mapping[str, Any]:
        """Our own keys of this commit; from `userMetadata` when the flat ones are gone.

        Spark keeps `userMetadata` when it rewrites a commit and drops keys it does not know.
        """
        flat = {key.value: self.metadata[key] for key in CommitKey if key in self.metadata}
        return flat or _mirrored(self.metadata.get(USER_METADATA))

    @property
    def write_ids(self) -> frozenset[str]:
        """Every write id in it: a caller may have put one of its own in place of our flat one."""
        mirrored = _mirrored(self.metadata.get(USER_METADATA)).get(CommitKey.WRITE_ID)
        return frozenset(text for text in (self.write_id, mirrored) if isinstance(text, str))

    @property
    def receipt_id(self) -> str | None:
        """The id by which an unobserved write finds the commit that created its table."""
        return _text(self.metadata.get(RECEIPT_ID))

    @property
    def run_id(self) -> str | None:
        """The run that wrote it, when it was witnessed."""
        return self.witness.get(CommitKey.RUN_ID)

    @property
    def write_id(self) -> str | None:
        """The write that made it, when it was witnessed."""
        return self.witness.get(CommitKey.WRITE_ID)


def read_commit_metadata(
    table_or_uri: str | os.PathLike[str] | DeltaTable,
    version: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> CommitMetadata:
    """Return what one commit of a table says of itself, without opening the table.

    Args:
        table_or_uri: the table, or where it lies.
        version: which commit; the last one when None.
        storage_options: as for `DeltaTable`; those of the table when it is given as one.

    Raises:
        CommitNotFoundError: there is no such commit (any more).
        OSError: the storage cannot be read.
    """
    log = _log_of(table_or_uri, storage_options)
    wanted = _last(log) if version is None else version
    raw = None if wanted is None else log.read(wanted)
    if wanted is None or raw is None:
        asked = "any commit" if version is None else f"commit {version}"
        msg = f"the table's log does not hold {asked}"
        raise CommitNotFoundError(msg)
    return parse_commit(wanted, raw)


def history(
    table_or_uri: str | os.PathLike[str] | DeltaTable,
    limit: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> Iterator[CommitMetadata]:
    """Yield a table's commits, newest first, also from logs that `DeltaTable.history` fails on.

    Args:
        table_or_uri: the table, or where it lies.
        limit: how many commits at most, 0 or more; all that the log still holds when None.
        storage_options: as for `DeltaTable`; those of the table when it is given as one.

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

    A duplicate key counts with its first value, which is the engine's own; a broken line is
    passed over; both are named in `problems`.
    """
    problems: list[str] = []
    info = _commit_info(raw, problems)
    if info is None:
        return CommitMetadata(version, problems=(*problems, "the commit has no commitInfo"))
    in_commit_timestamp = info.get("inCommitTimestamp")
    if in_commit_timestamp is not None and not _is_integer(in_commit_timestamp):
        problems.append("inCommitTimestamp is not a number")
    timestamp = info.get("timestamp")
    return CommitMetadata(
        version=version,
        operation=_text(info.get("operation")),
        timestamp=timestamp if _is_integer(timestamp) else None,
        engine_info=_text(info.get("engineInfo")),
        operation_parameters=_mapping(info.get("operationParameters")),
        operation_metrics=_mapping(info.get("operationMetrics")),
        metadata={key: value for key, value in info.items() if key not in _GENERATED},
        problems=tuple(problems),
    )


def _commit_info(raw: bytes, problems: list[str]) -> dict[str, Any] | None:
    for line in raw.splitlines():
        # Actions that are no commitInfo are most of a large commit: not worth parsing here.
        if b'"commitInfo"' not in line[:32]:
            continue
        try:
            action = json.loads(line, object_pairs_hook=_first_value_of(problems))
        except ValueError:
            problems.append("the commitInfo line is not JSON")
            continue
        info = action.get("commitInfo") if isinstance(action, dict) else None
        if isinstance(info, dict):
            return info
    return None


def _first_value_of(problems: list[str]) -> Any:
    def keep_first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in pairs:
            if key in kept:
                problems.append(f"the key {key!r} is there twice")
            else:
                kept[key] = value
        return kept

    return keep_first


def _mirrored(user_metadata: object) -> Mapping[str, Any]:
    if not isinstance(user_metadata, str):
        return {}
    try:
        content = json.loads(user_metadata)
    except ValueError:
        return {}
    if not isinstance(content, dict) or CommitKey.WRITE_ID not in content:
        return {}
    return {key.value: content[key] for key in CommitKey if key in content}


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
