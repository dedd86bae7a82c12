"""Find inventory rows whose version is absent from the table's log or belongs to another write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deltawitness.ledger.reconcile.findings import Difference, DifferingRow, PhantomRow
from deltawitness.ledger.reconcile.inventory_index import IndexedRow, InventoryIndex
from deltawitness.ledger.reconcile.log_reader import Commit, LogRead

__all__ = ["differing_rows", "phantom_rows"]


def phantom_rows(found: LogRead, index: InventoryIndex, since: int | None) -> Iterator[PhantomRow]:
    """Yield rows whose versions are missing from the log, although the log covers their range.

    Args:
        found: the log that was read.
        index: the rows of the table.
        since: milliseconds since the Unix epoch; rows of operations that ended earlier are skipped.
    """
    suspects = [
        (row, version)
        for row in _rows_of(found, index, since)
        for version in _missing_versions(row, found.start, found.versions)
    ]
    if not suspects:
        return
    # List again: the commit may be newer than the first listing, or the log's start was cleaned up.
    now = found.target.log().versions()
    for row, version in suspects:
        if version in _missing_versions(row, found.start, now):
            yield PhantomRow(found.target.uri, row.write_id, version)


def _missing_versions(row: IndexedRow, start: int, versions: list[int]) -> list[int]:
    held = set(versions)
    first = max(start, versions[0]) if versions else start
    return [version for version in row.versions if version >= first and version not in held]


def differing_rows(
    found: LogRead, index: InventoryIndex, since: int | None
) -> Iterator[DifferingRow]:
    """Yield the rows that contradict the log, each once.

    The order of checks: rows that omit a commit of their write, rows that name another write's
    commit, then duplicates (all but one of the rows that name one commit).

    Args:
        found: the log that was read.
        index: the rows of the table, and of the writes in its log.
        since: milliseconds since the Unix epoch; rows of operations that ended earlier are skipped.
    """
    here = list(_rows_of(found, index, since))
    versions_of: dict[str, list[int]] = {}
    for commit in found.commits:
        for name in commit.ids:
            versions_of.setdefault(name, []).append(commit.version)
    doubled = _doubled(found, here)
    others = _of_other_writes(found, here)
    by_id = index.by_id
    for row in index.rows:
        own = tuple(versions_of.get(row.write_id, ()))
        if _omits_commit(row, own, by_id[row.write_id], found.target.uri):
            difference = Difference.MISSING_COMMIT
        elif id(row) in others:
            difference = Difference.OTHER_WRITE
        elif id(row) in doubled:
            difference = Difference.DOUBLED
        else:
            continue
        yield DifferingRow(
            found.target.uri, row.write_id, difference, row.result, row.versions, own
        )


def _omits_commit(
    row: IndexedRow, own: tuple[int, ...], same: Sequence[IndexedRow], uri: str
) -> bool:
    """Return whether the log contains a commit of a row's write that the row does not name.

    A row of another table with the same write id counts only if no row of this table names the
    commit.

    Args:
        row: the row.
        own: the versions in the log with the row's write id.
        same: all rows with the row's write id.
        uri: the table of the log.
    """
    missing = set(own) - set(row.versions)
    if not missing or row.table_uri == uri:
        return bool(missing)
    named = {version for other in same if other.table_uri == uri for version in other.versions}
    return not missing <= named


def _may_describe(row: IndexedRow, commit: Commit) -> bool:
    return row.write_id in commit.ids or row.may_have_made(commit)


def _of_other_writes(found: LogRead, rows: Sequence[IndexedRow]) -> set[int]:
    """Return the `id()`s of the rows that name a version which another write committed."""
    commits = {commit.version: commit for commit in found.commits}
    return {
        id(row)
        for row in rows
        if any(
            version in commits and not _may_describe(row, commits[version])
            for version in row.versions
        )
    }


def _doubled(found: LogRead, rows: Sequence[IndexedRow]) -> set[int]:
    """Return the `id()`s of duplicates: all but the first row that names a commit.

    The first is the row with the commit's own write id; then an observed row; then the earliest.
    """
    named: dict[int, list[IndexedRow]] = {}
    for row in rows:
        for version in set(row.versions):
            named.setdefault(version, []).append(row)
    doubled: set[int] = set()
    for commit in found.commits:
        candidates = [row for row in named.get(commit.version, ()) if _may_describe(row, commit)]

        def rank(row: IndexedRow, ids: frozenset[str] = commit.ids) -> tuple[bool, bool, int]:
            return row.write_id not in ids, not row.is_observed, row.start

        doubled |= {id(row) for row in sorted(candidates, key=rank)[1:]}
    return doubled


def _rows_of(found: LogRead, index: InventoryIndex, since: int | None) -> Iterator[IndexedRow]:
    """Yield the rows of this table, without those of an earlier table at the same location.

    Operations on the earlier table had ended when this one was created. The tolerance is 1 ms, the
    resolution of commit times; with a larger one, a table that is recreated at once would be taken
    for the earlier one.
    """
    created_ms = None if found.created_ms is None else (found.created_ms - 1) * 1000
    first = None if since is None else since * 1000
    for row in index.rows:
        if row.table_uri != found.target.uri:
            continue
        if (created_ms is None or row.end >= created_ms) and (first is None or row.end >= first):
            yield row
