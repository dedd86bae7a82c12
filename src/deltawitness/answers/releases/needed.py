"""The data files that releases need: whether they are there, and whether a vacuum would delete them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from deltawitness.answers.releases.lookup import place_of
from deltawitness.answers.releases.values import CheckedTable, NeededFiles, ReleaseTableState
from deltawitness.answers.storage import error_reason
from deltawitness.answers.table_restore import missing_files, own_files
from deltawitness.ledger.tables.releases import Release, ReleasedTable
from deltawitness.locations import canonical_uri
from deltawitness.plurals import count_of, form_for
from deltawitness.run import suppressed
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["checked_table", "files_that_releases_need", "open_released"]


def checked_table(table: ReleasedTable, settings: Settings) -> CheckedTable:
    """Return whether a table version of a release can be read."""
    opened = open_released(table, settings)
    if isinstance(opened, CheckedTable):
        return opened
    try:
        missing = tuple(missing_files(place_of(table, settings), opened, None))
        files = len(opened.file_uris())
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        return _unreadable(table, error)
    state = ReleaseTableState.INCOMPLETE if missing else ReleaseTableState.OK
    reason = _deleted(len(missing), count_of(files, "file")) if missing else None
    return CheckedTable(table=table, state=state, files=files, missing=missing, reason=reason)


def _deleted(count: int, among: str) -> str:
    return f"{count:,} of {among} {form_for(count, 'was', 'were')} deleted"


def open_released(table: ReleasedTable, settings: Settings) -> DeltaTable | CheckedTable:
    """Return a table of a release at its version; else why it cannot be opened.

    Args:
        table: the table; one that was created again since is not opened.
        settings: settings with the storage options of the table.
    """
    try:
        opened = place_of(table, settings).open(table.version)
        metadata_id = str(opened.metadata().id)
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        return _unreadable(table, error)
    if metadata_id == table.metadata_id:
        return opened
    reason = "the table was deleted and created again"
    return CheckedTable(table=table, state=ReleaseTableState.RECREATED, reason=reason)


def _unreadable(table: ReleasedTable, error: Exception) -> CheckedTable:
    reason = f"version {table.version} cannot be read: {error_reason(error)}"
    return CheckedTable(table=table, state=ReleaseTableState.UNREADABLE, reason=reason)


def files_that_releases_need(
    releases: Iterable[Release], settings: Settings, uri: str | None = None
) -> list[NeededFiles]:
    """Return the tables of releases with files that a vacuum deletes, or has deleted.

    A vacuum deletes files that are not in the last version, once they are older than the retention of the
    table. Tables whose version of the release has only files of the last version are left out.

    Args:
        releases: the releases.
        settings: settings with the storage options of the tables.
        uri: canonical location of the only table to check; None for all tables.
    """
    vacuums: dict[str, _Vacuum] = {}
    found = (
        _needed(release.name, table, settings, vacuums)
        for release in releases
        for table in release.tables
        if uri is None or canonical_uri(table.uri) == uri
    )
    return [each for each in found if each is not None]


class _Vacuum(NamedTuple):
    """The last version of a table, and the files that a vacuum would delete now."""

    last: DeltaTable
    deleted: frozenset[str]


def _vacuum(table: ReleasedTable, settings: Settings) -> _Vacuum:
    last = place_of(table, settings).open(None)
    with suppressed():
        return _Vacuum(last, frozenset(last.vacuum(dry_run=True)))


def _needed(
    release: str, table: ReleasedTable, settings: Settings, vacuums: dict[str, _Vacuum]
) -> NeededFiles | None:
    opened = open_released(table, settings)
    if isinstance(opened, CheckedTable):
        return NeededFiles(release=release, table=table, state=opened.state, reason=opened.reason)
    try:
        if table.uri not in vacuums:
            vacuums[table.uri] = _vacuum(table, settings)
        vacuum = vacuums[table.uri]
        needed = own_files(opened) - own_files(vacuum.last)
        missing = missing_files(place_of(table, settings), opened, vacuum.last)
    except Exception as error:  # noqa: BLE001 - the engines raise errors of many types
        found = _unreadable(table, error)
        return NeededFiles(release=release, table=table, state=found.state, reason=found.reason)
    if not needed:
        return None
    now = len(needed.intersection(vacuum.deleted).difference(missing))
    return NeededFiles(
        release=release,
        table=table,
        state=ReleaseTableState.INCOMPLETE if missing else ReleaseTableState.OK,
        vacuum_now=now,
        vacuum_later=len(needed) - len(missing) - now,
        missing=len(missing),
        reason=_deleted(len(missing), "its files") if missing else None,
    )
