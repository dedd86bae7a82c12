"""Every private or undocumented function of delta-rs that the package calls; each has a contract test.

Those that the package replaces are in :mod:`deltawitness.commit.seams`.

A release of delta-rs that changes one of them fails `tests/delta_rs/test_private_api.py`, which
names what changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake._internal import RawDeltaTable

__all__ = [
    "modified_at",
    "modified_ms_of",
    "read_file",
    "remote_store",
    "sized_store",
    "storage_options_of",
    "store_of",
    "writable_store",
]

SIZE_UNKNOWN = 1 << 26
"""Bytes to request of a file of unknown size: the store returns as many as there are."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def storage_options_of(table: DeltaTable) -> dict[str, str] | None:
    """Return the storage options that `table` was opened with, which have no public name."""
    options: dict[str, str] | None = table._storage_options  # noqa: SLF001 - listed here
    return options


def remote_store(
    table_uri: str, storage_options: dict[str, str] | None, paths: Iterable[str]
) -> Any:
    """Return the engine's file client of a table's storage, which reads each of `paths` with one GET.

    Without `known_sizes`, the client requests a file's size with a HEAD first, and holds the GIL
    meanwhile. Here each size is set to :data:`SIZE_UNKNOWN`: a ranged GET past the end returns all of
    the file.
    """
    from deltalake._internal import DeltaFileSystemHandler  # noqa: PLC0415 - heavy, remote logs only

    return DeltaFileSystemHandler(table_uri, storage_options, dict.fromkeys(paths, SIZE_UNKNOWN))


def sized_store(
    table_uri: str, storage_options: dict[str, str] | None, sizes: Mapping[str, int]
) -> Any:
    """Return the engine's file client of a table's storage, for files of known sizes in bytes.

    Reads of a part of a file take one ranged GET each.
    """
    from deltalake._internal import DeltaFileSystemHandler  # noqa: PLC0415 - heavy, remote logs only

    return DeltaFileSystemHandler(table_uri, storage_options, dict(sizes))


def writable_store(table_uri: str, storage_options: dict[str, str] | None) -> Any:
    """Return the engine's file client of a table's storage, to write and to delete files."""
    from deltalake._internal import DeltaFileSystemHandler  # noqa: PLC0415 - heavy, staging only

    return DeltaFileSystemHandler(table_uri, storage_options, None)


def store_of(raw: RawDeltaTable, paths: Iterable[str]) -> Any:
    """Return the file client of an open table's own storage; see :func:`remote_store`."""
    from deltalake._internal import DeltaFileSystemHandler  # noqa: PLC0415 - heavy, remote logs only

    return DeltaFileSystemHandler.from_table(raw, None, dict.fromkeys(paths, SIZE_UNKNOWN))


def modified_at(table: DeltaTable, path: str) -> datetime | None:
    """Return the modification time of a file of an open table; None where the storage has none."""
    from deltalake._internal import DeltaFileSystemHandler  # noqa: PLC0415 - heavy, and rare

    store = DeltaFileSystemHandler.from_table(table._table, None, None)  # noqa: SLF001 - listed here
    modified: datetime | None = store.get_file_info([path])[0].mtime
    return modified


def modified_ms_of(store: Any, path: str) -> int | None:
    """Return the modification time of a file in milliseconds since the Unix epoch.

    Args:
        store: the file client of a storage.
        path: the path below the table's location.

    Returns:
        None where there is no such file, or the storage has no such time.

    Raises:
        OSError: the storage cannot be read.
    """
    modified: datetime | None = store.get_file_info([path])[0].mtime
    return None if modified is None else (modified - _EPOCH) // timedelta(milliseconds=1)


def read_file(store: Any, path: str) -> bytes | None:
    """Return a file through `store`, or None when it is not there.

    Raises:
        OSError: the storage cannot be read.
    """
    try:
        return bytes(store.open_input_file(path).read(SIZE_UNKNOWN))
    except FileNotFoundError:
        return None
