"""How a write ended, told from the log: its own commits found, their metrics read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from deltawitness.commit.log import CommitLog
from deltawitness.commit.metrics import normalised
from deltawitness.commit.reader import parse_commit
from deltawitness.events import CommitMetrics, Landed
from deltawitness.semconv import Operation

__all__ = ["RawCommit", "find_commits", "landed", "metrics_of", "search_commits", "together"]


@dataclass(frozen=True, slots=True)
class RawCommit:
    """A commit file as it was read, before anything in it is looked at."""

    version: int
    content: bytes

    def is_of(self, write_id: str) -> bool:
        """Tell whether this commit carries the write's id, in the flat key or the mirrored one."""
        spelled = json.dumps(write_id, ensure_ascii=False)[1:-1]
        return spelled.encode() in self.content and (
            write_id in parse_commit(self.version, self.content).write_ids
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, and whether it looked at every version that could have been it."""

    commits: list[RawCommit]
    is_certain: bool


def find_commits(log: CommitLog, write_id: str, versions: Iterable[int]) -> list[RawCommit]:
    """Return the write's own commits among `versions`; the search ends where the log does.

    Args:
        log: the table's log.
        write_id: what our metadata in the commit must say.
        versions: the versions to look at, ascending.

    Raises:
        OSError: the storage cannot be read.
    """
    found = []
    for version in versions:
        content = log.read(version)
        if content is None:
            break
        commit = RawCommit(version, content)
        if commit.is_of(write_id):
            found.append(commit)
    return found


def search_commits(log: CommitLog, write_id: str, base: int | None, tail: int) -> Found:
    """Look for the write's commits where they must be, and no further than a bound.

    Args:
        log: the table's log.
        write_id: what our metadata in the commit must say.
        base: the table's version before the write; None when that is not known.
        tail: how many versions to look at, from `base` on and again from the log's end.

    Raises:
        OSError: the storage cannot be read.
    """
    if base is not None:
        after = range(base + 1, base + 1 + tail)
        commits = find_commits(log, write_id, after)
        if commits or log.read(after.stop) is None:
            return Found(commits, is_certain=True)
    newest = log.versions()[-tail:]
    is_all = base is None and (not newest or newest[0] == 0)
    return Found(find_commits(log, write_id, newest), is_certain=is_all)


def landed(log: CommitLog, write_id: str, base: int | None, tail: int) -> tuple[Landed, int | None]:
    """Tell whether a write that raised is in the log all the same.

    Args:
        log: the table's log.
        write_id: what our metadata in the commit must say.
        base: the table's version before the write; None when that is not known.
        tail: how many versions to look at.

    Returns:
        Yes with the version; no when every version it could be was looked at; else unknown.
    """
    try:
        found = search_commits(log, write_id, base, tail)
    except Exception:  # noqa: BLE001 - whatever keeps the log from being read, the answer is "unknown"
        return Landed.UNKNOWN, None
    if found.commits:
        return Landed.YES, found.commits[-1].version
    return (Landed.NO if found.is_certain else Landed.UNKNOWN), None


def metrics_of(
    operation: Operation, commits: Iterable[RawCommit], returned: Mapping[str, Any] | None = None
) -> CommitMetrics:
    """Return the metrics of an operation from its commits and from what its call returned.

    Args:
        operation: whose metrics.
        commits: the write's own commits, ascending.
        returned: the metrics that the engine's call returned, which win where they speak.
    """
    told = together(operation, [_metrics_in(operation, commit) for commit in commits])
    return _completed(normalised(operation, returned), told) if returned else told


def together(operation: Operation, parts: Iterable[CommitMetrics]) -> CommitMetrics:
    """Return the metrics of a write from those of its commits.

    Args:
        operation: each commit of an OPTIMIZE tells of its own files; of any other, the later ones
            complete what the first says.
        parts: of each commit, ascending.
    """
    put = _added if operation is Operation.OPTIMIZE else _completed
    return reduce(put, parts, CommitMetrics())


def _metrics_in(operation: Operation, commit: RawCommit) -> CommitMetrics:
    info = parse_commit(commit.version, commit.content)
    said = normalised(operation, info.operation_metrics)
    return _completed(said, _counted(operation, commit.content))


def _completed(first: CommitMetrics, second: CommitMetrics) -> CommitMetrics:
    """Return `first`, its gaps filled from `second`."""
    return replace(second, **first.known())


def _added(first: CommitMetrics, second: CommitMetrics) -> CommitMetrics:
    """Return the sums of what either says."""
    told, more = first.known(), second.known()
    sums = {name: told.get(name, 0) + more.get(name, 0) for name in told | more}
    return CommitMetrics(**sums)


def _counted(operation: Operation, content: bytes) -> CommitMetrics:
    """Count what the actions of a commit say, for what the engine's metrics leave out."""
    adds = [action["add"] for action in _actions(content, b'{"add"')]
    removes = [action["remove"] for action in _actions(content, b'{"remove"')]
    if not adds and not removes:
        return CommitMetrics()
    return CommitMetrics(
        rows_added=_rows(adds) if operation in _ADDS_ROWS else None,
        files_added=len(adds),
        files_removed=len(removes),
        bytes_added=_bytes(adds),
        bytes_removed=_bytes(removes),
    )


_ADDS_ROWS = frozenset({Operation.WRITE, Operation.CREATE_TABLE, Operation.CONVERT})


def _actions(content: bytes, prefix: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines() if line.startswith(prefix)]


def _bytes(actions: list[dict[str, Any]]) -> int | None:
    return _sum([action.get("size") for action in actions])


def _rows(adds: list[dict[str, Any]]) -> int | None:
    counts = [json.loads(add.get("stats") or "{}").get("numRecords") for add in adds]
    return _sum(counts)


def _sum(counts: list[Any]) -> int | None:
    """Return the sum, or None when one of them is not known."""
    return sum(counts) if all(isinstance(count, int) for count in counts) else None
