"""Local copies of entries on an object store, so that a hit reads no data from there.

A version of an entry's table never changes, so its files can be copied: the log files that its state
needs, and its data files, with their paths and contents. A copy is used only after the caller has checked
that the table is still at that version and that its newest commit has the same content.

Layout below `entry_copies/` in the folder of the settings, readable for its owner only:

- `<table id>/<version>-<digest>-<random>/`: a copy, with `table/`, `manifest.json` and `lock`. The table id
  is the hash of the location without credentials, the digest that of the newest commit.
- `<table id>/.lock`: held while a process copies a version of the table.
- `.partial/`: copies in progress. A copy is renamed to its place when it is complete.

A user of a copy has a shared lock of its `lock`, until no frame reads the copy any more. A removal needs an
exclusive one, and deletes the manifest first: a folder without a manifest is no copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.copy_files import (
    copy_files,
    data_files,
    log_files,
    sync_folder,
)
from deltawitness.commit.log import commit_path
from deltawitness.ids_and_clock import new_id
from deltawitness.local_files import OPEN_FILES_ARE_FIXED, open_locked_file
from deltawitness.locations import table_id

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from deltawitness.settings import Settings

__all__ = ["EntryCopies", "EntryCopy", "NotCopiedError"]

_FOLDER = "entry_copies"
"""The folder below that of the settings, which may have other files of the user."""

_FORMAT = 1
_LOCK = "lock"
_MANIFEST = "manifest.json"
_TABLE = "table"
_PARTIAL = ".partial"


class NotCopiedError(Exception):
    """A version of a table that cannot be copied, and why."""


class _Lease:
    """A shared lock of a copy, released when nothing refers to the lease."""

    __slots__ = ("__weakref__",)

    def __init__(self, descriptor: int) -> None:
        weakref.finalize(self, os.close, descriptor).atexit = False


@dataclass(frozen=True, slots=True)
class EntryCopy:
    """A complete local copy of one version of an entry's table.

    Attributes:
        folder: its folder.
        version: the version.
        digest: SHA-256 of the commit of that version, in hexadecimal.
        files: size in bytes and modification time in nanoseconds of each file, by its path in the table.
        lease: the lock that prevents its removal; None for a copy that is not in use.
    """

    folder: Path
    version: int
    digest: str
    files: Mapping[str, tuple[int, int]]
    lease: _Lease | None = None

    @property
    def table(self) -> Path:
        """The folder of the table."""
        return self.folder / _TABLE

    @property
    def size(self) -> int:
        """The number of bytes of its files."""
        return sum(size for size, _ in self.files.values())

    def is_intact(self) -> bool:
        """Return whether each file has the size and the modification time that it was copied with."""
        folder = str(self.table)
        try:
            return all(_stat(f"{folder}/{path}") == seen for path, seen in self.files.items())
        except OSError:
            return False

    def mark_used(self) -> None:
        """Record that the copy is used now: the least recently used ones are removed first."""
        os.utime(self.folder / _LOCK)

    def open_table(self) -> DeltaTable:
        """Open the copied table at its version."""
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy

        return DeltaTable(str(self.table), version=self.version)


class EntryCopies:
    """The copies in one local folder, which several processes may use.

    Args:
        folder: the folder.
        limit: maximum bytes of all copies. A copy in use is not removed: without space, nothing is copied.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    @classmethod
    def of(cls, settings: Settings) -> EntryCopies | None:
        """Return the copies of these settings; None if they are off."""
        if settings.cache_copies is None:
            return None
        folder = Path(settings.cache_copies).absolute() / _FOLDER
        return cls(folder, settings.cache_copies_bytes)

    def newest(self, uri: str) -> EntryCopy | None:
        """Return the copy of the newest copied version of a table, not in use; None without one.

        Args:
            uri: location of the table.
        """
        copies = list(_copies_in(self._folder / table_id(uri)))
        return max(copies, key=lambda copy: (copy.version, copy.folder.name), default=None)

    def lease(self, uri: str, version: int, digest: str) -> EntryCopy | None:
        """Return a copy for use; None without one, or without one that is intact.

        Args:
            uri: location of the table.
            version: the version.
            digest: SHA-256 of the commit of that version, in hexadecimal.
        """
        for copy in _copies_in(self._folder / table_id(uri)):
            if (copy.version, copy.digest) != (version, digest):
                continue
            try:
                descriptor = open_locked_file(copy.folder / _LOCK, shared=True)
            except FileNotFoundError:
                continue
            if descriptor is None:
                continue
            lease = _Lease(descriptor)
            # Read again under the lock: it may have been removed before.
            locked = _read(copy.folder)
            if locked is not None and locked.is_intact():
                return EntryCopy(locked.folder, version, digest, locked.files, lease)
            (copy.folder / _MANIFEST).unlink(missing_ok=True)
        return None

    def make(
        self, uri: str, version: int, digest: str, storage_options: dict[str, str] | None
    ) -> EntryCopy | None:
        """Copy a version of a table, and return the copy for use.

        Args:
            uri: location of the table.
            version: the version.
            digest: SHA-256 of the commit of that version, in hexadecimal.
            storage_options: options to read the table.

        Returns:
            The copy; None if another process copies the table now.

        Raises:
            NotCopiedError: it is larger than the limit, or its log has features that entries do not use.
            OSError: a file cannot be read or written.
        """
        home = self._folder / table_id(uri)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = open_locked_file(home / ".lock")
        if descriptor is None:
            return None
        try:
            made = self.lease(uri, version, digest)
            if made is None:
                partial = self._folder / _PARTIAL / new_id()
                self._copy(
                    partial, home, EntryCopy(partial, version, digest, {}), uri, storage_options
                )
                made = self.lease(uri, version, digest)
                _remove_others(home, version, digest)
            return made
        finally:
            os.close(descriptor)

    def _copy(
        self,
        partial: Path,
        home: Path,
        copy: EntryCopy,
        uri: str,
        storage_options: dict[str, str] | None,
    ) -> None:
        """Copy a version to a new folder, and rename it to its place when it is complete."""
        partial.mkdir(mode=0o700, parents=True)
        descriptor = open_locked_file(partial / _LOCK)
        try:
            paths = self._copy_files(copy, uri, storage_options)
            files = {path: _stat(f"{copy.table}/{path}") for path in paths}
            _write_manifest(replace(copy, files=files))
            if (
                OPEN_FILES_ARE_FIXED and descriptor is not None
            ):  # then its folder cannot be renamed either
                os.close(descriptor)
                descriptor = None
            partial.rename(home / f"{copy.version}-{copy.digest[:16]}-{partial.name}")
            sync_folder(home)
        finally:
            if descriptor is not None:
                os.close(descriptor)
            shutil.rmtree(partial, ignore_errors=True)

    def _copy_files(
        self, copy: EntryCopy, uri: str, storage_options: dict[str, str] | None
    ) -> list[str]:
        """Copy the log files, then the data files that they name; return all paths.

        The newest commit is read after the others: with its digest, they are of the same table, and not of
        one that was created again meanwhile.
        """
        log = log_files(uri, storage_options, copy.version)
        if log is None:
            msg = "its log is incomplete"
            raise NotCopiedError(msg)
        newest = commit_path(copy.version)
        first = {path: size for path, size in log.items() if path != newest}
        for sizes in (first, {newest: log[newest]}):
            copy_files(sizes, uri, storage_options, copy.table)
        if hashlib.sha256((copy.table / newest).read_bytes()).hexdigest() != copy.digest:
            msg = "its table was created again meanwhile"
            raise NotCopiedError(msg)
        data = data_files(copy.open_table())
        if data is None:
            msg = "its log has features that entries do not use"
            raise NotCopiedError(msg)
        if not self._free(sum(log.values()) + sum(data.values())):
            msg = "the copies would be larger than DELTAWITNESS_CACHE_COPIES_BYTES"
            raise NotCopiedError(msg)
        copy_files(data, uri, storage_options, copy.table)
        return [*log, *data]

    def remove(self, uri: str) -> None:
        """Remove the copies of a table, except those that a process uses.

        Args:
            uri: location of the table.

        Raises:
            OSError: a file cannot be deleted.
        """
        for copy in _copies_in(self._folder / table_id(uri)):
            _remove(copy.folder)

    def _free(self, wanted: int) -> bool:
        """Remove what dead processes left, and the least recently used copies until there is space.

        Args:
            wanted: bytes of space.

        Returns:
            Whether there is space.
        """
        if wanted > self._limit:
            return False
        for folder in self._folder.glob("*/*/"):
            if folder.parent.name == _PARTIAL or not (folder / _MANIFEST).exists():
                _remove(folder)
        homes = [home for home in self._folder.iterdir() if home.name != _PARTIAL]
        copies = [copy for home in homes for copy in _copies_in(home)]
        total = wanted + sum(copy.size for copy in copies)
        for copy in sorted(copies, key=lambda copy: _used_at(copy.folder)):
            if total <= self._limit:
                break
            if _remove(copy.folder):
                total -= copy.size
        return total <= self._limit


def _copies_in(home: Path) -> Iterator[EntryCopy]:
    """Yield the copies of the versions of one table."""
    try:
        folders = sorted(path for path in home.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return
    for folder in folders:
        copy = _read(folder)
        if copy is not None:
            yield copy


def _read(folder: Path) -> EntryCopy | None:
    """Return the copy in a folder; None if its manifest is missing or unreadable."""
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
        if manifest["format"] != _FORMAT:
            return None
        files = {
            path: (int(size), int(changed)) for path, (size, changed) in manifest["files"].items()
        }
        return EntryCopy(folder, int(manifest["version"]), str(manifest["digest"]), files)
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _write_manifest(copy: EntryCopy) -> None:
    manifest = {
        "format": _FORMAT,
        "version": copy.version,
        "digest": copy.digest,
        "files": copy.files,
    }
    with (copy.folder / _MANIFEST).open("x") as stream:
        json.dump(manifest, stream)
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(copy.folder)


def _remove(folder: Path) -> bool:
    """Delete a copy, or the rest of one, unless a process uses it; return whether it is gone."""
    try:
        descriptor = open_locked_file(folder / _LOCK)
    except FileNotFoundError:
        return True
    if descriptor is None:
        return False
    try:
        (folder / _MANIFEST).unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _remove_others(home: Path, version: int, digest: str) -> None:
    """Remove the copies of other versions of a table that no process uses."""
    for other in _copies_in(home):
        if (other.version, other.digest) != (version, digest):
            _remove(other.folder)


def _used_at(folder: Path) -> int:
    try:
        return (folder / _LOCK).stat().st_mtime_ns
    except OSError:
        return 0


def _stat(path: str) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116 - faster than pathlib, for each file at each hit
    return found.st_size, found.st_mtime_ns
