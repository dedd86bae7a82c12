"""Rows of the inventory held against a log: versions that are not there, or are another write's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deltawitness.ledger.reconcile.findings import Difference, DifferingRow, PhantomRow
from deltawitness.ledger.reconcile.inventory_index import IndexedRow, InventoryIndex
from deltawitness.ledger.reconcile.log_reader import Commit, LogRead

__all__ = ["differing_rows", "phantom_rows"]


def phantom_rows(found: LogRead, known: InventoryIndex, since: int | None) -> Iterator[PhantomRow]:
    """Yield the rows whose versions the log does not hold, although it reaches over them.

    Args:
        found: what was read of the table.
        known: what the inventory says of it.
        since: milliseconds; rows of earlier operations are left out.
    """
    suspects = [
        (row, version)
        for row in _rows_of(found, known, since)
        for version in _missing_versions(row, found.start, found.versions)
    ]
    if not suspects:
        return
    # Looked at again: the row may have come after the log was read, or the log's beginning be gone.
    now = found.target.log().versions()
    for row, version in suspects:
        if version in _missing_versions(row, found.start, now):
            yield PhantomRow(found.target.uri, row.write_id, version)


def _missing_versions(row: IndexedRow, start: int, versions: list[int]) -> list[int]:
    held = set(versions)
    first = max(start, versions[0]) if versions else start
    return [version for version in row.versions if version >= first and version not in held]


def differing_rows(
    found: LogRead, known: InventoryIndex, since: int | None
) -> Iterator[DifferingRow]:
    """Yield the rows that say otherwise than the log.

    Each is yielded once: as another write's, as one that lacks a commit of its write, or, where
    several rows stand for one commit, as doubled, all of them but one.

    Args:
        found: what was read of the table.
        known: what the inventory says of it, and of its writes.
        since: milliseconds; rows of earlier operations are left out.
    """
    here = list(_rows_of(found, known, since))
    versions_of: dict[str, list[int]] = {}
    for commit in found.commits:
        for name in commit.ids:
            versions_of.setdefault(name, []).append(commit.version)
    doubled = _doubled(found, here)
    others = _of_other_writes(found, here)
    by_id = known.by_id
    for row in known.rows:
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
    """Return whether the log holds a commit of a row's write that the row does not name.

    A row with the id of a write to another table is compared with that table's log, as long as the
    commit has its row.
    """
    missing = set(own) - set(row.versions)
    if not missing or row.table_uri == uri:
        return bool(missing)
    named = {version for other in same if other.table_uri == uri for version in other.versions}
    return not missing <= named


def _may_describe(row: IndexedRow, commit: Commit) -> bool:
    return row.write_id in commit.ids or row.may_have_made(commit)


def _of_other_writes(found: LogRead, rows: Sequence[IndexedRow]) -> set[int]:
    """Return the identities of the rows that name a version which another write committed."""
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
    """Return the identities of the rows beyond the first that stand for one commit.

    The first is the one with the commit's own id; among equals the one that was observed, and then
    the earliest.
    """
    named: dict[int, list[IndexedRow]] = {}
    for row in rows:
        for version in set(row.versions):
            named.setdefault(version, []).append(row)
    doubled: set[int] = set()
    for commit in found.commits:
        standing = [row for row in named.get(commit.version, ()) if _may_describe(row, commit)]

        def rank(row: IndexedRow, ids: frozenset[str] = commit.ids) -> tuple[bool, bool, int]:
            return row.write_id not in ids, not row.is_observed, row.start

        doubled |= {id(row) for row in sorted(standing, key=rank)[1:]}
    return doubled


def _rows_of(found: LogRead, known: InventoryIndex, since: int | None) -> Iterator[IndexedRow]:
    """Yield the rows that tell of this very table, not of one that lay here before.

    Operations on the earlier table had ended when this one was made. The slack is that of a
    timestamp in milliseconds: with more, a table made anew at once is taken for the earlier one.
    """
    created_ms = None if found.created_ms is None else (found.created_ms - 1) * 1000
    first = None if since is None else since * 1000
    for row in known.rows:
        if row.table_uri != found.target.uri:
            continue
        if (created_ms is None or row.end >= created_ms) and (first is None or row.end >= first):
            yield row
