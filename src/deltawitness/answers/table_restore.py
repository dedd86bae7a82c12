"""Restore one table to an earlier version by one commit, without a loss of commits that are not known."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deltawitness.answers.storage import error_reason
from deltawitness.app_transactions.block import outside_block
from deltawitness.locations import local_path
from deltawitness.run import suppressed

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "FILES_SHOWN",
    "TablePlace",
    "commit_restore",
    "difference",
    "missing_files",
    "obstacle",
    "own_files",
]

FILES_SHOWN = 3
"""Maximum number of missing files in a reason."""


@dataclass(frozen=True, slots=True)
class TablePlace:
    """Where a table is.

    Attributes:
        uri: its location.
        storage_options: as for `DeltaTable`, for a table on an object store.
    """

    uri: str
    storage_options: dict[str, str] | None

    @property
    def options(self) -> dict[str, str] | None:
        """The storage options; None for a local table."""
        return None if local_path(self.uri) is not None else self.storage_options

    def open(self, version: int | None) -> DeltaTable:
        """Open the table at a version, the last one when None."""
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy

        place = local_path(self.uri) or self.uri
        with suppressed():  # this read is no input of the program
            return DeltaTable(place, version=version, storage_options=self.options)


def own_files(table: DeltaTable) -> set[str]:
    """Return the data files of an open version, as paths below the table; others are left out."""
    start = (local_path(table.table_uri) or table.table_uri).rstrip("/") + "/"
    files = table.file_uris()
    return {file.removeprefix(start).lstrip("/") for file in files if file.startswith(start)}


def missing_files(place: TablePlace, table: DeltaTable, known: DeltaTable | None) -> list[str]:
    """Return the data files of a version that were deleted, as paths below the table.

    Args:
        place: the table.
        table: the table, open at the version.
        known: the table at another version; its files are not looked up. None to look up all.
    """
    from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - heavy
    from pyarrow.fs import FileType  # noqa: PLC0415 - heavy

    paths = sorted(own_files(table) - (set() if known is None else own_files(known)))
    store = DeltaStorageHandler(table.table_uri, place.options)
    infos = store.get_file_info(paths) if paths else []
    return [info.path for info in infos if info.type == FileType.NotFound]


def obstacle(place: TablePlace, before: int, current: int) -> str | None:
    """Return why a table cannot be restored; None if the engine can do it and all files are there.

    Args:
        place: the table.
        before: the version to restore.
        current: the last version.
    """
    try:
        table = place.open(before)
        table.file_uris()
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        return f"version {before} can no longer be read: {error_reason(error)}"
    last = place.open(current)
    if last.metadata().configuration.get("delta.appendOnly") == "true":
        return "it is append-only: a restore would remove rows"
    missing = missing_files(place, table, last)
    if not missing:
        return None
    more = f" and {len(missing) - FILES_SHOWN} more" if len(missing) > FILES_SHOWN else ""
    names = ", ".join(missing[:FILES_SHOWN])
    return f"files of version {before} were deleted, for example by a vacuum: {names}{more}"


def commit_restore(
    place: TablePlace, before: int, current: int, keys: Mapping[str, str]
) -> str | None:
    """Commit the version after the last known one, with the content of an earlier one, or fail.

    Args:
        place: the table.
        before: the version to restore.
        current: the last known version.
        keys: keys of the commit.

    Returns:
        The error, after which the commit may be in the log; None without an error.
    """
    from deltalake import CommitProperties  # noqa: PLC0415 - heavy

    properties = CommitProperties(custom_metadata=dict(keys))
    try:
        table = place.open(current)
        with outside_block():  # the restore is no write of a `once` block of the caller
            table.restore(before, commit_properties=properties)
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        return error_reason(error)
    return None


def difference(place: TablePlace, before: int, restored: int) -> str | None:
    """Return that a restored version does not have the files of the earlier one; None if it has."""
    with suppress(Exception):  # the version before may no longer be readable after the commit
        wanted = sorted(place.open(before).file_uris())
        if sorted(place.open(restored).file_uris()) != wanted:
            return f"version {restored} does not have the files of {before}"
    return None
