"""Index of the inventory's rows of a table, by write id and by version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from deltawitness.ledger.reconcile.log_reader import Commit
from deltawitness.ledger.tables.arrow import query
from deltawitness.ledger.tables.schema import Source
from deltawitness.ledger.tables.shards import TableParts
from deltawitness.semconv import UNCOMMITTED_OPERATIONS
from deltawitness.sql_quoting import quote_literal

__all__ = ["IndexedRow", "InventoryIndex", "index_inventory", "indexed_ids", "newest_versions"]

CLOCK_SKEW = 2_000_000
"""Microseconds by which a commit's time may be outside of its operation's interval, because
engines round times."""

MAX_NAMED_IDS = 1000
"""Up to this number of ids a query lists them; for more, all rows are read and filtered."""

_COLUMNS = (
    "write_id",
    "run_id",
    "table_uri",
    "event_time",
    "duration_ms",
    "version",
    "versions",
    "result",
    "source",
    "cache_operation",
)
_UNCOMMITTED = ", ".join(
    sorted(quote_literal(operation.value) for operation in UNCOMMITTED_OPERATIONS)
)
_COMMITTING = f"coalesce(cache_operation, '') NOT IN ({_UNCOMMITTED})"
"""Rows of operations that commit. A read of a cache entry names the version it read, but committed
none."""

_QUERY = f"SELECT {', '.join(_COLUMNS)} FROM ledger WHERE {_COMMITTING}"


@dataclass(frozen=True, slots=True)
class IndexedRow:
    """A row of the inventory, with the columns that are compared with a log.

    `start` and `end` are microseconds since the Unix epoch.
    """

    write_id: str
    run_id: str | None
    table_uri: str | None
    start: int
    end: int
    versions: tuple[int, ...]
    result: str | None
    is_observed: bool

    def may_have_made(self, commit: Commit) -> bool:
        """Return whether the row may describe a commit with its run and time but another write id.

        A caller may have set its own write id. A commit with an id in deltawitness's form
        belongs to the write with that id only.
        """
        if not self.is_observed or commit.is_named or commit.time is None:
            return False
        if commit.info.run_id != self.run_id:
            return False
        return self.start - CLOCK_SKEW <= commit.time * 1000 <= self.end + CLOCK_SKEW


class InventoryIndex:
    """Rows of a table, and rows of some writes, indexed by write id and by version.

    Args:
        rows: in any order.

    Attributes:
        rows: the rows.
        ids: their write ids.
    """

    def __init__(self, rows: Sequence[IndexedRow]) -> None:
        self.rows = rows
        self.ids: set[str] = {row.write_id for row in rows}
        self._observed: dict[tuple[str | None, int], list[IndexedRow]] = {}
        for row in rows:
            for version in row.versions if row.is_observed else ():
                self._observed.setdefault((row.table_uri, version), []).append(row)

    @property
    def by_id(self) -> Mapping[str, Sequence[IndexedRow]]:
        """The rows of each write id; exactly one in a ledger without errors."""
        found: dict[str, list[IndexedRow]] = {}
        for row in self.rows:
            found.setdefault(row.write_id, []).append(row)
        return found

    def covers(self, uri: str, commit: Commit) -> bool:
        """Return whether a commit has a row.

        Matches by write id. Since a caller may have set its own write id, a row also matches if it
        was observed in the same run and names this version at this time.
        """
        if not self.ids.isdisjoint(commit.ids):
            return True
        rows = self._observed.get((uri, commit.version), ())
        return any(row.may_have_made(commit) for row in rows)


def indexed_ids(inventory: TableParts, uri: str) -> set[str]:
    """Return the write ids in the inventory of a table's writes."""
    if not inventory.exists:
        return set()
    sql = f"SELECT write_id FROM ledger WHERE table_uri = {quote_literal(uri)} AND {_COMMITTING}"
    return set(query(inventory, sql)["write_id"].to_pylist())


def newest_versions(inventory: TableParts) -> dict[str, int]:
    """Return the highest version that the inventory has for each table, by table URI."""
    if not inventory.exists:
        return {}
    sql = (
        f"SELECT table_uri, max(version) AS newest FROM ledger WHERE {_COMMITTING}"
        " AND table_uri IS NOT NULL AND version IS NOT NULL GROUP BY table_uri"
    )
    return {row["table_uri"]: row["newest"] for row in query(inventory, sql).to_pylist()}


def index_inventory(
    inventory: TableParts, uri: str, ids: Iterable[str], *, since: int = 0
) -> InventoryIndex:
    """Index the inventory's rows of a table, and of some writes to any table.

    Args:
        inventory: the inventory.
        uri: of the table.
        ids: of the writes.
        since: of the table's rows, only those with this version or a later one.
    """
    if not inventory.exists:
        return InventoryIndex(())
    of_version = f" AND version >= {since}" if since else ""
    here = query(inventory, f"{_QUERY} AND table_uri = {quote_literal(uri)}{of_version}")
    left = set(ids).difference(here["write_id"].to_pylist())
    return InventoryIndex(_rows(here) + (_rows(_named(inventory, left)) if left else []))


def _named(inventory: TableParts, ids: set[str]) -> pa.Table:
    """Return the rows of some writes."""
    if len(ids) > MAX_NAMED_IDS:
        found = query(inventory, _QUERY)
        return found.filter(
            pc.is_in(found["write_id"], value_set=pa.array(ids, found["write_id"].type))
        )
    names = ", ".join(map(quote_literal, ids))
    return query(inventory, f"{_QUERY} AND write_id IN ({names})")


def _rows(found: pa.Table) -> list[IndexedRow]:
    times = found["event_time"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    columns = [found[name].to_pylist() for name in _COLUMNS if name != "event_time"]
    return [
        IndexedRow(
            write_id=write_id,
            run_id=run_id,
            table_uri=table_uri,
            start=start or 0,
            end=(start or 0) + int((duration or 0) * 1000),
            # A read names the version it was served, which another write committed.
            versions=()
            if operation in UNCOMMITTED_OPERATIONS
            else tuple(versions or (() if version is None else (version,))),
            result=result,
            is_observed=source == Source.OBSERVED,
        )
        for start, (
            write_id,
            run_id,
            table_uri,
            duration,
            version,
            versions,
            result,
            source,
            operation,
        ) in zip(times.to_pylist(), zip(*columns, strict=True), strict=True)
    ]
