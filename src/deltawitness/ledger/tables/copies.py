"""Copy small ledger tables from an object store to a temporary folder, to open and to query them there.

delta-rs reads each commit of a table on an object store twice when it opens the table, a checkpoint with
many requests, and each data file with two or three requests per query. A copy takes one request per file.
Larger tables are not copied: a query of them reads only the files and the columns that it needs.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deltawitness.commit.log import LOG_DIRECTORY, RemoteLog, commit_file
from deltawitness.commit.private_api import SIZE_UNKNOWN, read_file, remote_store
from deltawitness.ledger.tables.schema import LedgerRoot, LedgerTable
from deltawitness.ledger.tables.shards import TableParts, open_parts
from deltawitness.local_files import BINARY
from deltawitness.locations import is_uri
from deltawitness.thread_map import map_in_threads

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["TableCopies", "open_readable"]

MAX_FILES = 64
"""Maximum number of data files of a table that is copied."""

MAX_BYTES = 16 << 20
"""Maximum size of the data files of a table that is copied."""

MAX_ACTIONS = 5_000
"""Maximum number of actions in a checkpoint that is copied."""

MAX_COMMITS = 100
"""Maximum number of commits since the last checkpoint of a table that is copied."""

CONCURRENT_READS = 16
"""Files of a table that are requested at the same time."""

FIRST_COMMITS = 4
"""Commits that are requested together after a checkpoint; each further time twice as many."""

_POINTER = f"{LOG_DIRECTORY}/_last_checkpoint"
_UNUSED_FEATURES = frozenset({"deletionVectors", "v2Checkpoint"})


class NotCopiedError(Exception):
    """A table that is too large to copy, or has files that this module does not know."""


@dataclass(eq=False)
class TableCopies:
    """Copies of tables of a ledger on an object store, until the object is deleted.

    Attributes:
        root: location of the ledger.
    """

    root: LedgerRoot
    _folder: str | None = field(default=None, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @classmethod
    def of(cls, root: LedgerRoot) -> TableCopies | None:
        """Return an object without copies yet; None for a ledger on a local disk."""
        return None if root.is_local else cls(root)

    def open_tables(self, tables: Sequence[LedgerTable]) -> dict[LedgerTable, DeltaTable | None]:
        """Open tables at their newest versions, copied where possible; None for one that does not exist.

        Args:
            tables: the tables.

        Raises:
            OSError: the storage cannot be read.
            DeltaError: a table is damaged.
        """
        opened = map_in_threads(self._open_table, tables, len(tables))
        return dict(zip(tables, opened, strict=True))

    def _open_table(self, table: LedgerTable) -> DeltaTable | None:
        from deltalake.exceptions import DeltaError  # noqa: PLC0415 - heavy

        try:
            return self._open_copy(table)
        except (NotCopiedError, OSError, DeltaError):
            return self.root.open_table(table)  # raises what the caller expects

    def _open_copy(self, table: LedgerTable) -> DeltaTable | None:
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy

        source = _Source(self.root.uri_of(table), self.root.storage_options)
        log = source.log_files()
        if not log:
            return None
        target = Path(self._parent(), table.alias)
        for path, content in log.items():
            _write(target / path, content)
        opened = DeltaTable(target)
        source.copy(_data_files(opened), target)
        return opened

    def _parent(self) -> str:
        """Return the folder of the copies, which only its owner can read."""
        import shutil  # noqa: PLC0415 - only for remote ledgers, and not at the end of the process
        import tempfile  # noqa: PLC0415 - only for remote ledgers

        with self._lock:
            if self._folder is None:
                self._folder = tempfile.mkdtemp(prefix="deltawitness-")
                weakref.finalize(self, _remove, shutil.rmtree, self._folder, os.getpid())
            return self._folder


def open_readable(
    root: LedgerRoot,
    tables: Sequence[LedgerTable],
    shards: Sequence[str],
    copies: TableCopies | None,
) -> dict[LedgerTable, TableParts]:
    """Open tables of a ledger for queries only: as copies, where the ledger has no shards.

    Args:
        root: location of the ledger.
        tables: the tables.
        shards: names of its shards.
        copies: where copies are made; None for a ledger on a local disk.

    Raises:
        OSError: the storage cannot be read.
        DeltaError: a table is damaged.
    """
    if copies is None or shards:
        return open_parts(root, tables, shards)
    opened = copies.open_tables(tables)
    return {table: TableParts(table, main) for table, main in opened.items()}


def _remove(remove: Callable[..., object], folder: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked child has the same object
        remove(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Source:
    """A table on an object store.

    Attributes:
        uri: its location.
        storage_options: options to read it.
    """

    uri: str
    storage_options: dict[str, str] | None

    def log_files(self) -> dict[str, bytes]:
        """Return the files of the log that the newest version needs, by path; none without a table.

        Raises:
            NotCopiedError: the checkpoint is too large, or some files are missing or of another kind.
            OSError: the storage cannot be read.
        """
        pointer = self._read(_POINTER)
        if pointer is not None:
            return self._since_checkpoint(_checkpoint_version(pointer))
        # A log without a checkpoint is short, so one request lists it.
        versions = RemoteLog(self.uri, self.storage_options).versions()
        if versions != list(range(len(versions))) or len(versions) > MAX_COMMITS:
            raise NotCopiedError
        return self._commits(versions)

    def _since_checkpoint(self, version: int) -> dict[str, bytes]:
        """Return a checkpoint and the commits from its version on.

        The first commit after which there is none is the newest. The commit of the checkpoint must be
        there: log cleanup deletes it only together with all commits before a newer checkpoint.
        """
        path = f"{LOG_DIRECTORY}/{version:020d}.checkpoint.parquet"
        checkpoint = self._read(path)
        if checkpoint is None or len(checkpoint) >= SIZE_UNKNOWN:
            raise NotCopiedError
        files, count = {path: checkpoint}, FIRST_COMMITS
        first = version
        while True:
            commits = dict(self._existing(range(first, first + count)))
            files |= commits
            if len(commits) < count:
                break
            first, count = first + count, 2 * count
            if first > version + MAX_COMMITS:
                raise NotCopiedError
        if f"{LOG_DIRECTORY}/{commit_file(version)}" not in files:
            raise NotCopiedError
        return files

    def _commits(self, versions: Sequence[int]) -> dict[str, bytes]:
        files = dict(self._existing(versions))
        if len(files) != len(versions):
            raise NotCopiedError  # log cleanup has deleted one since
        return files

    def _existing(self, versions: Sequence[int]) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of commits, up to the first that does not exist."""
        read = RemoteLog(self.uri, self.storage_options).reader(versions)
        contents = map_in_threads(read, versions, CONCURRENT_READS)
        for version, content in zip(versions, contents, strict=True):
            if content is None:
                return
            yield f"{LOG_DIRECTORY}/{commit_file(version)}", content

    def copy(self, sizes: dict[str, int], target: Path) -> None:
        """Copy files of known sizes in bytes to a folder.

        Raises:
            NotCopiedError: a file does not exist, or has another size.
            OSError: the storage cannot be read, or the folder not be written.
        """
        store = remote_store(self.uri, self.storage_options, sizes)

        def copy_one(path: str) -> None:
            content = read_file(store, path)
            if content is None or len(content) != sizes[path]:
                raise NotCopiedError
            _write(target / path, content)

        map_in_threads(copy_one, list(sizes), CONCURRENT_READS)

    def _read(self, path: str) -> bytes | None:
        return read_file(remote_store(self.uri, self.storage_options, [path]), path)


def _checkpoint_version(pointer: bytes) -> int:
    """Return the version of a checkpoint in one file, from the content of `_last_checkpoint`."""
    try:
        found: dict[str, Any] = json.loads(pointer)
        version, size = int(found["version"]), int(found["size"])
    except (KeyError, TypeError, ValueError):
        raise NotCopiedError from None
    if found.get("parts") or found.get("v2Checkpoint") or size > MAX_ACTIONS:
        raise NotCopiedError
    return version


def _data_files(table: DeltaTable) -> dict[str, int]:
    """Return the sizes in bytes of the data files of a table, by path below its location.

    Raises:
        NotCopiedError: they are too large or too many, or the table needs other files as well.
    """
    if not _UNUSED_FEATURES.isdisjoint(table.protocol().reader_features or ()):
        raise NotCopiedError
    actions = table.get_add_actions(flatten=True)
    # Paths in the log are URL-encoded.
    paths = [unquote(path) for path in actions["path"].to_pylist()]
    sizes = dict(zip(paths, actions["size_bytes"].to_pylist(), strict=True))
    if len(sizes) > MAX_FILES or sum(sizes.values()) > MAX_BYTES:
        raise NotCopiedError
    if any(is_uri(path) or path.startswith("/") or ".." in path.split("/") for path in paths):
        raise NotCopiedError
    return sizes


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
