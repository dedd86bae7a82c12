"""The data files that releases need: whether they are there, and whether a vacuum would delete them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from deltawitness.answers.releases.lookup import place_of
from deltawitness.answers.releases.values import CheckedTable, NeededFiles, ReleaseTableState
from deltawitness.answers.table_restore import error_reason, missing_files, own_files
from deltawitness.ledger.tables.locations import root_of
from deltawitness.ledger.tables.releases import ReleasedTable, read_releases
from deltawitness.run import suppressed
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["checked_table", "files_that_releases_need"]


def checked_table(table: ReleasedTable, settings: Settings) -> CheckedTable:
    """Return whether a table version of a release can be read."""
    return _checked(table, settings)[0]


def _checked(table: ReleasedTable, settings: Settings) -> tuple[CheckedTable, DeltaTable | None]:
    """Return whether a table version can be read, and the table at the version if it can be."""
    place = place_of(table, settings)
    unreadable = CheckedTable(table=table, state=ReleaseTableState.UNREADABLE)
    try:
        opened = place.open(table.version)
        if str(opened.metadata().id) != table.metadata_id:
            state = ReleaseTableState.RECREATED
            why = "the table was deleted and created again"
            return replace(unreadable, state=state, reason=why), None
        missing = tuple(missing_files(place, opened, None))
        files = len(opened.file_uris())
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        why = f"version {table.version} cannot be read: {error_reason(error)}"
        return replace(unreadable, reason=why), None
    state = ReleaseTableState.INCOMPLETE if missing else ReleaseTableState.OK
    reason = f"{len(missing):,} of {files:,} files were deleted" if missing else None
    checked = CheckedTable(table=table, state=state, files=files, missing=missing, reason=reason)
    return checked, opened


def files_that_releases_need(settings: Settings) -> list[NeededFiles]:
    """Return the tables of releases with files that a vacuum deletes, or has deleted.

    A vacuum deletes files that are not in the last version, once they are older than the retention of the
    table. Tables whose version of the release has only files of the last version are left out.

    Args:
        settings: settings with the cache root of the releases, and the storage options of the tables.

    Raises:
        OSError: the ledger's storage cannot be read.
    """
    found = (
        _needed(release.name, table, settings)
        for release in read_releases(root_of(settings))
        for table in release.tables
    )
    return [each for each in found if each is not None]


def _needed(release: str, table: ReleasedTable, settings: Settings) -> NeededFiles | None:
    checked, opened = _checked(table, settings)
    found = NeededFiles(
        release=release,
        table=table,
        state=checked.state,
        missing=len(checked.missing),
        reason=checked.reason,
    )
    if opened is None:
        return found
    try:
        last = place_of(table, settings).open(None)
        there = own_files(opened) - own_files(last) - set(checked.missing)
        with suppressed():
            now = there.intersection(last.vacuum(dry_run=True))
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        return replace(found, reason=f"the last version cannot be read: {error_reason(error)}")
    if not there and not checked.missing:
        return None
    return replace(found, vacuum_now=len(now), vacuum_later=len(there) - len(now))
