"""The state of the ledger on this machine: its root, its tables, and what is not drained yet."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from deltawitness.commit.log import LOG_DIRECTORY
from deltawitness.installation.environment import kind_of_location
from deltawitness.installation.model import LedgerInfo
from deltawitness.ledger.tables.locations import absolute_root, is_enabled, root_of, spool_folder
from deltawitness.locations import local_path, strip_credentials

if TYPE_CHECKING:
    from deltawitness.settings import Settings

__all__ = ["ledger_state"]


def ledger_state(settings: Settings, *, paths: bool) -> LedgerInfo:
    """Return the state of the ledger of the settings. Only the local disk is read.

    Args:
        settings: the settings with the location of the ledger.
        paths: whether to show its root, without credentials.

    Raises:
        OSError: the spools cannot be read.
    """
    from deltawitness.ledger.spool.reader import segments_of  # noqa: PLC0415 - imports fcntl

    root = absolute_root(settings)
    folder = spool_folder(settings, root_of(settings))
    changed = [time for path in segments_of(folder) if (time := _changed(path)) is not None]
    return LedgerInfo(
        kind=kind_of_location(root),
        root=strip_credentials(root) if paths else None,
        is_enabled=is_enabled(settings),
        tables=_tables(settings, root),
        spool_bytes=sum(_sizes(folder)),
        spools=_spools(folder),
        segments=len(changed),
        oldest=dt.datetime.fromtimestamp(min(changed), tz=dt.UTC) if changed else None,
    )


def _tables(settings: Settings, root: str) -> tuple[str, ...] | None:
    from deltawitness.ledger.tables.schema import TABLES  # noqa: PLC0415 - heavy

    if local_path(root) is None:
        return None
    ledger_root = root_of(settings)
    logs = {table.name: local_path(ledger_root.uri_of(table)) for table in TABLES}
    return tuple(
        name for name, log in logs.items() if log is not None and Path(log, LOG_DIRECTORY).is_dir()
    )


def _changed(path: Path) -> float | None:
    with suppress(FileNotFoundError):  # drained and deleted meanwhile
        return path.stat().st_mtime
    return None


def _spools(folder: Path) -> int:
    from deltawitness.ledger.spool.writer import REVISIONS  # noqa: PLC0415 - imports fcntl

    if not folder.is_dir():
        return 0
    return sum(1 for path in folder.iterdir() if path.name.startswith(REVISIONS))


def _sizes(folder: Path) -> Iterator[int]:
    """Yield the sizes in bytes of all files in a folder."""
    for directory, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                yield Path(directory, name).lstat().st_size
