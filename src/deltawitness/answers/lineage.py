"""Follow the inputs of writes from one version of a table to others, with few queries per level."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from deltawitness.answers.commits import with_names
from deltawitness.answers.committed_writes import (
    CLOCK_SKEW,
    WINDOW,
    CommittedWrites,
    Key,
    inputs_of,
    keeps_rows,
    previous_of,
    restored_of,
)
from deltawitness.answers.lineage_graph import (
    EdgeKind,
    Lineage,
    LineageDirection,
    LineageEdge,
    LineageNode,
)
from deltawitness.answers.lineage_start import find_start
from deltawitness.answers.operations_index import OperationsIndex
from deltawitness.answers.operations_scan import read_operations
from deltawitness.answers.rows import TableVersion
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.locations import last_segment

__all__ = ["DEPTH", "MAX_NODES", "follow_lineage", "read_lineage"]

DEPTH = 10
"""Levels that are followed unless the caller says otherwise."""

MAX_NODES = 2_000
"""Number of nodes from which on no further level is read."""


def read_lineage(
    ledger: LedgerListing,
    name: str,
    *,
    direction: LineageDirection = LineageDirection.UP,
    depth: int = DEPTH,
    has_history: bool = False,
) -> Lineage:
    """Return the graph of the versions that a version was made from, or that were made from it.

    Args:
        ledger: the ledger to query.
        name: the table, optionally with `@VERSION`; by default the last version that changed rows.
        direction: which side to follow.
        depth: maximum number of edges between the requested version and another one.
        has_history: also follow the versions of each table.

    Raises:
        LedgerLookupError: the ledger has no such table or version, or several tables.
        OSError: the ledger's storage cannot be read.
    """
    writes = CommittedWrites(ledger)
    return follow_lineage(writes, name, direction=direction, depth=depth, has_history=has_history)


def follow_lineage(
    writes: CommittedWrites,
    name: str,
    *,
    direction: LineageDirection,
    depth: int,
    has_history: bool,
) -> Lineage:
    """Return the same as `read_lineage`, and leave the rows of the nodes in `writes`."""
    start = find_start(writes, name, is_read_enough=direction is LineageDirection.DOWN)
    walk = _Walk(writes, direction, has_history)
    walk.follow(start.key, depth)
    writes.find_others(walk.nodes)
    tables = walk.tables(start.table)
    return Lineage(
        requested=start.table,
        direction=direction,
        depth=depth,
        has_history=has_history,
        nodes=tuple(_node(writes, key, tables[key], is_cut=key in walk.cut) for key in walk.nodes),
        edges=tuple(
            LineageEdge(tables[source], tables[target], kind, version)
            for (source, target, kind), version in walk.edges.items()
        ),
    )


_Link = tuple[Key, Key, EdgeKind, int]
"""An edge: source, target, kind, and the version that was read."""


@dataclass
class _Walk:
    """The graph while it is read.

    Attributes:
        writes: the writes of versions.
        direction: which side is followed.
        has_history: whether the versions of each table are followed.
        nodes: the versions by their distance; a dictionary as an ordered set.
        edges: the version that was read, by source, target and kind.
        cut: versions with edges that are left out.
        places: locations of tables that were read, by their ids.
        index: the inputs of operations; None until it is needed.
        since: the time from which on the index was read; None for all operations.
    """

    writes: CommittedWrites
    direction: LineageDirection
    has_history: bool
    nodes: dict[Key, None] = field(default_factory=dict)
    edges: dict[tuple[Key, Key, EdgeKind], int] = field(default_factory=dict)
    cut: set[Key] = field(default_factory=set)
    places: dict[str, str] = field(default_factory=dict)
    index: OperationsIndex | None = None
    since: datetime | None = None

    def follow(self, start: Key, depth: int) -> None:
        """Read the graph from a version on."""
        self.writes.load([start])
        start = self.writes.resolve([start])[start]
        self.nodes[start] = None
        frontier = [start]
        level = 0
        is_up = self.direction is LineageDirection.UP
        while frontier:
            links = self._inputs(frontier) if is_up else self._dependents(frontier)
            if level == depth or len(self.nodes) >= MAX_NODES:
                self.cut = {target if is_up else source for source, target, *_ in links}
                return
            frontier = [each for each in self._add(links) if each not in self.nodes]
            self.nodes.update(dict.fromkeys(frontier))
            level += 1

    def _add(self, links: Iterable[_Link]) -> dict[Key, None]:
        """Add edges, and return the versions at their far ends, each once, in order."""
        found: dict[Key, None] = {}
        for source, target, kind, version in links:
            edge = source, target, kind
            self.edges[edge] = max(version, self.edges.get(edge, version))
            found[source if self.direction is LineageDirection.UP else target] = None
        return found

    def _inputs(self, frontier: Iterable[Key]) -> list[_Link]:
        """Return the edges to what versions were made from."""
        reads: list[tuple[Key, Key, EdgeKind]] = []
        for target in frontier:
            row = self.writes.get(target)
            if row is None:
                continue
            inputs, kind = inputs_of(row)
            restored = restored_of(row)
            for read in inputs:
                if read["table_id"] != target[0] or read["version"] == restored:
                    reads.append((target, (read["table_id"], read["version"]), kind))
                    self._remember_place(read["table_id"], read.get("uri"))
            previous = previous_of(row) if self.has_history else None
            if previous is not None:
                reads.append((target, (target[0], previous), EdgeKind.HISTORY))
        sources = self.writes.resolve((read for _, read, _ in reads), self._times(frontier, max))
        return [(sources[read], target, kind, read[1]) for target, read, kind in reads]

    def _dependents(self, frontier: list[Key]) -> list[_Link]:
        """Return the edges to what was made from versions."""
        since = self._times(frontier, min)
        following = self.writes.following(frontier, since)
        sources = {
            read: key for key, after in following.items() for read in (key, *after[:-1])
        }  # versions after one, without the last, have the same rows
        found = self._index(since).readers(sources)
        self.writes.load((target for target, _, _ in found), before=0, after=WINDOW, since=since)
        links = [
            (sources[read], target, kind, read[1])
            for target, read, kind in found
            if self._has_read(target, read)
        ]
        if not self.has_history:
            return links
        candidates = [(after[-1], key) for key, after in following.items()]
        candidates += [(target, sources[read]) for target, read, _ in found if target[0] == read[0]]
        for target, key in dict.fromkeys(candidates):
            row = self.writes.get(target)
            # An operation that keeps the rows, such as OPTIMIZE, may have its own table as an inferred input.
            previous = None if row is None or keeps_rows(row) else previous_of(row)
            if previous is not None and sources.get((key[0], previous)) == key:
                links.append((key, target, EdgeKind.HISTORY, previous))
        return links

    def _index(self, since: datetime | None) -> OperationsIndex:
        """Return the index of the reads since a time; it is read again only for an earlier time."""
        start = None if since is None else since - CLOCK_SKEW
        is_too_late = self.since is not None and (start is None or start < self.since)
        if self.index is None or is_too_late:
            self.since = start
            self.index = read_operations(self.writes.ledger, start)
        return self.index

    def _times(
        self, keys: Iterable[Key], choose: Callable[[list[datetime]], datetime]
    ) -> datetime | None:
        """Return the first or last time of writes; None if one is not known."""
        rows = [self.writes.get(key) for key in keys]
        times = [None if row is None else row["event_time"] for row in rows]
        known = [time for time in times if time is not None]
        return choose(known) if known and len(known) == len(times) else None

    def _has_read(self, target: Key, read: Key) -> bool:
        """Return whether the newest write of a version has an edge from another version, as an input."""
        row = self.writes.get(target)
        if row is None or keeps_rows(row):
            return False
        if target[0] == read[0]:
            return restored_of(row) == read[1]
        return any((each["table_id"], each["version"]) == read for each in inputs_of(row)[0])

    def _remember_place(self, table: str, uri: str | None) -> None:
        if uri is not None:
            self.places[table] = uri

    def tables(self, requested: TableVersion) -> dict[Key, TableVersion]:
        """Return names and locations of the nodes."""
        found: dict[Key, TableVersion] = {}
        for key in self.nodes:
            row = self.writes.get(key)
            uri = self.places.get(key[0]) if row is None else row["table_uri"]
            name = None if row is None else row["table_name"]
            if row is None and key[0] == requested.table_id:
                uri, name = requested.uri, requested.name
            found[key] = TableVersion(key[1], name, uri, key[0])
        unnamed = [key for key, table in found.items() if table.name is None]
        named = with_names(
            self.writes.ledger, tuple(replace(found[key], uri=None) for key in unnamed)
        )
        for key, table in zip(unnamed, named, strict=True):
            uri = table.uri or found[key].uri
            found[key] = replace(table, uri=uri, name=table.name or (uri and last_segment(uri)))
        return found


def _node(writes: CommittedWrites, key: Key, table: TableVersion, *, is_cut: bool) -> LineageNode:
    row = writes.get(key)
    if row is None or keeps_rows(row):
        return LineageNode(table=table, in_ledger=row is not None, is_cut=is_cut)
    return LineageNode(
        table=table,
        in_ledger=True,
        time=row["event_time"],
        run_id=row["run_id"],
        job=row["job"],
        operation=row["operation"],
        mode=row["mode"],
        write_id=row["write_id"],
        result=row["result"],
        previous=previous_of(row),
        has_other_writes=writes.has_others(key),
        is_cut=is_cut,
    )
