"""Locations of a ledger, its spools and its locks, from the settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.locations import is_uri, local_path, table_id
from deltawitness.semconv import DEFAULT_CACHE_ROOT, LOCK_DIRECTORY, SPOOL_DIRECTORY
from deltawitness.settings import Settings, state_folder

if TYPE_CHECKING:
    from deltawitness.ledger.tables.schema import LedgerRoot

__all__ = [
    "absolute_root",
    "is_enabled",
    "lock_folder",
    "resolve",
    "root_of",
    "spool_folder",
    "spool_folder_of",
]


def is_enabled(settings: Settings) -> bool:
    """Return whether the settings enable a ledger."""
    return settings.ledger and settings.cache_root is not None


def absolute_root(settings: Settings) -> str:
    """Return the cache root of the settings, as an absolute path or URI."""
    given = settings.cache_root or DEFAULT_CACHE_ROOT
    return given if is_uri(given) else str(Path(given).absolute())


def resolve(settings: Settings) -> Settings:
    """Return the settings with `cache_root` and `spool_dir` made absolute."""
    root, spool = settings.cache_root, settings.spool_dir
    return replace(
        settings,
        cache_root=None if root is None else absolute_root(settings),
        spool_dir=None if spool is None else str(Path(spool).absolute()),
    )


def root_of(settings: Settings) -> LedgerRoot:
    """Return the location of the settings' ledger, independent of the working directory."""
    # Imported here: it is heavy, and callers often need the location without opening the ledger.
    from deltawitness.ledger.tables.schema import LedgerRoot  # noqa: PLC0415 - as above

    return LedgerRoot(absolute_root(settings), settings.storage_options)


def spool_folder(settings: Settings, root: LedgerRoot) -> Path:
    """Return the local folder of the spools of a ledger."""
    return spool_folder_of(settings, root.uri)


def spool_folder_of(settings: Settings, root: str) -> Path:
    """Return the local folder of the spools of the ledger at a cache root.

    Under a local cache root, so that every process with access to the root can drain them. For a
    remote root, in the user's state folder. In a shared folder each root has a folder, because a
    drain adopts every spool in its folder.
    """
    if settings.spool_dir is not None:
        return Path(settings.spool_dir).absolute() / table_id(root)
    local = local_path(root)
    if local is not None:
        return Path(local) / SPOOL_DIRECTORY
    return state_folder() / "deltawitness" / table_id(root)


def lock_folder(settings: Settings, root: LedgerRoot) -> Path:
    """Return the local folder of the entry locks of a cache."""
    local = local_path(root.uri)
    if local is not None:
        return Path(local) / LOCK_DIRECTORY
    return spool_folder(settings, root) / LOCK_DIRECTORY
