"""Read the raw commits of a table without opening the table.

Opening a table takes milliseconds, and longer with a longer log. A commit's file name follows from its
version, so one read is enough: a file on a local disk, one ranged GET on an object store.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deltawitness.commit.early_reads import current_early_reads, early_reads
from deltawitness.commit.private_api import (
    modified_ms_of,
    read_file,
    remote_store,
    store_of,
)
from deltawitness.forks import importing
from deltawitness.locations import local_path

if TYPE_CHECKING:
    from deltalake._internal import RawDeltaTable

__all__ = [
    "LOG_DIRECTORY",
    "CommitLog",
    "LocalLog",
    "RemoteLog",
    "TableLog",
    "are_reads_reused",
    "commit_file",
    "local_log_directory",
    "open_log",
    "read_commits",
    "remember_read",
    "reuse_reads",
    "start_reads",
    "versions_of",
]

LOG_DIRECTORY = "_delta_log"
_COMMIT_FILE = re.compile(r"(\d{20})\.json")


class CommitLog(Protocol):
    """The commits of one table, by version."""

    def read(self, version: int) -> bytes | None:
        """Return the raw commit, or None when there is no such file.

        Raises:
            OSError: the storage cannot be read.
        """

    def versions(self) -> list[int]:
        """Return the versions whose commit files are there, in order."""

    def modified_ms(self, version: int) -> int | None:
        """Return when the file of a commit was written, in milliseconds since the Unix epoch.

        Returns:
            None when there is no such file, or the storage has no such time.

        Raises:
            OSError: the storage cannot be read.
        """


def commit_file(version: int) -> str:
    """Return the commit's file name, as the Delta protocol gives it.

    >>> commit_file(7)
    '00000000000000000007.json'
    """
    return f"{version:020d}.json"


def commit_path(version: int) -> str:
    """Return the commit's path below the table's location."""
    return f"{LOG_DIRECTORY}/{commit_file(version)}"


@lru_cache(maxsize=1024)
def local_log_directory(table_uri: str) -> str | None:
    """Return the path of the table's log on a local disk, with a trailing separator; None for a remote one.

    >>> local_log_directory("file:///data/a%20b/")
    '/data/a b/_delta_log/'
    >>> local_log_directory("s3://bucket/t") is None
    True
    """
    path = local_path(table_uri)
    # On the path of every write: os.path is faster than pathlib.
    return None if path is None else os.path.join(path, LOG_DIRECTORY, "")  # noqa: PTH118 - as above


class LocalLog:
    """A log on a local disk."""

    __slots__ = ("_directory",)

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def read(self, version: int) -> bytes | None:
        """Return the raw commit, or None when there is no such file."""
        return read_local_commit(self._directory, version)

    def versions(self) -> list[int]:
        """Return the versions whose commit files are there, in order."""
        try:
            names = os.listdir(self._directory)  # noqa: PTH208 - names are all that is needed
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(versions_of(names))

    def modified_ms(self, version: int) -> int | None:
        """Return when the file of a commit was written; None when there is none."""
        try:
            written = Path(self._directory, commit_file(version)).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return written.st_mtime_ns // 1_000_000


def read_local_commit(directory: str, version: int) -> bytes | None:
    """Return the raw commit of `version`, or None when there is no such file.

    It uses `os.open` and `os.read`, which are fast, because it runs right after each local write.
    """
    try:
        descriptor = os.open(f"{directory}{version:020d}.json", os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        content = os.read(descriptor, _FIRST_BYTES)
        if len(content) < _FIRST_BYTES:  # a file on a disk is read in full, so there is no more
            return content
        chunks = [content]
        while chunk := os.read(descriptor, _READ_BYTES):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


_READ_BYTES = 1 << 18
_FIRST_BYTES = 1 << 14
"""Enough for the commit of a small write. More would be a system call to get memory, and one to return it."""


_Reads = dict[tuple[str, int], bytes]
_reads: ContextVar[_Reads | None] = ContextVar("deltawitness_commit_reads", default=None)


@contextmanager
def reuse_reads() -> Iterator[None]:
    """Read each remote commit at most once in the block; for steps that compare one state of a table.

    Only commits that exist are reused: whether a later commit exists is requested each time. Blocks
    inside the block share its reads. Other threads read for themselves.
    """
    if _reads.get() is not None:
        yield
        return
    token = _reads.set({})
    try:
        yield
    finally:
        _reads.reset(token)


def are_reads_reused() -> bool:
    """Return whether the calling code is in a block of :func:`reuse_reads`."""
    return _reads.get() is not None


def remember_read(table_uri: str, version: int, content: bytes) -> None:
    """Add a commit that was read in another way to those of the block of :func:`reuse_reads`.

    Args:
        table_uri: location of the table.
        version: version of the commit.
        content: the raw commit.
    """
    reads = _reads.get()
    if reads is not None:
        reads[table_uri.rstrip("/"), version] = content


class RemoteLog:
    """A log on an object store, read through the engine's own storage client."""

    __slots__ = ("_options", "_uri")

    def __init__(self, table_uri: str, storage_options: dict[str, str] | None) -> None:
        self._uri = table_uri
        self._options = storage_options

    def read(self, version: int) -> bytes | None:
        """Return the raw commit, or None when there is no such object: one ranged GET.

        In a block of :func:`reuse_reads`, a commit that was read before costs no request. In a block of
        :func:`~deltawitness.commit.early_reads.early_reads`, a read that was started is taken.
        """
        reads, key, early = _reads.get(), self._key(version), current_early_reads()
        if reads is not None and key in reads:
            return reads[key]
        started = None if early is None else early.take(key)
        content = self.reader([version])(version) if started is None else started()
        if reads is not None and content is not None:
            reads[key] = content
        return content

    def start(self, versions: Sequence[int]) -> None:
        """Start to read some versions in the background, for :meth:`read` in the same block.

        Args:
            versions: the versions; those that :func:`reuse_reads` has are left out.
        """
        early, reads = current_early_reads(), _reads.get() or {}
        wanted = [version for version in versions if self._key(version) not in reads]
        if early is None or not wanted:
            return
        reader = self.reader(wanted)
        for version in wanted:
            early.start(self._key(version), partial(reader, version))

    def _key(self, version: int) -> tuple[str, int]:
        return self._uri.rstrip("/"), version

    def reader(self, versions: Sequence[int]) -> Callable[[int], bytes | None]:
        """Return a function like :meth:`read` for some versions, which any thread may call.

        It uses one client: creating a client takes as long as a fast request.
        """
        store = remote_store(self._uri, self._options, map(commit_path, versions))
        return lambda version: read_file(store, commit_path(version))

    def versions(self) -> list[int]:
        """Return the versions whose commit files are there, in order: one LIST."""
        with importing():
            from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - only for remote logs
            from pyarrow.fs import FileSelector  # noqa: PLC0415 - only for remote logs

        store = DeltaStorageHandler(self._uri, self._options)
        infos = store.get_file_info_selector(FileSelector(LOG_DIRECTORY, allow_not_found=True))
        return sorted(versions_of([info.base_name for info in infos]))

    def modified_ms(self, version: int) -> int | None:
        """Return when the object of a commit was written; None when there is none: one HEAD."""
        return modified_ms_of(remote_store(self._uri, self._options, ()), commit_path(version))


class TableLog:
    """A range of commits in an open table's remote log, readable while other threads use the table.

    Create it on the writing thread, right after the write, while no other thread uses the table.
    """

    __slots__ = ("_store", "_versions")

    def __init__(self, raw: RawDeltaTable, versions: range) -> None:
        self._versions = versions
        self._store: Any = store_of(raw, (commit_path(version) for version in versions))

    def read(self, version: int) -> bytes | None:
        """Return the raw commit, or None when there is no such object: one ranged GET."""
        return read_file(self._store, commit_path(version))

    def versions(self) -> list[int]:
        """Return the versions in the range, whether or not their commits exist."""
        return list(self._versions)

    def modified_ms(self, version: int) -> int | None:
        """Return when the object of a commit was written; None when there is none: one HEAD."""
        return modified_ms_of(self._store, commit_path(version))


def open_log(table_uri: str, storage_options: dict[str, str] | None = None) -> CommitLog:
    """Return the log of the table at `table_uri`, without reading anything."""
    directory = local_log_directory(table_uri)
    return RemoteLog(table_uri, storage_options) if directory is None else LocalLog(directory)


def start_reads(log: CommitLog, versions: Sequence[int]) -> None:
    """Start to read commits of a remote log in the background, in a block of `early_reads`.

    Args:
        log: the log; nothing is started for one on a local disk.
        versions: the versions to read.
    """
    if isinstance(log, RemoteLog):
        log.start(versions)


def read_commits(log: CommitLog, versions: Sequence[int]) -> list[bytes | None]:
    """Return the raw commits of some versions, read at the same time from an object store.

    Args:
        log: the log.
        versions: the versions to read.

    Raises:
        OSError: the storage cannot be read.
    """
    if not isinstance(log, RemoteLog):
        return [log.read(version) for version in versions]
    with nullcontext() if current_early_reads() is not None else early_reads():
        log.start(versions)
        return [log.read(version) for version in reversed(versions)][::-1]


def versions_of(names: Iterable[str]) -> Iterator[int]:
    """Yield the versions whose commits are among names of files of a log, in the order of the names."""
    return (int(match[1]) for name in names if (match := _COMMIT_FILE.fullmatch(name)))
