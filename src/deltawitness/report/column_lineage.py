"""A graph of columns: as a tree, and as text for Mermaid and Graphviz."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console

from deltawitness.answers.column_graph import ColumnEdge, ColumnLineage, TableColumn
from deltawitness.answers.lineage_graph import LineageDirection
from deltawitness.answers.rows import TableVersion
from deltawitness.plurals import count_of, form_for
from deltawitness.report.lineage import dot_escape, mermaid_escape, one_line, visible
from deltawitness.report.tables import print_line

__all__ = ["column_dot_text", "column_mermaid_text", "print_column_tree"]

ROWS = "(rows)"
"""The label of what decides which rows a version has."""

NOTES_SHOWN = 10
"""Maximum number of notes about columns that are not known."""


def print_column_tree(console: Console, graph: ColumnLineage) -> None:
    """Print a graph as a tree of the requested columns; a column that was printed before has nothing below."""
    for line in _tree_lines(graph):
        print_line(console, line)
    for note in _notes(graph):
        print_line(console, f"note: {note}")


@dataclass(frozen=True)
class _Branch:
    """A line of the tree: what it shows, and the column whose branches follow."""

    text: str
    column: TableColumn | None = None


@dataclass
class _Tree:
    """The branches of a graph, and the names of its tables."""

    graph: ColumnLineage
    names: dict[TableVersion, str] = field(init=False)
    below: dict[TableColumn, list[_Branch]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = _names(self.graph)
        is_up = self.graph.direction is LineageDirection.UP
        for edge in self.graph.edges:
            near, far = (edge.target, edge.source) if is_up else (edge.source, edge.target)
            use = "history" if edge.is_history else edge.use.value
            branch = _Branch(f"{use}: {self.name(far)}", far)
            self.below.setdefault(near, []).append(branch)
        for row in self.graph.rows:
            if not is_up:
                text = f"{row.use.value}: {self.names[row.target]} {ROWS}"
                self.below.setdefault(row.source, []).append(_Branch(text))

    def name(self, column: TableColumn) -> str:
        return f"{self.names[column.table]}.{visible(column.column)}"

    def rows_of(self, table: TableVersion) -> list[_Branch]:
        """Return the branches of the columns that decided about the rows of a version."""
        if self.graph.direction is LineageDirection.DOWN:
            return []
        rows = [row for row in self.graph.rows if row.target == table]
        return [_Branch(f"{row.use.value}: {self.name(row.source)}") for row in rows]


def _tree_lines(graph: ColumnLineage) -> Iterator[str]:
    tree = _Tree(graph)
    first = graph.first
    yield tree.names[first]
    tops = [column for column in graph.columns if column.table == first]
    printed: set[TableColumn] = set(tops)
    for place, column in enumerate(tops):
        rows = tree.rows_of(first)
        is_last = place == len(tops) - 1 and not rows
        yield f"{'└── ' if is_last else '├── '}{visible(column.column)}{_without(tree, column)}"
        yield from _below(tree, tree.below.get(column, []), "    " if is_last else "│   ", printed)
    if rows := tree.rows_of(first):
        yield f"└── {ROWS}"
        yield from _below(tree, rows, "    ", printed)
    is_up = graph.direction is LineageDirection.UP
    others = dict.fromkeys(row.target for row in graph.rows if is_up and row.target != first)
    for table in others:
        yield f"{tree.names[table]} {ROWS}"
        yield from _below(tree, tree.rows_of(table), "", printed)


def _without(tree: _Tree, column: TableColumn) -> str:
    """Return the remark about a column that has no branches."""
    graph = tree.graph
    is_unknown = any(
        each.table == column.table and each.column in {None, column.column}
        for each in graph.unknown
    )
    if column in tree.below or graph.direction is LineageDirection.DOWN:
        return ""
    if column.table in graph.cut:
        return "  ..."
    return "  unknown" if is_unknown else "  from no column"


def _below(
    tree: _Tree, branches: list[_Branch], indent: str, printed: set[TableColumn]
) -> Iterator[str]:
    """Yield the lines below a line. It is a loop, because a history may have many levels."""
    pending = [
        (branch, indent, place == len(branches) - 1) for place, branch in enumerate(branches)
    ]
    pending.reverse()
    while pending:
        branch, before, is_last = pending.pop()
        line = f"{before}{'└── ' if is_last else '├── '}{branch.text}"
        below = [] if branch.column is None else tree.below.get(branch.column, [])
        if branch.column in printed and below:
            yield f"{line}  (see above)"
            continue
        if branch.column is not None:
            printed.add(branch.column)
        is_cut = branch.column is not None and branch.column.table in tree.graph.cut
        yield f"{line}  ..." if is_cut and not below else line
        inner = before + ("    " if is_last else "│   ")
        pending += [(each, inner, place == len(below) - 1) for place, each in enumerate(below)][
            ::-1
        ]


def _names(graph: ColumnLineage) -> dict[TableVersion, str]:
    """Return the name of each version; with its location if another table has this name."""
    tables = dict.fromkeys(
        [
            graph.first,
            *(column.table for column in graph.columns),
            *(edge.source.table for edge in graph.edges),
            *(row.source.table for row in graph.rows),
            *(row.target for row in graph.rows),
            *(each.table for each in graph.unknown),
            *graph.cut,
        ]
    )
    places = {(table.name, table.table_id) for table in tables}
    shared = Counter(name for name, _ in places)
    return {
        table: visible(
            f"{table} ({table.uri or table.table_id})"
            if shared[table.name] > 1 and table.table_id
            else str(table)
        )
        for table in tables
    }


def _notes(graph: ColumnLineage) -> Iterator[str]:
    names = _names(graph)
    if graph.requested.version != graph.first.version:
        yield f"{graph.requested} changed no row: its rows are those of {names[graph.first]}"
    for each in graph.unknown[:NOTES_SHOWN]:
        column = "columns" if each.column is None else f"column {visible(each.column)}"
        yield f"{names[each.table]}: {column} unknown: {each.reason}"
    if len(graph.unknown) > NOTES_SHOWN:
        yield _more_unknown(len(graph.unknown) - NOTES_SHOWN)
    if not graph.has_history and any(map(_is_within_a_table, graph.edges)):
        yield "--history also follows the earlier versions of a table"
    if graph.cut:
        count = len(graph.cut)
        what = f"{count_of(count, 'version')} {form_for(count, 'is', 'are')}"
        yield f"cut at depth {graph.depth} or at its size: {what} not followed"


def _more_unknown(count: int) -> str:
    return f"{count:,} more {form_for(count, 'column or version is', 'columns or versions are')} unknown"


def _is_within_a_table(edge: ColumnEdge) -> bool:
    table = edge.source.table.table_id
    return table is not None and table == edge.target.table.table_id


# --- text for other programs -------------------------------------------------------------------------


def column_mermaid_text(graph: ColumnLineage) -> str:
    """Return a flowchart of Mermaid: a subgraph for each version, an arrow from each column to its reader."""
    drawing = _Drawing(graph)
    lines = ["flowchart LR"]
    for number, (table, members) in enumerate(drawing.members.items()):
        lines.append(f'    subgraph t{number}["{mermaid_escape(drawing.names[table])}"]')
        lines += [f'        {node}["{mermaid_escape(label)}"]' for node, label in members]
        lines.append("    end")
    lines += [
        f"    {source} {'-.->' if is_dashed else '-->'}|{label}| {target}"
        for source, target, label, is_dashed in drawing.arrows
    ]
    return "\n".join([*lines, *(f"    %% {one_line(note)}" for note in _notes(graph)), ""])


def column_dot_text(graph: ColumnLineage) -> str:
    """Return a graph in the language of Graphviz, with a cluster for each version."""
    drawing = _Drawing(graph)
    lines = ["digraph columns {", "    rankdir=LR;", "    node [shape=box];"]
    for number, (table, members) in enumerate(drawing.members.items()):
        label = dot_escape(drawing.names[table])
        lines += [f"    subgraph cluster_{number} {{", f'        label="{label}";']
        lines += [f'        {node} [label="{dot_escape(text)}"];' for node, text in members]
        lines.append("    }")
    lines += [
        f'    {source} -> {target} [label="{label}", style={"dashed" if is_dashed else "solid"}];'
        for source, target, label, is_dashed in drawing.arrows
    ]
    return "\n".join([*lines, *(f"    // {one_line(note)}" for note in _notes(graph)), "}", ""])


class _Drawing:
    """The nodes of a graph by version, and the arrows between them."""

    def __init__(self, graph: ColumnLineage) -> None:
        self.names = _names(graph)
        self.members: dict[TableVersion, list[tuple[str, str]]] = {graph.first: []}
        self._ids: dict[tuple[TableVersion, str | None], str] = {}
        for column in graph.columns:
            self._node(column.table, column.column)
        self.arrows: list[tuple[str, str, str, bool]] = []
        for edge in graph.edges:
            source = self._node(edge.source.table, edge.source.column)
            target = self._node(edge.target.table, edge.target.column)
            label = "history" if edge.is_history else edge.use.value
            self.arrows.append((source, target, label, False))
        for row in graph.rows:
            source = self._node(row.source.table, row.source.column)
            self.arrows.append((source, self._node(row.target, None), row.use.value, True))

    def _node(self, table: TableVersion, column: str | None) -> str:
        node = self._ids.get((table, column))
        if node is None:
            node = self._ids[table, column] = f"c{len(self._ids)}"
            self.members.setdefault(table, []).append((node, visible(column or ROWS)))
        return node
