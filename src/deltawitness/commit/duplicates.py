"""Finds in a log what two compactions at once leave behind: a file that two commits removed.

delta-rs 1.6.6 lets both commit, and every row of the file is then in the table twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deltawitness.commit.log import CommitLog

__all__ = ["DuplicateRewrite", "find_duplicate_rewrites"]


@dataclass(frozen=True, slots=True)
class DuplicateRewrite:
    """A file whose rows are in the table twice.

    Attributes:
        path: the file, relative to the table.
        first: the version that removed it, and wrote its rows anew.
        second: the version that did the same once more: what to restore to is the one before it.
    """

    path: str
    first: int
    second: int


def find_duplicate_rewrites(
    log: CommitLog, versions: list[int] | None = None
) -> Iterator[DuplicateRewrite]:
    """Yield the files that were removed twice by commits that change no data.

    Args:
        log: the table's log.
        versions: which commits to look at, ascending; all that the log holds when None.

    Raises:
        OSError: the storage cannot be read.
    """
    removed: dict[str, int] = {}
    for version in log.versions() if versions is None else versions:
        for action in _actions(log.read(version) or b""):
            if "add" in action:
                removed.pop(str(action["add"].get("path")), None)
                continue
            remove = action["remove"]
            path = str(remove.get("path"))
            if remove.get("dataChange", True) is False and path in removed:
                yield DuplicateRewrite(path, removed[path], version)
            removed[path] = version


def _actions(content: bytes) -> Iterator[dict[str, dict[str, Any]]]:
    for line in content.splitlines():
        if line.startswith((b'{"remove"', b'{"add"')):
            yield json.loads(line)
