"""Find a write's own commits in the log, and read the result and the metrics of the write from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, TypeAlias

from deltawitness.commit.log import CommitLog
from deltawitness.commit.metrics import normalize_metrics, reported_rows_added
from deltawitness.commit.reader import (
    CommitInfo,
    CommitMetadata,
    commit_metadata,
    is_integer,
    parse_commit_info,
)
from deltawitness.events import UNCHANGED, CommitMetrics, Landed
from deltawitness.semconv import CommitKey, Operation

__all__ = [
    "RawCommit",
    "combine_metrics",
    "failed_metrics",
    "find_commits",
    "find_landed",
    "metrics_of",
    "rows_added_of",
    "search_commits",
    "with_zeros",
]


_WRITE_ID = CommitKey.WRITE_ID.value


@dataclass(slots=True)
class RawCommit:
    """The content of a commit file, parsed at the first use.

    It is not changed after it is made. A frozen class would take longer to make, on the path of every write.
    """

    version: int
    content: bytes
    _parsed: CommitInfo | None = field(default=None, init=False, compare=False, repr=False)
    _metadata: CommitMetadata | None = field(default=None, init=False, compare=False, repr=False)

    def parsed(self) -> CommitInfo:
        """Return the `commitInfo` of the log, unchanged; it is parsed once."""
        if self._parsed is None:
            self._parsed = parse_commit_info(self.content)
        return self._parsed

    def info(self) -> CommitMetadata:
        """Return the metadata of the commit, which are made once."""
        if self._metadata is None:
            self._metadata = commit_metadata(self.version, self.parsed())
        return self._metadata

    def is_of(self, write_id: str) -> bool:
        """Return whether the commit carries an id: a write id, flat or in `userMetadata`, or a receipt id."""
        spelled = json.dumps(write_id, ensure_ascii=False)[1:-1]
        if spelled.encode() not in self.content:
            return False
        info = self.info()
        if write_id == info.metadata.get(_WRITE_ID):  # as nearly always: the mirror is not parsed
            return True
        return write_id in info.write_ids or write_id == info.receipt_id


@dataclass(frozen=True, slots=True)
class FoundCommits:
    """The result of a search.

    Attributes:
        commits: the write's commits, ascending.
        is_certain: whether every version that could be one of them was read.
    """

    commits: list[RawCommit]
    is_certain: bool


def find_commits(log: CommitLog, write_id: str, versions: Iterable[int]) -> list[RawCommit]:
    """Return the write's own commits among `versions`, up to the first version that is not in the log.

    Args:
        log: the table's log.
        write_id: the write id in the commits.
        versions: the versions to read, ascending.

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
    """Search a bounded number of versions for the write's commits.

    Args:
        log: the table's log.
        write_id: the write id in the commits.
        base: the table's version before the write; None when it is not known.
        tail: number of versions to read after `base`, and again at the end of the log.

    Raises:
        OSError: the storage cannot be read.
    """
    if base is not None:
        after = range(base + 1, base + 1 + tail)
        commits = find_commits(log, write_id, after)
        if commits or log.read(after.stop) is None:
            return FoundCommits(commits, is_certain=True)
    else:
        # Most writes without a known base created their table: one request instead of a listing.
        commits = find_commits(log, write_id, [0])
        if commits:
            return FoundCommits(commits, is_certain=True)
    newest = log.versions()[-tail:]
    is_all = base is None and (not newest or newest[0] == 0)
    return FoundCommits(find_commits(log, write_id, newest), is_certain=is_all)


def find_landed(
    log: CommitLog, write_id: str, base: int | None, tail: int
) -> tuple[Landed, list[RawCommit]]:
    """Return whether a write that raised has committed, and its commits.

    Args:
        log: the table's log.
        write_id: the write id in the commits.
        base: the table's version before the write; None when it is not known.
        tail: number of versions to read.

    Returns:
        `YES` with its commits; `NO` when every version that could be its commit was read; else `UNKNOWN`.
    """
    try:
        found = search_commits(log, write_id, base, tail)
    except Exception:  # noqa: BLE001 - for any error in reading the log, the answer is "unknown"
        return Landed.UNKNOWN, []
    if found.commits:
        return Landed.YES, found.commits
    return (Landed.NO if found.is_certain else Landed.UNKNOWN), []


def failed_metrics(
    operation: Operation, has_landed: Landed, commits: Sequence[RawCommit]
) -> CommitMetrics:
    """Return the metrics of a write that raised: zeros when it has not committed.

    Args:
        operation: the operation.
        has_landed: whether it has committed.
        commits: its own commits.
    """
    if has_landed is Landed.NO:
        return UNCHANGED
    return metrics_of(operation, commits)


def metrics_of(
    operation: Operation, commits: Iterable[RawCommit], returned: Mapping[str, Any] | None = None
) -> CommitMetrics:
    """Return the metrics of an operation from its commits and from what its call returned.

    Args:
        operation: the operation.
        commits: the write's own commits, ascending.
        returned: the metrics that the engine's call returned. They take precedence over those in the
            commits, except for counts and sizes of files.
    """
    committed = combine_metrics(operation, [_metrics_in(operation, commit) for commit in commits])
    if not returned:
        return committed
    return _fill(_file_metrics(committed), _fill(normalize_metrics(operation, returned), committed))


def rows_added_of(commit: RawCommit) -> int | None:
    """Return the number of rows that a WRITE has added, as :func:`metrics_of`, in less time.

    Args:
        commit: the only commit of the write.
    """
    reported = reported_rows_added(commit.parsed().operation_metrics)
    return metrics_of(Operation.WRITE, [commit]).rows_added if reported is None else reported


def combine_metrics(operation: Operation, parts: Iterable[CommitMetrics]) -> CommitMetrics:
    """Return the metrics of a write from those of its commits.

    The commits of an OPTIMIZE each report their own files, so they are added. In every other operation
    the later commit replaces the earlier: the start of a VACUUM reports what it will delete, its end
    what it has deleted.

    Args:
        operation: the operation.
        parts: metrics of each commit, ascending.
    """
    metrics = list(parts)
    if len(metrics) == 1:
        return metrics[0]
    combine = _sum_metrics if operation is Operation.OPTIMIZE else _prefer_second
    return reduce(combine, metrics, CommitMetrics())


def _metrics_in(operation: Operation, commit: RawCommit) -> CommitMetrics:
    reported = normalize_metrics(operation, commit.info().operation_metrics)
    counted = _count_actions(operation, commit.content)
    if counted is None:
        zeros = UNCHANGED
        if (
            operation is Operation.VACUUM
        ):  # no action lists the files that it deleted from the storage
            zeros = replace(UNCHANGED, files_deleted=None, bytes_deleted=None)
        return _fill(reported, zeros)
    # Count files by the actions: engines also count change data files among the added files.
    actions, files = counted.known(), _file_metrics(counted).known()
    return CommitMetrics(**{**actions, **reported.known(), **files})


def with_zeros(metrics: CommitMetrics) -> CommitMetrics:
    """Return metrics with zeros for unknown values, for an operation that changed nothing."""
    return _fill(metrics, UNCHANGED)


def _fill(first: CommitMetrics, second: CommitMetrics) -> CommitMetrics:
    """Return `first`, with its unknown values from `second`."""
    return replace(second, **first.known())


def _prefer_second(first: CommitMetrics, second: CommitMetrics) -> CommitMetrics:
    """Return `second`, with its unknown values from `first`."""
    return _fill(second, first)


def _sum_metrics(first: CommitMetrics, second: CommitMetrics) -> CommitMetrics:
    """Return the sums of the values that are known in either."""
    left, right = first.known(), second.known()
    sums = {name: left.get(name, 0) + right.get(name, 0) for name in left | right}
    return CommitMetrics(**sums)


def _file_metrics(metrics: CommitMetrics) -> CommitMetrics:
    return CommitMetrics(
        files_added=metrics.files_added,
        files_removed=metrics.files_removed,
        bytes_added=metrics.bytes_added,
        bytes_removed=metrics.bytes_removed,
    )


Action: TypeAlias = Mapping[str, Any]


def _count_actions(operation: Operation, content: bytes) -> CommitMetrics | None:
    """Return the metrics that follow from a commit's actions; None when it adds and removes no file.

    A file that one commit both adds and removes is one file with another deletion vector or other
    metadata: it counts as neither added nor removed.
    """
    adds, removes = _actions(content, "add"), _actions(content, "remove")
    if not adds and not removes:
        return None
    rows = _rows_changed(operation, adds, removes)
    if adds and removes:
        both = {add.get("path") for add in adds} & {remove.get("path") for remove in removes}
        adds = [add for add in adds if add.get("path") not in both]
        removes = [remove for remove in removes if remove.get("path") not in both]
    return CommitMetrics(
        **rows,
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
    """Return the row counts that follow from a commit's actions; None for those that do not.

    Any other operation returns an empty mapping: only its own metrics can report rows.
    """
    added, removed = _rows(adds), _rows(removes)
    match operation:
        case Operation.WRITE | Operation.CREATE_TABLE | Operation.CONVERT:
            # An overwrite of some rows copies the other rows of their files.
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
    key = f'"{kind}"'.encode()
    found = []
    for line in content.splitlines() if key in content else ():
        if key in line[:32]:
            action = json.loads(line).get(kind)
            if action is not None:
                found.append(action)
    return found


def _bytes(actions: Sequence[Action]) -> int | None:
    return _sum([action.get("size") for action in actions])


def _rows(files: Sequence[Action]) -> int | None:
    """Return the rows in files, without rows that deletion vectors delete; None when one is not known."""
    counts = []
    for file in files:
        count = json.loads(file.get("stats") or "{}").get("numRecords")
        vector = file.get("deletionVector") or {}
        counts.append(count - vector.get("cardinality", 0) if is_integer(count) else None)
    return _sum(counts)


def _sum(counts: list[Any]) -> int | None:
    """Return the sum; None when a count is not known."""
    return sum(counts) if all(is_integer(count) for count in counts) else None
