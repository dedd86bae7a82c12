"""Files below a location, readable for their owner only on a local disk: the stored plans."""

from __future__ import annotations

import os
from pathlib import Path

from deltawitness.commit.private_api import read_file, remote_store
from deltawitness.local_files import BINARY
from deltawitness.locations import local_path

__all__ = ["read_private_file", "write_private_file"]


def write_private_file(
    uri: str, name: str, content: bytes, storage_options: dict[str, str] | None
) -> None:
    """Write a file below a location. A reader never sees a part of it.

    Args:
        uri: the location.
        name: path of the file below the location: a folder, which is created, and a file name.
        content: the content.
        storage_options: options of the location's storage.

    Raises:
        OSError: it cannot be written.
    """
    local = local_path(uri)
    if local is None:
        stream = remote_store(uri, storage_options, ()).open_output_stream(name, None)
        stream.write(content)
        stream.close()
        return
    path = Path(local, name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    partial.replace(path)


def read_private_file(uri: str, name: str, storage_options: dict[str, str] | None) -> bytes | None:
    """Return the content of a file; None if it does not exist.

    Args:
        uri: the location.
        name: path of the file below the location.
        storage_options: options of the location's storage.

    Raises:
        OSError: the storage cannot be read.
    """
    local = local_path(uri)
    if local is None:
        return read_file(remote_store(uri, storage_options, [name]), name)
    try:
        return Path(local, name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
