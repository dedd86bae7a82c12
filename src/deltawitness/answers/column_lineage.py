"""Follow columns along the lineage of versions: by the columns that the plan of each write has read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from deltawitness.answers.column_graph import (
    ColumnEdge,
    ColumnLineage,
    RowsEdge,
    TableColumn,
    UnknownColumns,
)
from deltawitness.answers.committed_writes import (
    CommittedWrites,
    Key,
    inputs_of,
    previous_of,
    restored_of,
)
from deltawitness.answers.lineage import DEPTH, follow_lineage
from deltawitness.answers.lineage_graph import Lineage, LineageDirection
from deltawitness.answers.rows import TableVersion
from deltawitness.column_sources import ColumnSource, ColumnUse, WriteColumns
from deltawitness.exceptions import LedgerLookupError
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.locations import last_segment
from deltawitness.semconv import CacheOperation

__all__ = ["read_column_lineage"]

_MORE = ("plan_hash", "column_lineage")

NO_PLAN = "its rows came from no plan of an observed session"
NOT_RECORDED = "the columns of its plan were not recorded"
NOT_IN_LEDGER = "the write is not in the ledger"
NOT_ASSIGNED = "the write has not assigned it"
EARLIER = "an earlier version has written it: --history follows it"
NOT_SHOWN = "the plan does not show what it is made from"
NO_INPUTS = "the inputs of the write are not in the ledger"
NOTHING_ASSIGNED = (
    "the write has removed rows, and has assigned no column: --history follows earlier versions"
)

_Place = tuple[Key | str, str]
"""A column: the version of its table, or the name of a table that is no Delta table; and its name."""


def read_column_lineage(  # noqa: PLR0913 - keyword-only options
    ledger: LedgerListing,
    name: str,
    *,
    column: str | None = None,
    direction: LineageDirection = LineageDirection.UP,
    depth: int = DEPTH,
    has_history: bool = False,
) -> ColumnLineage:
    """Return the columns that columns of a version were made from, or that were made from them.

    Args:
        ledger: the ledger to query.
        name: the table, optionally with `@VERSION`; by default the last version that changed rows.
        column: name of a column; None for all columns of the version that are known.
        direction: which side to follow.
        depth: maximum number of writes between a requested column and another one.
        has_history: also follow the versions of each table.

    Raises:
        LedgerLookupError: the ledger has no such table, version or column, or several tables.
        OSError: the ledger's storage cannot be read.
    """
    writes = CommittedWrites(ledger, _MORE)
    graph = follow_lineage(writes, name, direction=direction, depth=depth, has_history=has_history)
    walk = _Walk(writes, graph)
    if direction is LineageDirection.UP:
        walk.follow_up(column)
    else:
        walk.follow_down(column)
    return walk.result()


@dataclass
class _Walk:
    """The graph of columns while it is read.

    Attributes:
        writes: the writes of the versions of the graph.
        graph: the graph of the versions.
        columns: the columns that were found; a dictionary as an ordered set.
        edges: the sources of columns: source, target, use, and whether it is of the table's history.
        rows: the columns that decided about rows: source, version and use.
        unknown: the reasons, by version and column.
    """

    writes: CommittedWrites
    graph: Lineage
    columns: dict[_Place, None] = field(default_factory=dict)
    edges: dict[tuple[_Place, _Place, ColumnUse, bool], None] = field(default_factory=dict)
    rows: dict[tuple[_Place, Key, ColumnUse], None] = field(default_factory=dict)
    unknown: dict[tuple[Key, str | None], str] = field(default_factory=dict)
    _parsed: dict[Key, WriteColumns] = field(default_factory=dict)
    _resolved: dict[Key, Key] = field(default_factory=dict)
    _places: dict[str, str] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> dict[Key, TableVersion]:
        """The versions of the graph, in its order."""
        return {_key(node.table): node.table for node in self.graph.nodes}

    @cached_property
    def cut(self) -> set[Key]:
        """The versions whose edges are left out."""
        return {_key(node.table) for node in self.graph.cut}

    # --- what a version was made from ------------------------------------------------------------

    def follow_up(self, column: str | None) -> None:
        """Find the sources of the columns of the first version."""
        start = next(iter(self.nodes))
        self._resolve_inputs(self.nodes)
        pending: list[_Place] = [(start, name) for name in self._first_columns(start, column)]
        self.columns.update(dict.fromkeys(pending))
        while pending:
            key, name = pending.pop()
            if key in self.cut or isinstance(key, str):
                continue
            self._add_rows(key)
            for place in self._sources(key, name):
                if place not in self.columns:
                    self.columns[place] = None
                    if place[0] in self.nodes:
                        pending.append(place)

    def _first_columns(self, start: Key, column: str | None) -> list[str]:
        """Return the columns to follow.

        Raises:
            LedgerLookupError: the first version has no such column.
        """
        known = self._columns_of(start)
        if column is None:
            names = list(known.columns) or self._earlier_columns(start)
            if not known.columns and not self._is_restore(start):
                self.unknown[start, None] = known.reason or NOTHING_ASSIGNED
            elif not names:
                self.unknown[start, None] = NO_PLAN
            return names
        if not self._may_have(start, column):
            listed = ", ".join(known.columns)
            msg = f"{self.nodes[start]}: its plan has written no column {column}, only: {listed}"
            raise LedgerLookupError(msg)
        return [column]

    def _may_have(self, key: Key, column: str) -> bool:
        """Return whether a version may have a column: only a write of all rows shows all columns."""
        known = self._columns_of(key)
        return self._is_partial(key) or known.reason is not None or column in known.columns

    def _is_partial(self, key: Key) -> bool:
        """Return whether a version may have rows of an earlier version."""
        row = self.writes.get(key)
        return row is None or previous_of(row) is not None or restored_of(row) is not None

    def _earlier_columns(self, start: Key) -> list[str]:
        """Return the columns of the newest earlier version of a table whose columns are known."""
        versions = sorted(key for key in self.nodes if key[0] == start[0])
        found = (self._columns_of(key).columns for key in reversed(versions))
        return list(next(filter(None, found), ()))

    def _sources(self, key: Key, column: str) -> Iterator[_Place]:
        """Yield the columns that the values of a column come from, and add the edges."""
        known, target = self._columns_of(key), (key, column)
        reason = known.reason
        previous = self._previous(key, column)
        sources = known.columns.get(column, ())
        if reason is None and sources is None:
            reason = NOT_SHOWN
        elif reason is None and column not in known.columns and previous is None:
            is_cut_off = not self.graph.has_history and self._is_partial(key)
            reason = EARLIER if is_cut_off else NOT_ASSIGNED
        found = [(self._place(key, source), source.use) for source in sources or ()]
        if previous is not None and previous not in {place for place, _ in found}:
            self._add_copy(previous, target)
            yield previous
        for place, use in found:
            if place is None:
                reason = NO_INPUTS
            else:
                self.edges[place, target, use, False] = None
                yield place
        if reason is not None:
            self.unknown[key, column if known.reason is None else None] = reason

    def _add_copy(self, previous: _Place, target: tuple[Key, str]) -> None:
        """Add the edge to a column from the same one of an earlier version, of the history or restored."""
        self.edges[previous, target, ColumnUse.IDENTITY, not self._is_restore(target[0])] = None

    def _is_restore(self, key: Key) -> bool:
        row = self.writes.get(key)
        return row is not None and restored_of(row) is not None

    def _previous(self, key: Key, column: str) -> _Place | None:
        """Return the same column of the restored version; if the history is followed, of the version before."""
        row = self.writes.get(key)
        version = None if row is None else restored_of(row)
        if version is None and row is not None and self.graph.has_history:
            version = previous_of(row)
        if version is None:
            return None
        previous = self.writes.resolve([(key[0], version)])[key[0], version]
        is_there = previous in self.nodes and self._may_have(previous, column)
        return (previous, column) if is_there else None

    # --- what was made from a version ------------------------------------------------------------

    def follow_down(self, column: str | None) -> None:
        """Find what was made from the columns of the first version."""
        start, *targets = self.nodes
        self._resolve_inputs(targets)
        names = self._columns_of(start).columns if column is None else [column]
        self.columns.update(dict.fromkeys((start, name) for name in names))
        ordered = sorted(targets, key=self._time)
        count = -1
        while len(self.columns) > count:  # clocks differ: a write may seem earlier than its input
            count = len(self.columns)
            for target in ordered:
                self._add_dependents(target, start if column is None else None)

    def _time(self, key: Key) -> float:
        row = self.writes.get(key)
        return 0.0 if row is None else row["event_time"].timestamp()

    def _add_dependents(self, target: Key, all_of: Key | None) -> None:
        """Add what a write has made from columns of the graph.

        Args:
            target: the version that was written.
            all_of: a version all of whose columns are followed.
        """
        known = self._columns_of(target)
        if known.reason is not None:
            self.unknown[target, None] = known.reason
        for name, sources in known.columns.items():
            if sources is None:
                self.unknown[target, name] = NOT_SHOWN
            for place, use in self._followed(target, sources or (), all_of):
                self.columns[target, name] = None
                self.edges[place, (target, name), use, False] = None
        for place, use in self._followed(target, known.rows or (), all_of):
            self.rows[place, target, use] = None
        if self.graph.has_history or self._is_restore(target):
            self._add_later(target)

    def _add_later(self, target: Key) -> None:
        """Add the columns of a version that have values of the version before."""
        for name in dict.fromkeys(name for _, name in self.columns):
            previous = self._previous(target, name)
            later = target, name
            if previous is None or previous not in self.columns:
                continue
            self.columns[later] = None
            if not any((previous, later, use, False) in self.edges for use in ColumnUse):
                self._add_copy(previous, later)

    def _followed(
        self, target: Key, sources: Iterable[ColumnSource], all_of: Key | None
    ) -> Iterator[tuple[_Place, ColumnUse]]:
        """Yield the sources that are columns of the graph."""
        for source in sources:
            place = self._place(target, source)
            if place is None:
                continue
            # With the history, the same column of a later version may have values of the first one.
            is_of_table = all_of is not None and place[0][0] == all_of[0]
            if all_of is not None and (
                place[0] == all_of or (is_of_table and self.graph.has_history)
            ):
                self.columns[all_of, place[1]] = None
            if place in self.columns:
                yield place, source.use

    # --- writes ----------------------------------------------------------------------------------

    def _columns_of(self, key: Key) -> WriteColumns:
        """Return the columns of the write of a version; they have a reason if they are not known."""
        if key not in self._parsed:
            self._parsed[key] = self._parse(key)
        return self._parsed[key]

    def _parse(self, key: Key) -> WriteColumns:
        row = self.writes.get(key)
        if row is None:
            return WriteColumns(reason=NOT_IN_LEDGER)
        text = row.get("column_lineage")
        if text is not None:
            return WriteColumns.parse(text)
        if row["cache_operation"] == CacheOperation.DELETE.value:
            return WriteColumns()  # it has removed rows, and has changed no value
        if restored_of(row) is not None:
            return WriteColumns()  # its values are those of the restored version
        return WriteColumns(reason=NO_PLAN if row.get("plan_hash") is None else NOT_RECORDED)

    def _resolve_inputs(self, keys: Iterable[Key]) -> None:
        """Find with one query the versions that made the rows of all inputs."""
        rows = [row for key in keys if (row := self.writes.get(key)) is not None]
        reads = [read for row in rows for read in inputs_of(row)[0]]
        self._places = {read["table_id"]: read["uri"] for read in reads if read.get("uri")}
        wanted = {(read["table_id"], read["version"]) for read in reads}
        if self.graph.direction is LineageDirection.DOWN:
            tables = {table for table, _ in self.nodes}
            wanted = {key for key in wanted if key[0] in tables}
        self._resolved = self.writes.resolve(wanted)

    def _place(self, target: Key, source: ColumnSource) -> _Place | None:
        """Return the column that a write has read; None if the ledger does not have the write's inputs."""
        if isinstance(source.table, str):
            return source.table, source.column
        row = self.writes.get(target)
        inputs = [] if row is None else list(row.get("inputs") or ())
        if source.table >= len(inputs) or inputs[source.table]["version"] is None:
            return None
        read = inputs[source.table]
        key = read["table_id"], read["version"]
        return self._resolved.get(key, key), source.column

    def _add_rows(self, key: Key) -> None:
        """Add the columns that decided which rows a write has written."""
        for source in self._columns_of(key).rows or ():
            place = self._place(key, source)
            if place is not None:
                self.rows[place, key, source.use] = None

    # --- the result ------------------------------------------------------------------------------

    def result(self) -> ColumnLineage:
        """Return the graph as a value."""
        graph = self.graph
        return ColumnLineage(
            requested=graph.requested,
            first=graph.nodes[0].table,
            direction=graph.direction,
            depth=graph.depth,
            has_history=graph.has_history,
            columns=tuple(map(self._column, self.columns)),
            edges=tuple(
                ColumnEdge(self._column(source), self._column(target), use, is_history)
                for source, target, use, is_history in self.edges
            ),
            rows=tuple(
                RowsEdge(self._column(source), self._table(target), use)
                for source, target, use in self.rows
            ),
            unknown=tuple(
                UnknownColumns(self._table(key), column, reason)
                for (key, column), reason in self.unknown.items()
            ),
            cut=tuple(node.table for node in graph.cut),
        )

    def _column(self, place: _Place) -> TableColumn:
        return TableColumn(self._table(place[0]), place[1])

    def _table(self, key: Key | str) -> TableVersion:
        if isinstance(key, str):
            return TableVersion(None, key)
        if key in self.nodes:
            return self.nodes[key]
        row = self.writes.get(key)
        uri = self._places.get(key[0]) if row is None else row["table_uri"]
        name = None if row is None else row["table_name"]
        return TableVersion(key[1], name or (uri and last_segment(uri)), uri, key[0])


def _key(table: TableVersion) -> Key:
    assert table.table_id is not None
    assert table.version is not None
    return table.table_id, table.version
