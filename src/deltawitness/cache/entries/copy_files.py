"""Copy the files of one version of a Delta table on an object store to a local folder, unmodified."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deltawitness.commit.log import LOG_DIRECTORY, commit_file
from deltawitness.commit.private_api import sized_store
from deltawitness.local_files import BINARY
from deltawitness.locations import is_uri
from deltawitness.plurals import count_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["copy_files", "data_files", "log_files", "sync_folder"]

CONCURRENT_COPIES = 8
"""Maximum number of files that are copied at the same time."""

CHUNK = 8 << 20
"""Maximum number of bytes that one request reads."""

_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
"""A checkpoint in one file. Tables with other checkpoints are copied without them if their log is complete."""

_UNUSED_FEATURES = frozenset({"deletionVectors", "v2Checkpoint"})
"""Reader features whose files are not among the add actions or the listed log files."""


def log_files(
    uri: str, storage_options: dict[str, str] | None, version: int
) -> dict[str, int] | None:
    """Return the sizes in bytes of the log files that a version needs: one LIST.

    These are all commits up to the version, and the last checkpoint where the first commits were deleted.

    Args:
        uri: location of the table.
        storage_options: options to read it.
        version: the version.

    Returns:
        The sizes by path, the commit of the version last; None if some are missing.

    Raises:
        OSError: the storage cannot be read.
    """
    from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - only for remote logs
    from pyarrow.fs import FileSelector  # noqa: PLC0415 - as above

    store = DeltaStorageHandler(uri, storage_options)
    infos = store.get_file_info_selector(FileSelector(LOG_DIRECTORY, allow_not_found=True))
    found = {info.base_name: int(info.size) for info in infos}
    first = version
    while first > 0 and commit_file(first - 1) in found:
        first -= 1
    names = [commit_file(each) for each in range(first, version + 1)]
    if first > 0:
        marks = [int(match[1]) for name in found if (match := _CHECKPOINT.fullmatch(name))]
        usable = [mark for mark in marks if first - 1 <= mark <= version]
        if not usable:
            return None
        names.insert(0, f"{max(usable):020d}.checkpoint.parquet")
    if any(name not in found for name in names):
        return None
    return {f"{LOG_DIRECTORY}/{name}": found[name] for name in names}


def data_files(table: DeltaTable) -> dict[str, int] | None:
    """Return the sizes in bytes of the data files of an open table, by path below its location.

    Args:
        table: the table.

    Returns:
        The sizes; None if the table needs other files than these, or files outside of its location.
    """
    if not _UNUSED_FEATURES.isdisjoint(table.protocol().reader_features or ()):
        return None
    actions = table.get_add_actions(flatten=True)
    # Paths in the log are URL-encoded.
    paths = [unquote(path) for path in actions["path"].to_pylist()]
    if any(is_uri(path) or path.startswith("/") or ".." in path.split("/") for path in paths):
        return None
    return dict(zip(paths, actions["size_bytes"].to_pylist(), strict=True))


def copy_files(
    sizes: Mapping[str, int], uri: str, storage_options: dict[str, str] | None, target: Path
) -> None:
    """Copy files of a table, several at the same time.

    Args:
        sizes: sizes of the files in bytes, by path below the location.
        uri: location of the table.
        storage_options: options to read it.
        target: the folder to which the paths are relative.

    Raises:
        OSError: a file cannot be read or written, or has another size.
    """
    folders = sorted({(target / path).parent for path in sizes})
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = partial(_copy_file, sized_store(uri, storage_options, sizes), target)
    with ThreadPoolExecutor(CONCURRENT_COPIES, "deltawitness-copies") as threads:
        for _ in threads.map(copy, sizes, sizes.values()):
            pass
    for folder in folders:
        sync_folder(folder)


def _copy_file(store: Any, target: Path, path: str, size: int) -> None:
    descriptor = os.open(target / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
    source, copied = store.open_input_file(path), 0
    with os.fdopen(descriptor, "wb") as stream:
        while copied < size:
            part = bytes(source.read(min(CHUNK, size - copied)))
            if not part:
                break
            stream.write(part)
            copied += len(part)
        stream.flush()
        os.fsync(stream.fileno())
    if copied != size:
        msg = f"{path} has {count_of(copied, 'byte')}, not {size}"
        raise OSError(msg)


def sync_folder(folder: Path) -> None:
    """Make the names of the files in a folder durable; Windows has no such call."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
