"""Locations of a ledger, its spools and its locks, from the settings."""

from __future__ import annotations

import os
import re
import socket
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.locations import is_uri, local_path, table_id
from deltawitness.run_origin import process_origin
from deltawitness.semconv import (
    DEFAULT_CACHE_ROOT,
    LOCK_DIRECTORY,
    PLANNED_ROOT_DIRECTORY,
    SPOOL_DIRECTORY,
    Env,
)
from deltawitness.settings import LedgerMode, Settings, settings_in_use, state_folder

if TYPE_CHECKING:
    from deltawitness.ledger.tables.schema import LedgerRoot

__all__ = [
    "absolute_root",
    "chosen_settings",
    "is_enabled",
    "lock_folder",
    "resolve",
    "root_of",
    "shard_of",
    "spool_folder",
    "spool_folder_of",
]


def is_enabled(settings: Settings) -> bool:
    """Return whether the settings enable a ledger."""
    return settings.ledger and settings.cache_root is not None


def absolute_root(settings: Settings) -> str:
    """Return the cache root of the settings, as an absolute path or URI.

    While a program is planned, it is in the folder of the plan: no ledger and no cache is written.
    """
    if plan := os.environ.get(Env.PLAN_FOLDER):
        return str(Path(plan, PLANNED_ROOT_DIRECTORY))
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


def chosen_settings(
    root: str | os.PathLike[str] | None,
    storage_options: dict[str, str] | None,
    settings: Settings | None,
) -> Settings:
    """Return the settings that are meant by the arguments of a function that reads or maintains a ledger.

    Without `settings`, they are those with which the process is instrumented, if these have a cache root and
    `root` is not another one; else those of the environment.

    Args:
        root: replaces the cache root.
        storage_options: replace the storage options.
        settings: the settings.

    Raises:
        ConfigurationError: `settings` is of another type, or a setting in the environment is invalid.
    """
    given = settings
    if given is None:
        used = settings_in_use()
        if used is not None and used.cache_root is not None and _is_root_of(used, root):
            given = used
    given = Settings.or_from_env(given)
    return replace(
        given,
        cache_root=given.cache_root if root is None else os.fspath(root),
        storage_options=storage_options or given.storage_options,
    )


def _is_root_of(settings: Settings, root: str | os.PathLike[str] | None) -> bool:
    return root is None or absolute_root(settings) == absolute_root(
        replace(settings, cache_root=os.fspath(root))
    )


def root_of(settings: Settings) -> LedgerRoot:
    """Return the location of the settings' ledger, independent of the working directory."""
    # Imported here: it is heavy, and callers often need the location without opening the ledger.
    from deltawitness.ledger.tables.schema import LedgerRoot  # noqa: PLC0415 - as above

    return LedgerRoot(absolute_root(settings), settings.storage_options)


SHARD_BUCKETS = 16
"""Number of shards over which hosts are spread by default. It bounds the number of tables that a reader
opens, however many hosts (containers, pods) there are."""


def shard_of(settings: Settings) -> str | None:
    """Return the shard to which this process commits; None where it commits to the main tables.

    By default the name of the scheduler's job, else one of `SHARD_BUCKETS` names by the host's name.
    """
    if settings.ledger_mode is not LedgerMode.SHARD:
        return None
    if settings.ledger_shard is not None:
        return settings.ledger_shard
    job = process_origin().job
    name = "" if job is None else re.sub(r"[^A-Za-z0-9_.-]+", "-", job).strip("-._")[:64]
    return name or f"host-{zlib.crc32(socket.gethostname().encode()) % SHARD_BUCKETS:02d}"


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
