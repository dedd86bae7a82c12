"""Find the tables that depend on a table, and whether they are stale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deltawitness.answers.committed_writes import (
    CommittedWrites,
    Key,
    inputs_of,
)
from deltawitness.answers.impact_report import Dependent, DependentInput, Impact
from deltawitness.answers.lineage_graph import EdgeKind
from deltawitness.answers.lineage_start import find_start
from deltawitness.answers.operations_index import Changes, OperationsIndex, Pair
from deltawitness.answers.operations_scan import read_changes
from deltawitness.answers.rows import TableVersion
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.locations import last_segment

__all__ = ["read_impact"]


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
    index = read_changes(ledger)
    spread = _Spread(index)
    spread.follow(start.key[0], first, depth)
    dependents = _dependents(writes, index, spread, start.table)
    return Impact(
        table=start.table,
        from_version=first,
        depth=depth,
        dependents=tuple(sorted(dependents, key=lambda each: (each.distance, str(each.table)))),
        cut=len(spread.cut),
    )


# --- which tables ------------------------------------------------------------------------------------


@dataclass
class _Spread:
    """The tables that depend on a table, while they are found.

    Attributes:
        index: the inputs of operations.
        pairs: the reads, by dependent and input.
        first: the first version of each table that depends on the first table.
        distance: number of tables from the first table.
        cut: the tables that are beyond the depth.
    """

    index: OperationsIndex
    pairs: dict[tuple[str, str], Pair] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    distance: dict[str, int] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)

    def follow(self, table: str, version: int, depth: int | None) -> None:
        """Find the dependents of a table, from a version on."""
        self.first[table], self.distance[table] = version, 0
        frontier = {table: version}
        while frontier:
            found = self.index.pairs(frontier)
            frontier = {}
            for pair in found:
                distance = self.distance[pair.read] + 1
                if depth is not None and distance > depth and pair.table not in self.distance:
                    self.cut.add(pair.table)
                    continue
                self.pairs[pair.table, pair.read] = pair
                self.distance.setdefault(pair.table, distance)
                # A later level may find an earlier version, whose readers have to be read again.
                first = self.first.get(pair.table)
                if first is None or pair.first_version < first:
                    self.first[pair.table] = frontier[pair.table] = pair.first_version


# --- their state -------------------------------------------------------------------------------------


def _dependents(
    writes: CommittedWrites, index: OperationsIndex, spread: _Spread, start: TableVersion
) -> list[Dependent]:
    tables = list(spread.distance)
    states = index.changes(tables)
    newest = {table: (table, state.newest) for table, state in states.items()}
    readers = [(table, pair.read_by) for (table, _), pair in spread.pairs.items()]
    writes.load([*newest.values(), *readers], before=0)
    names = {table: _named(writes.get(key) or {}, table) for table, key in newest.items()}
    names[tables[0]] = start
    inputs = _inputs(writes, index, spread, states, names)
    behind = _behind(inputs)
    found = []
    for table, reads in inputs.items():
        row = writes.get(newest[table]) or {}
        named = names[table]
        found.append(
            Dependent(
                table=TableVersion(states[table].newest, named.name, named.uri, table),
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
    index: OperationsIndex,
    spread: _Spread,
    states: Mapping[str, Changes],
    names: Mapping[str, TableVersion],
) -> dict[str, list[DependentInput]]:
    """Return the inputs of each dependent."""
    reads = {
        (table, read): _last_read(writes, (table, pair.read_by), read)
        for (table, read), pair in spread.pairs.items()
        if spread.distance[table]
    }
    changed = {table: state.changed for table, state in states.items()}
    old = {
        (read, version)
        for (_, read), (version, _) in reads.items()
        if (changed.get(read) or 0) > version
    }
    since = index.changed_since(old)
    found: dict[str, list[DependentInput]] = {}
    for (table, read), (version, kind) in sorted(reads.items()):
        pair = spread.pairs[table, read]
        replaced = states[table].replaced
        is_replaced = pair.is_undone or (replaced is not None and replaced > pair.read_by)
        named = names[read]
        found.setdefault(table, []).append(
            DependentInput(
                table=TableVersion(version, named.name, named.uri, read),
                newest=changed.get(read),
                kind=kind,
                read_by=pair.read_by,
                is_replaced=is_replaced,
                stale_since=None if is_replaced else since.get((read, version)),
            )
        )
    return found


def _last_read(writes: CommittedWrites, reader: Key, read: str) -> tuple[int, EdgeKind]:
    """Return the version of an input that a write has read, and how that is known."""
    reads, kind = inputs_of(writes.get(reader) or {})
    return max((each["version"] for each in reads if each["table_id"] == read), default=0), kind


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
