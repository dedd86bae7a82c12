"""Find the writes of versions, and the reads of versions, with one query for many of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from deltawitness.answers.lineage_graph import EdgeKind
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.semconv import UNCOMMITTED_OPERATIONS, CacheOperation, CacheResult
from deltawitness.sql_quoting import quote_literal

__all__ = [
    "CHANGES_ROWS",
    "CLOCK_SKEW",
    "COMMITTED",
    "KEEPS_ROWS",
    "WINDOW",
    "WRITES_ROWS",
    "CommittedWrites",
    "Key",
    "inputs_of",
    "keeps_rows",
    "previous_of",
    "reads_query",
    "restored_of",
]

Key = tuple[str, int]
"""A version of a table: the table's id and the version."""

_OPERATION = "coalesce(cache_operation, '')"

COMMITTED = (
    f"{is_in('result', (CacheResult.WRITE.value, CacheResult.ERROR.value))}"
    " AND version IS NOT NULL AND table_id IS NOT NULL"
    f" AND NOT {is_in(_OPERATION, sorted(UNCOMMITTED_OPERATIONS))}"
)
"""The condition that a row is of an operation that has committed a version."""

_KEEPING = frozenset(
    {
        CacheOperation.OPTIMIZE.value,
        CacheOperation.VACUUM.value,
        CacheOperation.CHECKPOINT.value,
        CacheOperation.CLEANUP.value,
        CacheOperation.ALTER.value,
        CacheOperation.INVALIDATE.value,
    }
)
"""Operations that change no row of a table."""

KEEPS_ROWS = is_in(_OPERATION, sorted(_KEEPING))
"""The condition that an operation changes no row by its nature."""

WRITES_ROWS = (
    f"{is_in('result', (CacheResult.WRITE.value, CacheResult.ERROR.value))}"
    f" AND NOT {is_in(_OPERATION, sorted(_KEEPING | UNCOMMITTED_OPERATIONS))}"
)
"""The condition that an operation is a write that may change rows; `COMMITTED` and not `KEEPS_ROWS`, faster."""

CHANGES_ROWS = (
    f"NOT {KEEPS_ROWS} AND (coalesce(mode, '') = 'overwrite' OR NOT coalesce("
    "rows_added = 0 AND rows_deleted = 0 AND coalesce(rows_updated, 0) = 0, false))"
)
"""The condition that a commit has changed rows; an operation without counts counts as a change."""

WINDOW = 16
"""Versions that are read at once before and after one, because maintenance may be between."""

CLOCK_SKEW = timedelta(days=1)
"""How far the clocks of two machines may differ."""

RECENT = timedelta(days=3)
"""How long before a write most of its inputs were written."""

_CREATING = frozenset({CacheOperation.CREATE.value, CacheOperation.CONVERT.value})

_COLUMNS = (
    *("table_id", "table_uri", "table_name", "version", "versions", "event_time", "run_id", "job"),
    *("operation", "cache_operation", "mode", "write_id", "result", "inputs", "run_inputs"),
)

_READS = {"inputs": EdgeKind.EXACT, "run_inputs": EdgeKind.INFERRED}
"""The columns with inputs; a row with the first one has no use for the second one."""


def reads_query(
    ledger: LedgerListing, columns: str, condition: str, written: Iterable[str] = ()
) -> str:
    """Return a query of the reads of tables by operations.

    Its rows have `table_id`, `version` and `event_time` of the operation, `read_id`, `read_uri` and
    `read_version` of the table, and `kind`.

    Args:
        ledger: the ledger, whose table may lack columns of this release.
        columns: what to select.
        condition: SQL predicate over the columns.
        written: SQL predicates over the columns of `inventory`.
    """
    there = ledger.columns(INVENTORY)
    found = [column for column in _READS if column in there]
    if not found:
        return f"SELECT {columns} FROM (SELECT {_NO_READS}) WHERE false"  # noqa: S608 - quoted
    is_there = " OR ".join(f"{column} IS NOT NULL" for column in found)
    where = " AND ".join([f"({is_there})", *written])
    first = found[0]
    return (
        f"SELECT {columns} FROM (SELECT table_id, version, event_time, i['table_id'] AS read_id,"  # noqa: S608 - quoted
        " i['uri'] AS read_uri, i['version'] AS read_version,"
        f" CASE WHEN is_first THEN '{_READS[first]}' ELSE '{EdgeKind.INFERRED}' END AS kind"
        f" FROM (SELECT table_id, version, event_time, {first} IS NOT NULL AS is_first,"
        f" unnest(coalesce({', '.join(found)})) AS i FROM inventory WHERE {where}))"
        f" WHERE {condition}"
    )


_NO_READS = (
    "CAST(NULL AS VARCHAR) AS table_id, CAST(NULL AS BIGINT) AS version, NULL AS event_time,"
    " CAST(NULL AS VARCHAR) AS read_id, CAST(NULL AS VARCHAR) AS read_uri,"
    " CAST(NULL AS BIGINT) AS read_version, CAST(NULL AS VARCHAR) AS kind"
)


@dataclass
class CommittedWrites:
    """The writes of versions, read from the ledger as they are needed.

    Attributes:
        ledger: the ledger to query.
        more: columns that are read in addition.
    """

    ledger: LedgerListing
    more: tuple[str, ...] = ()
    _rows: dict[Key, Row] = field(default_factory=dict)
    _repeated: set[Key] = field(default_factory=set)
    _loaded: set[Key] = field(default_factory=set)

    def get(self, key: Key) -> Row | None:
        """Return the row of the write of a loaded version; None if the ledger has none."""
        return self._rows.get(key)

    def has_others(self, key: Key) -> bool:
        """Return whether the ledger has several writes of a loaded version."""
        return key in self._repeated

    def load(
        self,
        keys: Iterable[Key],
        *,
        before: int = WINDOW,
        after: int = 0,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        """Read the writes of versions, and of the versions around them.

        Most inputs are written shortly before they are read, so the days before `until` are read first.

        Args:
            keys: the versions.
            before: number of versions before each one.
            after: number of versions after each one.
            since: a time before the first of the writes, for a faster query.
            until: a time after the last of the writes, for a faster query.
        """
        missing = [key for key in dict.fromkeys(keys) if key not in self._loaded]
        if not missing or not self.ledger.has(INVENTORY):
            return
        wanted = [each for key in missing for each in _around(key, before, after)]
        if until is not None and since is None:
            self._read(_is_one_of(wanted), until - RECENT, until)
            self._loaded.update(key for key in wanted if key in self._rows)
            missing = [key for key in missing if key not in self._loaded]
            wanted = [each for key in missing for each in _around(key, before, after)]
        if not missing:
            return
        self._loaded.update(wanted)
        found = self._read(_is_one_of(wanted), since, until)
        # The column `version` is the last one of a write of several versions.
        inside = [key for key in missing if key not in self._rows and key[0] in found]
        if inside and "versions" in self.ledger.columns(INVENTORY):
            self._read(" OR ".join(map(_is_inside, inside)), None, None)

    def _read(self, condition: str, since: datetime | None, until: datetime | None) -> set[str]:
        """Read the rows with a condition, and return the ids of their tables."""
        there = self.ledger.columns(INVENTORY)
        columns = ", ".join(name for name in (*_COLUMNS, *self.more) if name in there)
        days = [] if since is None else [f"event_date >= DATE '{since.date() - CLOCK_SKEW}'"]
        days += [] if until is None else [f"event_date <= DATE '{until.date() + CLOCK_SKEW}'"]
        where = " AND ".join([*days, COMMITTED, f"({condition})"])
        rows = self.ledger.query(
            f"SELECT {columns} FROM inventory WHERE {where} ORDER BY event_time"  # noqa: S608 - quoted
        )
        for row in rows:
            for version in versions_of(row):
                key = row["table_id"], version
                known = self._rows.get(key)
                if known is not None and known["write_id"] != row["write_id"]:
                    self._repeated.add(key)
                self._rows[key] = row
        return {row["table_id"] for row in rows}

    def find_others(self, keys: Iterable[Key]) -> None:
        """Find loaded versions that have several writes, also among writes of other times."""
        condition = _is_one_of(key for key in keys if key in self._rows)
        rows = self.ledger.query(
            "SELECT table_id, version FROM inventory"  # noqa: S608 - quoted
            f" WHERE {COMMITTED} AND ({condition}) GROUP BY table_id, version"
            " HAVING count(DISTINCT write_id) > 1"
        )
        self._repeated.update((row["table_id"], row["version"]) for row in rows)

    def resolve(self, keys: Iterable[Key], until: datetime | None = None) -> dict[Key, Key]:
        """Return for each version the one that has changed rows last; itself if that is not known.

        Args:
            keys: the versions.
            until: as for `load`.
        """
        found = {key: key for key in keys}
        pending = dict(found)
        while pending:
            self.load(pending.values(), until=until)
            following = {}
            for key, reached in pending.items():
                end = self._skip_back(reached)
                found[key] = end
                if end not in self._loaded:
                    following[key] = end
            pending = following
        return found

    def _skip_back(self, key: Key) -> Key:
        while key[1] > 0 and (row := self._rows.get(key)) is not None and keeps_rows(row):
            key = key[0], min(versions_of(row)) - 1
        return key if key[1] >= 0 else (key[0], 0)

    def following(self, keys: Iterable[Key], since: datetime | None = None) -> dict[Key, list[Key]]:
        """Return for each version those after it, up to the next one that changes rows.

        The last version of each list changes rows, or the ledger does not have it.

        Args:
            keys: the versions.
            since: as for `load`.
        """
        found: dict[Key, list[Key]] = {key: [(key[0], key[1] + 1)] for key in keys}
        pending = list(found)
        while pending:
            self.load((found[key][-1] for key in pending), before=0, after=WINDOW, since=since)
            pending = [key for key in pending if self._extend(found[key])]
        return found

    def _extend(self, versions: list[Key]) -> bool:
        """Append versions up to one that changes rows; return whether more must be loaded."""
        while (row := self._rows.get(versions[-1])) is not None and keeps_rows(row):
            table, version = versions[-1]
            versions.append((table, version + 1))
        return versions[-1] not in self._loaded


def keeps_rows(row: Row) -> bool:
    """Return whether an operation changes no row by its nature."""
    return row["cache_operation"] in _KEEPING


def versions_of(row: Row) -> list[int]:
    """Return the versions that an operation has committed."""
    return list(row.get("versions") or ()) or [row["version"]]


def restored_of(row: Row) -> int | None:
    """Return the version that a RESTORE has restored; None for another operation, and if it is not known."""
    if row["cache_operation"] != CacheOperation.RESTORE.value:
        return None
    own = (read["version"] for read in inputs_of(row)[0] if read["table_id"] == row["table_id"])
    first = min(versions_of(row))
    return max((version for version in own if version < first), default=None)


def inputs_of(row: Row) -> tuple[list[dict[str, Any]], EdgeKind]:
    """Return the inputs of a write, and how they are known."""
    for column, kind in _READS.items():
        reads = [
            read
            for read in row.get(column) or ()
            if read["version"] is not None and read["table_id"] is not None
        ]
        if reads:
            return reads, kind
    return [], EdgeKind.EXACT


def previous_of(row: Row) -> int | None:
    """Return the version of the same table on which a write was made; None if it replaced or created it.

    A write that replaced the table with rows that were read from it was made on the version that was read.
    A RESTORE was not made on the version before it: the restored version is its input.
    """
    first = min(versions_of(row))
    if first == 0 or restored_of(row) is not None:
        return None
    if row["cache_operation"] not in _CREATING and row["mode"] != "overwrite":
        return first - 1
    own = (read for read in inputs_of(row)[0] if read["table_id"] == row["table_id"])
    return max((read["version"] for read in own if read["version"] < first), default=None)


def _around(key: Key, before: int, after: int) -> Iterator[Key]:
    table, version = key
    for each in range(max(version - before, 0), version + after + 1):
        yield table, each


def _is_one_of(keys: Iterable[Key]) -> str:
    """Return the condition that the last version of a write is one of some versions."""
    return _in_spans("table_id", "version", keys)


def _is_inside(key: Key) -> str:
    table, version = key
    has_version = f"version > {version} AND array_has(versions, {version})"
    return f"(table_id = {quote_literal(table)} AND {has_version})"


def _in_spans(table_column: str, version_column: str, keys: Iterable[Key]) -> str:
    spans = _spans(keys)
    if not spans:
        return "false"
    if len(spans) > _MANY_TABLES:
        # A join is faster than many alternatives; the ranges around it let the engine skip files.
        ends = [end for ranges in spans.values() for span in ranges for end in span]
        values = ", ".join(
            f"({quote_literal(table)}, {first}, {last})"
            for table, ranges in spans.items()
            for first, last in ranges
        )
        return (
            f"{version_column} BETWEEN {min(ends)} AND {max(ends)} AND EXISTS (SELECT 1"  # noqa: S608 - quoted
            f" FROM (VALUES {values}) AS spans(span_table, span_first, span_last)"
            f" WHERE span_table = {table_column}"
            f" AND span_first <= {version_column} AND span_last >= {version_column})"
        )
    conditions = []
    for table, ranges in spans.items():
        versions = " OR ".join(
            f"{version_column} BETWEEN {first} AND {last}" for first, last in ranges
        )
        conditions.append(f"({table_column} = {quote_literal(table)} AND ({versions}))")
    return " OR ".join(conditions)


_MANY_TABLES = 8
"""Number of tables above which a query joins their versions."""


def _spans(keys: Iterable[Key]) -> dict[str, list[tuple[int, int]]]:
    """Return the ranges of versions of each table.

    >>> _spans([("a", 3), ("a", 1), ("a", 2), ("a", 7)])
    {'a': [(1, 3), (7, 7)]}
    """
    found: dict[str, list[tuple[int, int]]] = {}
    versions: dict[str, set[int]] = {}
    for table, version in keys:
        versions.setdefault(table, set()).add(version)
    for table, numbers in versions.items():
        ordered = sorted(numbers)
        ends = [left for left, right in pairwise(ordered) if right > left + 1] + [ordered[-1]]
        starts = [ordered[0]] + [right for left, right in pairwise(ordered) if right > left + 1]
        found[table] = list(zip(starts, ends, strict=True))
    return found
