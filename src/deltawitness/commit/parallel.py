"""Read the logs of many tables on object stores in parallel, with a bounded number of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from deltawitness.commit.log import CommitLog, RemoteLog

__all__ = ["CONCURRENT_READS", "CONCURRENT_TABLES", "LogReaders"]

CONCURRENT_TABLES = 16
"""Maximum number of tables that are read at the same time."""

CONCURRENT_READS = 32
"""Maximum number of commits that are requested at the same time, over all tables."""

COMMITS_PER_BATCH = 200
"""Commits that are requested together, which bounds how many raw commits are in memory."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class LogReaders:
    """Threads that read logs on object stores; a context manager.

    The threads start with the first remote log. A log on a local disk is read on the caller's thread.
    """

    def __init__(self) -> None:
        self._tables = ThreadPoolExecutor(CONCURRENT_TABLES, "deltawitness-tables")
        self._reads = ThreadPoolExecutor(CONCURRENT_READS, "deltawitness-commits")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for threads in (self._tables, self._reads):
            threads.shutdown(cancel_futures=error is not None)

    def map(
        self, read: Callable[[_Item], _Result], tables: Sequence[_Item], *, is_remote: bool
    ) -> Iterator[_Result]:
        """Yield the result of a function for each table, in the order of the tables.

        Args:
            read: the function; several threads call it at the same time for remote tables.
            tables: its arguments.
            is_remote: whether any table is on an object store.
        """
        if is_remote and len(tables) > 1:
            return self._tables.map(read, tables)
        return map(read, tables)

    def commits(
        self, log: CommitLog, versions: Sequence[int]
    ) -> Iterator[tuple[int, bytes | None]]:
        """Yield the raw commits of a log in the given order, None for one that does not exist.

        Args:
            log: the log.
            versions: the versions to read.

        Raises:
            OSError: the storage cannot be read.
        """
        if not isinstance(log, RemoteLog):
            for version in versions:
                yield version, log.read(version)
            return
        for start in range(0, len(versions), COMMITS_PER_BATCH):
            batch = versions[start : start + COMMITS_PER_BATCH]
            yield from zip(batch, self._reads.map(log.reader(batch), batch), strict=True)
