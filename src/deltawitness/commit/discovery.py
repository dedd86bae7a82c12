"""Find the Delta tables below a path, a URI prefix or a glob, on a local disk or an object store.

A folder with a `_delta_log` is a table. The search does not continue inside of a table, so its data
folders are never listed. An object store gets one LIST request per folder, several at a time.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import quote, unquote

from deltawitness.commit.log import LOG_DIRECTORY
from deltawitness.forks import importing
from deltawitness.locations import local_path
from deltawitness.semconv import LEDGER_DIRECTORY

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["CONCURRENT_LISTS", "Discovery", "ListingError", "find_tables", "folder_names"]

CONCURRENT_LISTS = 16
"""Maximum number of folders that a search lists at the same time."""

ANY_DEPTH = "**"
"""The segment of a glob that matches any number of folders, including none."""

_QUERY = re.compile(r"\?[A-Za-z_-]+=.*$")
"""The query of a URI, such as a SAS token. Any other `?` in a URI is a wildcard."""

_SAFE = "-._~!$&'()*+,;=:@"


@dataclass(frozen=True, slots=True)
class ListingError:
    """A folder that could not be listed.

    Attributes:
        location: the folder.
        text: the text of the storage's error, not redacted.
    """

    location: str
    text: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """The tables that a search found.

    Attributes:
        tables: their locations, sorted.
        errors: the folders that could not be listed, sorted; tables below them are missing.
    """

    tables: tuple[str, ...]
    errors: tuple[ListingError, ...] = ()


def find_tables(text: str, storage_options: dict[str, str] | None = None) -> Discovery:
    """Return the tables that a text names.

    A text without wildcards names the table there or, if that is no table, all tables below it. With
    wildcards it names the tables whose location matches: `*`, `?` and `[...]` match inside of one
    folder's name, `**` matches any number of folders. As in a shell, wildcards match no name that
    starts with a dot. They do not match the folder of a ledger's tables. `**` follows no symbolic link
    to a folder, unless that folder is a table.

    Args:
        text: a local path, a URI or a glob of either.
        storage_options: as for `DeltaTable`.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - cannot be imported at exit, where drains use this module

    try:
        folders, pattern = _split(text, storage_options)
    except Exception as error:  # noqa: BLE001 - the engine raises errors of many types
        return Discovery((), (ListingError(text, str(error)),))
    search = _Search(folders, pattern or (ANY_DEPTH,))
    with ThreadPoolExecutor(CONCURRENT_LISTS, "deltawitness-discovery") as lists:
        search.run(lists)
    return Discovery(
        tuple(sorted(map(folders.location, search.tables))),
        tuple(
            ListingError(folders.location(path), error)
            for path, error in sorted(search.errors.items())
        ),
    )


def folder_names(location: str, storage_options: dict[str, str] | None = None) -> list[str]:
    """Return the names of the folders in a folder, sorted; none if it does not exist.

    Args:
        location: a local path or a URI; it costs one request of a listing.
        storage_options: as for `DeltaTable`.

    Raises:
        OSError: the storage cannot be read.
    """
    folders, _ = _split(location, storage_options)
    return sorted(folders.read("", is_last=False).names)


def _split(text: str, storage_options: dict[str, str] | None) -> tuple[_Folders, tuple[str, ...]]:
    """Return the folders below the longest prefix without wildcards, and the segments after it."""
    path = local_path(text)
    if path is None:
        return _split_uri(text, storage_options)
    path = os.path.abspath(path)  # noqa: PTH100 - text, which Path.absolute would leave its `..` in
    if os.path.isdir(path):  # noqa: PTH112 - a name with brackets may be a folder's
        return _LocalFolders(path), ()
    drive, rest = os.path.splitdrive(path)
    base, pattern = _split_segments(rest.replace(os.sep, "/"))
    return _LocalFolders(drive + base), pattern


def _split_uri(
    text: str, storage_options: dict[str, str] | None
) -> tuple[_Folders, tuple[str, ...]]:
    scheme, _, rest = text.partition("://")
    query = match[0] if (match := _QUERY.search(rest)) else ""
    host, _, path = rest.removesuffix(query).partition("/")
    base, pattern = _split_segments("/" + path)
    root = f"{scheme}://{host}{base.rstrip('/')}"
    return _RemoteFolders(root, query, storage_options), tuple(map(unquote, pattern))


def _split_segments(path: str) -> tuple[str, tuple[str, ...]]:
    segments = [segment for segment in path.split("/") if segment]
    literal = next((i for i, name in enumerate(segments) if glob.has_magic(name)), len(segments))
    return "/" + "/".join(segments[:literal]), tuple(segments[literal:])


# --- storage -----------------------------------------------------------------------------------------


class _Folder(NamedTuple):
    """What is in a folder.

    Attributes:
        is_table: whether it is a table.
        names: the folders in it.
        links: those of `names` that are symbolic links.
    """

    is_table: bool
    names: Iterable[str] = ()
    links: frozenset[str] = frozenset()


class _Folders(Protocol):
    """The folders of a storage, by their path relative to the start of the search."""

    def location(self, path: str) -> str:
        """Return the location of a folder."""

    def read(self, path: str, *, is_last: bool) -> _Folder:
        """Return what is in a folder; an empty folder if it does not exist.

        Args:
            path: the folder.
            is_last: whether the caller needs only `is_table`.

        Raises:
            OSError: the storage cannot be read.
        """


class _LocalFolders:
    __slots__ = ("_root",)

    def __init__(self, root: str) -> None:
        self._root = root

    def location(self, path: str) -> str:
        return os.path.join(self._root, *path.split("/")) if path else self._root  # noqa: PTH118 - text

    def read(self, path: str, *, is_last: bool) -> _Folder:
        here = self.location(path)
        if _is_local_table(here):
            return _Folder(is_table=True)
        if is_last:
            return _Folder(is_table=False)
        try:
            with os.scandir(here) as entries:
                folders = [entry for entry in entries if entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return _Folder(is_table=False)
        links = [
            entry.name
            for entry in folders
            if entry.is_symlink() and not _is_local_table(entry.path)
        ]
        return _Folder(False, [entry.name for entry in folders], frozenset(links))  # noqa: FBT003 - a tuple


def _is_local_table(path: str) -> bool:
    return os.path.isdir(os.path.join(path, LOG_DIRECTORY))  # noqa: PTH112, PTH118 - text, for speed


class _RemoteFolders:
    __slots__ = ("_query", "_root", "_store")

    def __init__(self, root: str, query: str, storage_options: dict[str, str] | None) -> None:
        with importing():
            from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - only for object stores

        self._root = root
        self._query = query
        self._store = DeltaStorageHandler(root + query, storage_options)

    def location(self, path: str) -> str:
        quoted = quote(path, safe="/" + _SAFE)
        return f"{self._root}/{quoted}{self._query}" if path else self._root + self._query

    def read(self, path: str, *, is_last: bool) -> _Folder:
        # The log of a table has fewer objects than its folder, so it is listed where that is enough.
        log = f"{path}/{LOG_DIRECTORY}" if path else LOG_DIRECTORY
        names = self._names(log if is_last else path)
        is_table = bool(names) if is_last else any(name == LOG_DIRECTORY for name, _ in names)
        return _Folder(is_table, [name for name, is_folder in names if is_folder])

    def _names(self, path: str) -> list[tuple[str, bool]]:
        from pyarrow.fs import FileSelector, FileType  # noqa: PLC0415 - only for object stores

        infos = self._store.get_file_info_selector(FileSelector(path, allow_not_found=True))
        return [(info.base_name, info.type == FileType.Directory) for info in infos]


# --- the search --------------------------------------------------------------------------------------


class _Search:
    """A search, level by level; each level lists its folders in parallel.

    Args:
        folders: the storage.
        pattern: the segments of the glob, at least one.
    """

    def __init__(self, folders: _Folders, pattern: tuple[str, ...]) -> None:
        self.tables: list[str] = []
        self.errors: dict[str, str] = {}
        self._folders = folders
        self._pattern = pattern

    def run(self, lists: ThreadPoolExecutor) -> None:
        """Search all levels, listing folders with an executor."""
        level = {"": self._without_empty({0})}
        while level:
            found: dict[str, frozenset[int]] = {}
            for (path, positions), folder in zip(
                level.items(), lists.map(self._read, level.items()), strict=True
            ):
                if folder is None:
                    continue
                if not folder.is_table:
                    found.update(self._below(path, positions, folder))
                elif len(self._pattern) in positions:
                    self.tables.append(path)
            level = found

    def _read(self, item: tuple[str, frozenset[int]]) -> _Folder | None:
        path, positions = item
        try:
            return self._folders.read(path, is_last=positions == {len(self._pattern)})
        except Exception as error:  # noqa: BLE001 - the other folders are searched too
            self.errors[path] = str(error) or type(error).__name__
            return None

    def _below(
        self, path: str, positions: frozenset[int], folder: _Folder
    ) -> Iterator[tuple[str, frozenset[int]]]:
        """Yield the folders to search in a folder, with their positions in the pattern."""
        for name in folder.names:
            reached = self._after(positions, name, is_link=name in folder.links)
            if reached:
                yield (f"{path}/{name}" if path else name), reached

    def _after(self, positions: frozenset[int], name: str, *, is_link: bool) -> frozenset[int]:
        """Return the positions in the pattern after a folder's name."""
        reached: set[int] = set()
        for position in positions - {len(self._pattern)}:
            segment = self._pattern[position]
            if segment == ANY_DEPTH:
                if not (is_link or _is_excluded(name)):
                    reached.add(position)
            elif _matches(name, segment):
                reached.add(position + 1)
        return self._without_empty(reached)

    def _without_empty(self, positions: set[int]) -> frozenset[int]:
        """Return positions, and the positions after each `**`, which may match no folder."""
        reached = set(positions)
        for position in sorted(positions):
            after = position
            while after < len(self._pattern) and self._pattern[after] == ANY_DEPTH:
                after += 1
                reached.add(after)
        return frozenset(reached)


def _is_excluded(name: str) -> bool:
    return name.startswith(".") or name == LEDGER_DIRECTORY


def _matches(name: str, segment: str) -> bool:
    if not glob.has_magic(segment):
        return name == segment
    is_shown = segment.startswith(".") or not _is_excluded(name)
    return is_shown and fnmatchcase(name, segment)
