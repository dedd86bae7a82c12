"""How a write ended, told from the log: its own commits found, their metrics read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, TypeAlias

from deltawitness.commit.log import CommitLog
from deltawitness.commit.metrics import normalised
from deltawitness.commit.reader import parse_commit
from deltawitness.events import UNCHANGED, CommitMetrics, Landed
from deltawitness.semconv import Operation

__all__ = [
    "RawCommit",
    "failed_metrics",
    "find_commits",
    "find_landed",
    "metrics_of",
    "search_commits",
    "together",
    "unchanged",
]


@dataclass(frozen=True, slots=True)
class RawCommit:
    """A commit file as it was read, before anything in it is looked at."""

    version: int
    content: bytes

    def is_of(self, write_id: str) -> bool:
        """Return whether it carries an id: a write's, flat or mirrored, or that of a receipt."""
        spelled = json.dumps(write_id, ensure_ascii=False)[1:-1]
        if spelled.encode() not in self.content:
            return False
        info = parse_commit(self.version, self.content)
        return write_id in info.write_ids or write_id == info.receipt_id


@dataclass(frozen=True, slots=True)
class FoundCommits:
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


def search_commits(log: CommitLog, write_id: str, base: int | None, tail: int) -> FoundCommits:
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
            return FoundCommits(commits, is_certain=True)
    newest = log.versions()[-tail:]
    is_all = base is None and (not newest or newest[0] == 0)
    return FoundCommits(find_commits(log, write_id, newest), is_certain=is_all)


def find_landed(
    log: CommitLog, write_id: str, base: int | None, tail: int
) -> tuple[Landed, list[RawCommit]]:
    """Return whether a write that raised is in the log all the same.

    Args:
        log: the table's log.
        write_id: what our metadata in the commit must say.
        base: the table's version before the write; None when that is not known.
        tail: how many versions to look at.

    Returns:
        Yes with its commits; no when every version it could be was looked at; else unknown.
    """
    try:
        found = search_commits(log, write_id, base, tail)
    except Exception:  # noqa: BLE001 - whatever keeps the log from being read, the answer is "unknown"
        return Landed.UNKNOWN, []
    if found.commits:
        return Landed.YES, found.commits
    return (Landed.NO if found.is_certain else Landed.UNKNOWN), []


def failed_metrics(
    operation: Operation, answer: Landed, commits: Sequence[RawCommit]
) -> CommitMetrics:
    """Return what a write that raised has changed: as its commits say, and nothing without one.

    Args:
        operation: whose metrics.
        answer: whether it landed.
        commits: its own commits.
    """
    if answer is Landed.NO:
        return UNCHANGED
    return metrics_of(operation, commits)


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
    if not returned:
        return told
    return _completed(_of_files(told), _completed(normalised(operation, returned), told))


def together(operation: Operation, parts: Iterable[CommitMetrics]) -> CommitMetrics:
    """Return the metrics of a write from those of its commits.

    Args:
        operation: each commit of an OPTIMIZE tells of its own files; the end of a VACUUM says what
            was deleted, where its start says what was to be.
        parts: of each commit, ascending.
    """
    put = _added if operation is Operation.OPTIMIZE else _replaced
    return reduce(put, parts, CommitMetrics())


def _metrics_in(operation: Operation, commit: RawCommit) -> CommitMetrics:
    info = parse_commit(commit.version, commit.content)
    said = normalised(operation, info.operation_metrics)
    counted = _counted(operation, commit.content)
    if counted is None:
        nothing = UNCHANGED
        if operation is Operation.VACUUM:  # what it deleted from the storage is in no action
            nothing = replace(UNCHANGED, files_deleted=None, bytes_deleted=None)
        return _completed(said, nothing)
    # The actions are what the commit did; engines count change data files among those they added.
    return _completed(_of_files(counted), _completed(said, counted))


def unchanged(metrics: CommitMetrics) -> CommitMetrics:
    """Return metrics of an operation that changed nothing, its gaps filled with zeros."""
    return _completed(metrics, UNCHANGED)


def _completed(first: CommitMetrics, second: CommitMetrics) -> CommitMetrics:
    """Return `first`, its gaps filled from `second`."""
    return replace(second, **first.known())


def _replaced(first: CommitMetrics, second: CommitMetrics) -> CommitMetrics:
    """Return `second`, its gaps filled from `first`."""
    return _completed(second, first)


def _added(first: CommitMetrics, second: CommitMetrics) -> CommitMetrics:
    """Return the sums of what either says."""
    told, more = first.known(), second.known()
    sums = {name: told.get(name, 0) + more.get(name, 0) for name in told | more}
    return CommitMetrics(**sums)


def _of_files(metrics: CommitMetrics) -> CommitMetrics:
    return CommitMetrics(
        files_added=metrics.files_added,
        files_removed=metrics.files_removed,
        bytes_added=metrics.bytes_added,
        bytes_removed=metrics.bytes_removed,
    )


Action: TypeAlias = Mapping[str, Any]


def _counted(operation: Operation, content: bytes) -> CommitMetrics | None:
    """Return what the actions of a commit say; None when it adds and removes no file.

    A file that is added and removed by one commit is the same file with other rows deleted from it
    (a deletion vector), or with other facts about it: neither added nor removed.
    """
    adds, removes = _actions(content, "add"), _actions(content, "remove")
    if not adds and not removes:
        return None
    both = {add.get("path") for add in adds} & {remove.get("path") for remove in removes}
    rows = CommitMetrics(**_rows_changed(operation, adds, removes))
    adds = [add for add in adds if add.get("path") not in both]
    removes = [remove for remove in removes if remove.get("path") not in both]
    return replace(
        rows,
        files_added=len(adds),
        files_removed=len(removes),
        bytes_added=_bytes(adds),
        bytes_removed=_bytes(removes),
        files_deleted=0,
        bytes_deleted=0,
    )


def _rows_changed(
    operation: Operation, adds: Sequence[Action], removes: Sequence[Action]
) -> dict[str, int | None]:
    """Return the rows that follow from a commit's actions; what does not is None.

    An operation of which nothing is known here says itself what it did, or nobody does.
    """
    added, removed = _rows(adds), _rows(removes)
    match operation:
        case Operation.WRITE | Operation.CREATE_TABLE | Operation.CONVERT:
            # An overwrite of some rows writes the others of their files again.
            copied = None if removes else 0
            return _row_counts(added=added, updated=0, deleted=removed, copied=copied)
        case Operation.RESTORE | Operation.REPAIR:
            return _row_counts(added=added, updated=0, deleted=removed, copied=0)
        case Operation.OPTIMIZE:
            return _row_counts(added=0, updated=0, deleted=0, copied=added)
        case Operation.UPDATE:
            return _row_counts(added=0, deleted=0)
        case Operation.DELETE:
            return _row_counts(added=0, updated=0, deleted=None if adds else removed)
        case _:
            return {}


def _row_counts(**counts: int | None) -> dict[str, int | None]:
    return {f"rows_{name}": count for name, count in counts.items()}


def _actions(content: bytes, kind: str) -> list[Action]:
    mark = f'"{kind}"'.encode()
    found = []
    for line in content.splitlines() if mark in content else ():
        if mark in line[:32]:
            action = json.loads(line).get(kind)
            if action is not None:
                found.append(action)
    return found


def _bytes(actions: Sequence[Action]) -> int | None:
    return _sum([action.get("size") for action in actions])


def _rows(files: Sequence[Action]) -> int | None:
    """Return the rows of some files, those marked as deleted left out."""
    counts = []
    for file in files:
        count = json.loads(file.get("stats") or "{}").get("numRecords")
        vector = file.get("deletionVector") or {}
        counts.append(count - vector.get("cardinality", 0) if _is_count(count) else None)
    return _sum(counts)


def _sum(counts: list[Any]) -> int | None:
    """Return the sum, or None when one of them is not known."""
    return sum(counts) if all(_is_count(count) for count in counts) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
