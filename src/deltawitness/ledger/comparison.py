"""Rows of the inventory held against a log: versions that are not there, or are another write's."""

from __future__ import annotations

from collections.abc import Iterator

from deltawitness.ledger.findings import Difference, Differing, Phantom
from deltawitness.ledger.known import SLACK, Known, KnownRow
from deltawitness.ledger.logs import LogRead

__all__ = ["differing_rows", "phantom_rows"]


def phantom_rows(found: LogRead, known: Known, since: int | None) -> Iterator[Phantom]:
    """Yield the rows whose versions the log does not hold, although it reaches over them.

    Args:
        found: what was read of the table.
        known: what the inventory says of it.
        since: milliseconds; rows of earlier operations are left out.
    """
    suspects = [
        (row, version)
        for row in _rows_of(found, known, since)
        for version in _beyond(row, found.start, found.versions)
    ]
    if not suspects:
        return
    # Looked at again: the row may have come after the log was read, or the log's beginning be gone.
    now = found.target.log().versions()
    for row, version in suspects:
        if version in _beyond(row, found.start, now):
            yield Phantom(found.target.uri, row.write_id, version)


def _beyond(row: KnownRow, start: int, versions: list[int]) -> list[int]:
    held = set(versions)
    first = max(start, versions[0]) if versions else start
    return [version for version in row.versions if version >= first and version not in held]


def differing_rows(found: LogRead, known: Known, since: int | None) -> Iterator[Differing]:
    """Yield the rows that say otherwise than the log.

    Args:
        found: what was read of the table.
        known: what the inventory says of it, and of its writes.
        since: milliseconds; rows of earlier operations are left out.
    """
    commits = {commit.version: commit for commit in found.commits}
    versions_of: dict[str, list[int]] = {}
    for commit in found.commits:
        for name in commit.ids:
            versions_of.setdefault(name, []).append(commit.version)

    def is_others(row: KnownRow, version: int) -> bool:
        commit = commits.get(version)
        return (
            commit is not None and row.write_id not in commit.ids and not row.may_have_made(commit)
        )

    here = {id(row) for row in _rows_of(found, known, since)}
    for row in known.rows:
        own = tuple(versions_of.get(row.write_id, ()))
        if not set(own) <= set(row.versions):
            difference = Difference.UNTOLD_COMMIT
        elif id(row) in here and any(is_others(row, version) for version in row.versions):
            difference = Difference.OTHER_WRITE
        else:
            continue
        yield Differing(found.target.uri, row.write_id, difference, row.result, row.versions, own)


def _rows_of(found: LogRead, known: Known, since: int | None) -> Iterator[KnownRow]:
    """Yield the rows that tell of this very table, not of one that lay here before."""
    born = None if found.born is None else found.born * 1000 - SLACK
    first = None if since is None else since * 1000
    for row in known.rows:
        if row.table_uri != found.target.uri:
            continue
        if (born is None or row.end >= born) and (first is None or row.end >= first):
            yield row
