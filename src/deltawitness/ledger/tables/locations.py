"""Where a ledger and what waits for it lie, from the settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.commit.log import local_path
from deltawitness.hashing import table_id
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
    """Tell whether a ledger is to be kept."""
    return settings.ledger and settings.cache_root is not None


def absolute_root(settings: Settings) -> str:
    """Return the cache root of these settings, whatever the working directory will be."""
    given = settings.cache_root or DEFAULT_CACHE_ROOT
    return given if "://" in given else str(Path(given).absolute())


def resolve(settings: Settings) -> Settings:
    """Return the settings with folders that mean the same in another working directory."""
    root, spool = settings.cache_root, settings.spool_dir
    return replace(
        settings,
        cache_root=None if root is None else absolute_root(settings),
        spool_dir=None if spool is None else str(Path(spool).absolute()),
    )


def root_of(settings: Settings) -> LedgerRoot:
    """Return where the ledger of these settings lies, whatever the working directory will be."""
    # Imported here: it is heavy, and where a ledger lies is asked also by those who do not open it.
    from deltawitness.ledger.tables.schema import LedgerRoot  # noqa: PLC0415 - as said

    return LedgerRoot(absolute_root(settings), settings.storage_options)


def spool_folder(settings: Settings, root: LedgerRoot) -> Path:
    """Return the local folder of what is not in the ledger yet."""
    return spool_folder_of(settings, root.uri)


def spool_folder_of(settings: Settings, root: str) -> Path:
    """Return the local folder of what is not in the ledger at a cache root yet.

    Under a local cache root, so that whoever has the one has the other; for one on an object store
    in the user's own folder for state. Where many roots share a place, one for each: a drain adopts
    whatever is in its folder.
    """
    if settings.spool_dir is not None:
        return Path(settings.spool_dir).absolute() / table_id(root)
    local = local_path(root)
    if local is not None:
        return Path(local) / SPOOL_DIRECTORY
    return state_folder() / "deltawitness" / table_id(root)


def lock_folder(settings: Settings, root: LedgerRoot) -> Path:
    """Return the local folder of the locks of those who compute an entry of a cache."""
    local = local_path(root.uri)
    if local is not None:
        return Path(local) / LOCK_DIRECTORY
    return spool_folder(settings, root) / LOCK_DIRECTORY
