"""Read the files that commits add and remove, tolerantly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from deltawitness.commit.reader import CommitMetadata, parse_commit

__all__ = ["LoggedCommit", "LoggedFile", "actions_in", "logged_commit"]


@dataclass(frozen=True, slots=True)
class LoggedFile:
    """A file that a commit adds or removes.

    Attributes:
        path: its path relative to the table, not percent-encoded; a URI if it is in another table.
        size: its size in bytes; 0 if the commit does not say.
        changes_data: whether rows of the table change by it.
        removed_ms: when it was removed, in milliseconds since the Unix epoch; None for an added file.
    """

    path: str
    size: int
    changes_data: bool
    removed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class LoggedCommit:
    """One commit of a log, with its files.

    Attributes:
        metadata: its `commitInfo`.
        bytes: size of the commit file.
        added: the files that it adds, by path.
        removed: the files that it removes, by path.
        properties: the table's properties that it sets; None if it does not change the table's metadata.
        damaged: number of lines that are not JSON objects.
    """

    metadata: CommitMetadata
    bytes: int
    added: Mapping[str, LoggedFile] = field(default_factory=dict)
    removed: Mapping[str, LoggedFile] = field(default_factory=dict)
    properties: Mapping[str, str] | None = None
    damaged: int = 0

    @property
    def version(self) -> int:
        """Its version."""
        return self.metadata.version

    @property
    def is_damaged(self) -> bool:
        """Whether it is empty, or has lines that cannot be parsed."""
        return not self.bytes or self.damaged > 0

    @property
    def changes_data(self) -> bool:
        """Whether it changes rows."""
        files = (*self.added.values(), *self.removed.values())
        return any(file.changes_data for file in files)


def logged_commit(version: int, raw: bytes) -> LoggedCommit:
    """Return a commit with its files; lines that cannot be parsed are counted.

    Args:
        version: its version.
        raw: the content of the commit file.
    """
    added: dict[str, LoggedFile] = {}
    removed: dict[str, LoggedFile] = {}
    properties: Mapping[str, str] | None = None
    damaged = 0
    for name, action in actions_in(raw):
        if name == "add":
            file = _file(action, None)
            added[file.path] = file
        elif name == "remove":
            file = _file(action, _integer(action.get("deletionTimestamp")))
            removed[file.path] = file
        elif name == "metaData":
            found = action.get("configuration")
            properties = found if isinstance(found, dict) else {}
        elif not name:
            damaged += 1
    metadata = parse_commit(version, raw)
    return LoggedCommit(metadata, len(raw), added, removed, properties, damaged)


def actions_in(raw: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and value of each action of a commit; an empty name for a line that is no action.

    Args:
        raw: the content of the commit file.
    """
    for line in raw.splitlines():
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError:
            yield "", {}
            continue
        if not isinstance(found, dict):
            yield "", {}
            continue
        for name, action in found.items():
            yield name, action if isinstance(action, dict) else {}


def _file(action: Mapping[str, Any], removed_ms: int | None) -> LoggedFile:
    return LoggedFile(
        unquote(str(action.get("path") or "")),
        _integer(action.get("size")) or 0,
        action.get("dataChange") is not False,
        removed_ms,
    )


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
