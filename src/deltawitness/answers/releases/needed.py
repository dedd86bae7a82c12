"""The data files that releases need: whether they are there, and whether a vacuum would delete them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from deltawitness.answers.releases.lookup import place_of
from deltawitness.answers.releases.values import CheckedTable, NeededFiles, ReleaseTableState
from deltawitness.answers.table_restore import error_reason, missing_files, own_files
from deltawitness.ledger.tables.locations import root_of
from deltawitness.ledger.tables.releases import ReleasedTable, read_releases
from deltawitness.locations import canonical_uri
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


def files_that_releases_need(settings: Settings, uri: str | None = None) -> list[NeededFiles]:
    """Return the tables of releases with files that a vacuum deletes, or has deleted.

    A vacuum deletes files that are not in the last version, once they are older than the retention of the
    table. Tables whose version of the release has only files of the last version are left out.

    Args:
        settings: settings with the cache root of the releases, and the storage options of the tables.
        uri: canonical location of the only table to check; None for the tables of all releases.

    Raises:
        OSError: the ledger's storage cannot be read.
    """
    vacuums: dict[str, _Vacuum] = {}
    found = (
        _needed(release.name, table, settings, vacuums)
        for release in read_releases(root_of(settings))
        for table in release.tables
        if uri is None or canonical_uri(table.uri) == uri
    )
    return [each for each in found if each is not None]


class _Vacuum(NamedTuple):
    """The files of the last version of a table, and those that a vacuum would delete now."""

    last: frozenset[str]
    deleted: frozenset[str]


def _vacuum(table: ReleasedTable, settings: Settings) -> _Vacuum:
    last = place_of(table, settings).open(None)
    with suppressed():
        return _Vacuum(frozenset(own_files(last)), frozenset(last.vacuum(dry_run=True)))


def _needed(
    release: str, table: ReleasedTable, settings: Settings, vacuums: dict[str, _Vacuum]
) -> NeededFiles | None:
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
        vacuum = vacuums.get(table.uri)
        if vacuum is None:
            vacuum = vacuums[table.uri] = _vacuum(table, settings)
        there = own_files(opened) - vacuum.last - set(checked.missing)
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        return replace(found, reason=f"the last version cannot be read: {error_reason(error)}")
    if not there and not checked.missing:
        return None
    now = len(there & vacuum.deleted)
    return replace(found, vacuum_now=now, vacuum_later=len(there) - now)
