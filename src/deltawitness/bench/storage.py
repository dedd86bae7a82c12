"""The temporary folder of a benchmark on the user's storage: check the location, create, remove."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from deltawitness.commit.log import LOG_DIRECTORY
from deltawitness.exceptions import ConfigurationError
from deltawitness.ids_and_clock import new_id
from deltawitness.locations import local_path
from deltawitness.redaction import redact_text

__all__ = ["check_location", "temporary_folder"]

PREFIX = "deltawitness-bench-"
"""Prefix of the name of a benchmark's folder."""


def check_location(uri: str | None, storage_options: Mapping[str, str] | None) -> str:
    """Return the location under which a benchmark can create its folder. Nothing is written.

    Args:
        uri: an existing local folder, or a URI of an object store; the system's folder for
            temporary files when None.
        storage_options: as for `DeltaTable`.

    Raises:
        ConfigurationError: the location is invalid, is itself a Delta table, is not writable, or
            cannot be reached.
    """
    given = tempfile.gettempdir() if uri is None else uri
    path = local_path(given)
    if path is not None:
        return _checked_folder(path)
    if "?" in given or "#" in given:
        msg = "--uri: expected a URI without a query or a fragment; credentials belong in the environment"
        raise ConfigurationError(msg)
    if not urlsplit(given).netloc:
        msg = "--uri: expected a URI that names a bucket or a container"
        raise ConfigurationError(msg)
    if _is_remote_table(given, storage_options):
        msg = "--uri: expected a location that is not itself a Delta table"
        raise ConfigurationError(msg)
    return given.rstrip("/")


def _is_remote_table(uri: str, storage_options: Mapping[str, str] | None) -> bool:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy, and only for remote locations
    from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - as above

    options = None if storage_options is None else dict(storage_options)
    try:
        # is_deltatable() returns False for an unknown scheme; the handler raises.
        DeltaStorageHandler(uri, options)
        return DeltaTable.is_deltatable(uri, options)
    except Exception as error:  # noqa: BLE001 - the engine may raise anything
        text = " ".join(redact_text(_COLOUR.sub("", str(error)), location=uri).split())
        msg = f"--uri: the storage cannot be read: {text}"
        raise ConfigurationError(msg) from None


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Terminal colour codes in the engine's error texts."""


def _checked_folder(path: str) -> str:
    folder = Path(path).absolute()
    if not folder.is_dir():
        msg = f"--uri: the folder {folder} does not exist"
        raise ConfigurationError(msg)
    if (folder / LOG_DIRECTORY).exists():
        msg = f"--uri: {folder} is a Delta table: expected an ordinary folder"
        raise ConfigurationError(msg)
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = f"--uri: the folder {folder} cannot be written"
        raise ConfigurationError(msg)
    return str(folder)


@contextmanager
def temporary_folder(base: str, storage_options: Mapping[str, str] | None = None) -> Iterator[str]:
    """Provide a new folder for the block, and remove it with its content at the end.

    Args:
        base: an existing local folder, or a URI of an object store.
        storage_options: as for `DeltaTable`.
    """
    if local_path(base) is not None:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=base)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
        return
    name = f"{PREFIX}{new_id()}"
    try:
        yield f"{base}/{name}"
    finally:
        _remove(base, name, storage_options)


def _remove(base: str, name: str, storage_options: Mapping[str, str] | None) -> None:
    from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - only for remote locations

    options = None if storage_options is None else dict(storage_options)
    DeltaStorageHandler(base, options).delete_dir(name)
