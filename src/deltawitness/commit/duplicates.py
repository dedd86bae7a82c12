"""Find files that two concurrent compactions have both rewritten.

delta-rs 1.6.6 commits both compactions, and every row of such a file is then in the table twice.
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
        first: the version that removed it and rewrote its rows.
        second: the version that did the same again. To repair the table, restore the version before it.
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
        versions: the commits to read, ascending; all in the log when None.

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
