"""Read from a table's Delta log how many rows its last writes have added."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltawitness.commit.log import CommitLog, read_commits
from deltawitness.commit.outcome import RawCommit, metrics_of
from deltawitness.commit.reader import parse_commit
from deltawitness.semconv import Operation

if TYPE_CHECKING:
    from deltawitness.expectations.rules import Bounds, Within

__all__ = ["bounds_from_history", "rows_of_last_writes"]

MAX_READ = 1000
"""Versions that are read at most: a table may have few writes between many other commits."""

_CREATING = frozenset({"errorifexists", "error", "ignore"})


def bounds_from_history(rule: Within, log: CommitLog, version: int, mode: str) -> Bounds | None:
    """Return the bounds of `rows_added` for a write; None if the log has too few commits for the rule.

    Args:
        rule: the rule.
        log: the log of the table.
        version: the version of the table before the write.
        mode: the save mode of the write.

    Raises:
        OSError: the storage cannot be read.
    """
    rows = rows_of_last_writes(log, version, mode, rule.commits)
    if len(rows) < rule.min_commits:
        return None
    from statistics import median  # noqa: PLC0415 - every observed process imports this module

    middle = median(rows)
    return rule.low * middle, rule.high * middle


def rows_of_last_writes(log: CommitLog, version: int, mode: str, count: int) -> list[int]:
    """Return the rows that the newest writes with a save mode have added, newest first.

    A write that created the table counts for each mode.

    Args:
        log: the log of the table.
        version: the version to begin with.
        mode: the save mode, `append` or `overwrite`.
        count: maximum number of writes.

    Raises:
        OSError: the storage cannot be read.
    """
    found: list[int] = []
    modes = {mode, *_CREATING}
    lowest = max(-1, version - MAX_READ)
    while version > lowest and len(found) < count:
        versions = range(version, max(lowest, version - count), -1)
        for each, content in zip(versions, read_commits(log, versions), strict=True):
            if content is None:
                return found  # older commits are gone from the log
            rows = _rows_written(RawCommit(each, content), modes)
            if rows is not None and len(found) < count:
                found.append(rows)
        version = versions[-1] - 1
    return found


def _rows_written(commit: RawCommit, modes: set[str]) -> int | None:
    info = parse_commit(commit.version, commit.content)
    mode = info.operation_parameters.get("mode")
    if info.operation != Operation.WRITE or not isinstance(mode, str) or mode.lower() not in modes:
        return None
    return metrics_of(Operation.WRITE, [commit]).rows_added
