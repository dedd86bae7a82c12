"""Find the tables that depend on a table, and whether they are stale."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from deltawitness.answers.committed_writes import (
    CHANGES_ROWS,
    COMMITTED,
    KEEPS_ROWS,
    WRITES_ROWS,
    CommittedWrites,
    Key,
    inputs_of,
    reads_query,
)
from deltawitness.answers.impact_report import Dependent, DependentInput, Impact
from deltawitness.answers.lineage_graph import EdgeKind
from deltawitness.answers.lineage_start import find_start
from deltawitness.answers.rows import TableVersion
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in, quote_literal
from deltawitness.locations import last_segment

__all__ = ["read_impact"]

_Pair = tuple[str, str]
"""Ids of a dependent and of its input."""

_REPLACES = "mode = 'overwrite' OR cache_operation IN ('create', 'convert')"


def read_impact(ledger: LedgerListing, name: str, *, depth: int | None = None) -> Impact:
    """Return the tables that depend on a table, directly or through others.

    Args:
        ledger: the ledger to query.
        name: the table. With `@VERSION`, only what has read this version or a later one, which may have
            rows of it.
        depth: maximum number of tables between; None for all.

    Raises:
        LedgerLookupError: the ledger has no such table or version, or several tables.
        OSError: the ledger's storage cannot be read.
    """
    writes = CommittedWrites(ledger)
    start = find_start(writes, name, is_read_enough=True)
    first = writes.resolve([start.key])[start.key][1] if start.is_versioned else 0
    spread = _Spread(_Pairs(ledger))
    spread.follow(start.key[0], first, depth)
    dependents = _dependents(writes, spread, start.table)
    return Impact(
        table=start.table,
        from_version=first,
        depth=depth,
        dependents=tuple(sorted(dependents, key=lambda each: (each.distance, str(each.table)))),
        cut=len(spread.cut),
    )


# --- which tables ------------------------------------------------------------------------------------


_IS_OF_ANOTHER = "read_id <> table_id AND version IS NOT NULL AND read_version IS NOT NULL"


@dataclass
class _Pairs:
    """The pairs of tables of which one has read the other.

    Attributes:
        ledger: the ledger to query.
    """

    ledger: LedgerListing

    def of(self, tables: Mapping[str, int]) -> list[Row]:
        """Return the pairs whose inputs are some tables, with the reads from some versions on.

        All pairs are read once. Only if some of the reads of a pair count, a further query finds them.
        """
        found, partly = [], {}
        for table, version in tables.items():
            for row in self._all.get(table, ()):
                if version <= row["first_read"]:
                    found.append(row)
                elif version <= row["last_read"]:
                    partly[table] = version
        reads = [
            f"(read_id = {quote_literal(table)} AND read_version >= {version}"
            f" AND {is_in('table_id', _readers(self._all[table], version))})"
            for table, version in partly.items()
        ]
        return found + (self._read(f"{_IS_OF_ANOTHER} AND ({' OR '.join(reads)})") if reads else [])

    @cached_property
    def _all(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for row in self._read(_IS_OF_ANOTHER):
            found.setdefault(row["read_id"], []).append(row)
        return found

    def _read(self, condition: str) -> list[Row]:
        columns = (
            "table_id, read_id, min(version) AS first_version, max(version) AS read_by,"
            " min(read_version) AS first_read, max(read_version) AS last_read"
        )
        query = reads_query(self.ledger, columns, condition, [WRITES_ROWS])
        return self.ledger.query(f"{query} GROUP BY table_id, read_id ORDER BY table_id, read_id")


def _readers(rows: Iterable[Row], version: int) -> list[str]:
    """Return the tables of pairs of which some reads are before a version, and some are not."""
    return [row["table_id"] for row in rows if row["first_read"] < version <= row["last_read"]]


@dataclass
class _Spread:
    """The tables that depend on a table, while they are found.

    Attributes:
        all_pairs: finds the pairs of a level.
        pairs: the rows, by dependent and input.
        first: the first version of each table that depends on the first table.
        distance: number of tables from the first table.
        cut: the tables that are beyond the depth.
    """

    all_pairs: _Pairs
    pairs: dict[_Pair, Row] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    distance: dict[str, int] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)

    def follow(self, table: str, version: int, depth: int | None) -> None:
        """Find the dependents of a table, from a version on."""
        self.first[table], self.distance[table] = version, 0
        frontier = {table: version}
        while frontier:
            rows = self.all_pairs.of(frontier)
            frontier = {}
            for row in rows:
                found = row["table_id"]
                distance = self.distance[row["read_id"]] + 1
                if depth is not None and distance > depth and found not in self.distance:
                    self.cut.add(found)
                    continue
                self.pairs[found, row["read_id"]] = row
                self.distance.setdefault(found, distance)
                # A later level may find an earlier version, whose readers have to be read again.
                if row["first_version"] < self.first.get(found, row["first_version"] + 1):
                    self.first[found] = frontier[found] = row["first_version"]


# --- their state -------------------------------------------------------------------------------------


def _dependents(writes: CommittedWrites, spread: _Spread, start: TableVersion) -> list[Dependent]:
    ledger = writes.ledger
    tables = list(spread.distance)
    states = {row["table_id"]: row for row in _states(ledger, tables)}
    newest = {table: (table, state["newest"]) for table, state in states.items()}
    readers = [(table, row["read_by"]) for (table, _), row in spread.pairs.items()]
    writes.load([*newest.values(), *readers], before=0)
    names = {table: _named(writes.get(key) or {}, table) for table, key in newest.items()}
    names[tables[0]] = start
    inputs = _inputs(writes, spread, states, names)
    behind = _behind(inputs)
    found = []
    for table, reads in inputs.items():
        row = writes.get(newest[table]) or {}
        named = names[table]
        found.append(
            Dependent(
                table=TableVersion(states[table]["newest"], named.name, named.uri, table),
                distance=spread.distance[table],
                first_version=spread.first[table],
                time=row.get("event_time"),
                run_id=row.get("run_id"),
                job=row.get("job"),
                inputs=tuple(reads),
                has_stale_input=table in behind,
            )
        )
    return found


def _inputs(
    writes: CommittedWrites,
    spread: _Spread,
    states: Mapping[str, Row],
    names: Mapping[str, TableVersion],
) -> dict[str, list[DependentInput]]:
    """Return the inputs of each dependent."""
    reads = {
        (table, read): _last_read(writes, (table, row["read_by"]), read)
        for (table, read), row in spread.pairs.items()
        if spread.distance[table]
    }
    changed = {table: state["changed"] for table, state in states.items()}
    old = {
        (read, version)
        for (_, read), (version, _) in reads.items()
        if (changed.get(read) or 0) > version
    }
    since = _changes(writes.ledger, old)
    found: dict[str, list[DependentInput]] = {}
    for (table, read), (version, kind) in sorted(reads.items()):
        read_by = spread.pairs[table, read]["read_by"]
        replaced = states[table]["replaced"]
        is_replaced = replaced is not None and replaced > read_by
        named = names[read]
        found.setdefault(table, []).append(
            DependentInput(
                table=TableVersion(version, named.name, named.uri, read),
                newest=changed.get(read),
                kind=kind,
                read_by=read_by,
                is_replaced=is_replaced,
                stale_since=None if is_replaced else since.get((read, version)),
            )
        )
    return found


def _last_read(writes: CommittedWrites, reader: Key, read: str) -> tuple[int, EdgeKind]:
    """Return the version of an input that a write has read, and how that is known."""
    reads, kind = inputs_of(writes.get(reader) or {})
    return max((each["version"] for each in reads if each["table_id"] == read), default=0), kind


def _states(ledger: LedgerListing, tables: Iterable[str]) -> list[Row]:
    """Return for each table the newest version that keeps no rows, that changed rows, that replaced all."""
    return ledger.query(
        "SELECT table_id, coalesce(max(version) FILTER (WHERE NOT "  # noqa: S608 - quoted
        f"{KEEPS_ROWS}), max(version)) AS newest,"
        f" max(version) FILTER (WHERE {CHANGES_ROWS}) AS changed,"
        f" max(version) FILTER (WHERE {_REPLACES}) AS replaced"
        f" FROM inventory WHERE {COMMITTED} AND {is_in('table_id', tables)} GROUP BY table_id"
    )


def _changes(ledger: LedgerListing, reads: Collection[Key]) -> dict[Key, datetime]:
    """Return when rows of tables changed first after versions; no value where they have not changed."""
    if not reads:
        return {}
    oldest: dict[str, int] = {}
    for table, version in reads:
        oldest[table] = min(version, oldest.get(table, version))
    later = " OR ".join(
        f"(table_id = {quote_literal(table)} AND version > {version})"
        for table, version in oldest.items()
    )
    values = ", ".join(f"({quote_literal(table)}, {version})" for table, version in sorted(reads))
    rows = ledger.query(
        "SELECT read_id, read_version, min(event_time) AS since"  # noqa: S608 - quoted
        " FROM (SELECT table_id, version, event_time FROM inventory"
        f" WHERE ({later}) AND {COMMITTED} AND {CHANGES_ROWS}) AS changes"
        f" JOIN (VALUES {values}) AS reads(read_id, read_version)"
        " ON table_id = read_id AND version > read_version GROUP BY read_id, read_version"
    )
    return {(row["read_id"], row["read_version"]): row["since"] for row in rows}


def _named(row: Row, table: str) -> TableVersion:
    """Return the name and the location of a table from the row of a write."""
    uri = row.get("table_uri")
    return TableVersion(None, row.get("table_name") or (uri and last_segment(uri)), uri, table)


def _behind(inputs: Mapping[str, Iterable[DependentInput]]) -> set[str]:
    """Return the tables with an input that is stale, directly or through others."""
    readers: dict[str, set[str]] = {}
    for table, reads in inputs.items():
        for each in reads:
            if not each.is_replaced:
                readers.setdefault(each.table.table_id or "", set()).add(table)
    found: set[str] = set()
    pending = [table for table, reads in inputs.items() if any(each.is_stale for each in reads)]
    while pending:
        for reader in readers.get(pending.pop(), ()):
            if reader not in found:
                found.add(reader)
                pending.append(reader)
    return found
