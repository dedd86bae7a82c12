"""List the files of a table on its storage: those of its log, and its data files."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltawitness.commit.log import LOG_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["StoredFile", "TableStorage"]

_DATA = ".parquet"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file on the storage of a table.

    Attributes:
        path: its path relative to the table, not percent-encoded.
        size: its size in bytes.
        modified: when it was written; None if the storage does not say.
    """

    path: str
    size: int
    modified: dt.datetime | None


class TableStorage:
    """The storage of a table, on a local disk or an object store.

    Args:
        location: location of the table.
        storage_options: as for `DeltaTable`.

    Raises:
        OSError: there is no such storage.
    """

    def __init__(self, location: str, storage_options: dict[str, str] | None) -> None:
        from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - heavy

        self._store: Any = DeltaStorageHandler(location, storage_options)

    def log_files(self) -> dict[str, StoredFile]:
        """Return the files of the log, by their names; those in folders of the log are left out.

        Raises:
            OSError: the storage cannot be read.
        """
        start = f"{LOG_DIRECTORY}/"
        files = self._files(LOG_DIRECTORY, is_recursive=False)
        return {file.path.removeprefix(start): file for file in files}

    def data_files(self) -> dict[str, StoredFile]:
        """Return the Parquet files of the table, by their paths.

        Files in folders whose names begin with `_` or `.` are left out: the log, change data, and files
        of other programs. On an object store it costs one request for each 1,000 files.

        Raises:
            OSError: the storage cannot be read.
        """
        return {
            file.path: file
            for file in self._files("", is_recursive=True)
            if file.path.endswith(_DATA) and not _is_hidden(file.path)
        }

    def open_file(self, path: str) -> Any:
        """Open a file of the table for reading, with random access.

        Raises:
            OSError: it cannot be read.
        """
        import pyarrow as pa  # noqa: PLC0415 - heavy

        return pa.PythonFile(self._store.open_input_file(path), mode="r")

    def _files(self, folder: str, *, is_recursive: bool) -> Iterator[StoredFile]:
        from pyarrow.fs import FileSelector, FileType  # noqa: PLC0415 - heavy

        selector = FileSelector(folder, recursive=is_recursive, allow_not_found=True)
        for info in self._store.get_file_info_selector(selector):
            if info.type == FileType.File:
                yield StoredFile(info.path, info.size or 0, info.mtime)


def _is_hidden(path: str) -> bool:
    return any(part.startswith(("_", ".")) for part in path.split("/"))
