"""A graph of versions of tables: as a tree, and as text for Mermaid and Graphviz."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console

from deltawitness.answers.lineage_graph import (
    EdgeKind,
    Lineage,
    LineageDirection,
    LineageEdge,
    LineageNode,
)
from deltawitness.answers.rows import TableVersion
from deltawitness.report.format import operation, short_ids, timestamp
from deltawitness.report.tables import print_line

__all__ = [
    "dot_escape",
    "dot_text",
    "mermaid_escape",
    "mermaid_text",
    "one_line",
    "print_lineage_tree",
    "visible",
]

CUT_SHOWN = 5
"""Maximum number of versions that the note about left out edges lists."""


def print_lineage_tree(console: Console, graph: Lineage) -> None:
    """Print a graph as a tree; a version that was printed before is a line without what is below it."""
    for line in _tree_lines(graph):
        print_line(console, line)
    for note in _notes(graph):
        print_line(console, f"note: {note}")


def _tree_lines(graph: Lineage) -> Iterator[str]:
    names = _labels(graph)
    nodes = {node.table: node for node in graph.nodes}
    below: dict[TableVersion, list[LineageEdge]] = {}
    for edge in graph.edges:
        below.setdefault(_near(graph, edge), []).append(edge)
    first = graph.nodes[0].table
    printed = {first}
    yield _node_line(nodes[first], names)
    pending = _branches(below.get(first, ()), "")
    while pending:  # not a recursion, because a history may have many levels
        edge, indent, is_last = pending.pop()
        far = _far(graph, edge)
        branch, more = ("└── ", "    ") if is_last else ("├── ", "│   ")
        start = f"{indent}{branch}{edge.kind.value}: "
        if far in printed:
            yield f"{start}{names[far]}{_read_text(edge)}  (see above)"
            continue
        printed.add(far)
        yield f"{start}{_node_line(nodes[far], names, _read_text(edge))}"
        pending += _branches(below.get(far, ()), indent + more)


def _branches(edges: Iterable[LineageEdge], indent: str) -> list[tuple[LineageEdge, str, bool]]:
    """Return edges for a stack, the first one on top."""
    ordered = list(edges)[::-1]
    return [(edge, indent, position == 0) for position, edge in enumerate(ordered)]


def _near(graph: Lineage, edge: LineageEdge) -> TableVersion:
    return edge.target if graph.direction is LineageDirection.UP else edge.source


def _far(graph: Lineage, edge: LineageEdge) -> TableVersion:
    return edge.source if graph.direction is LineageDirection.UP else edge.target


def _read_text(edge: LineageEdge) -> str:
    is_later = edge.read_version != edge.source.version
    return f" (read at {edge.read_version})" if is_later else ""


def _node_line(node: LineageNode, names: dict[TableVersion, str], read: str = "") -> str:
    parts = [f"{names[node.table]}{read}", *_details(node)]
    if node.is_cut:
        parts.append("...")
    return "  ".join(parts)


def _details(node: LineageNode) -> list[str]:
    if not node.in_ledger:
        return ["not in the ledger"]
    what = operation(node.operation, node.mode) or "unknown operation"
    if node.previous is not None:
        what += f" on {node.previous}"
    failed = "failed after its commit" if node.result == "error" else ""
    run = "" if node.run_id is None else short_ids([node.run_id])[node.run_id]
    several = "one of several writes of this version" if node.has_other_writes else ""
    parts = (what, timestamp(node.time), visible(node.job or ""), visible(run), failed, several)
    return [part for part in parts if part]


def _labels(graph: Lineage) -> dict[TableVersion, str]:
    """Return the name of each version; with its location if another table has this name."""
    tables = {node.table.table_id: node.table for node in graph.nodes}
    shared = Counter(table.name for table in tables.values())
    labels = {}
    for node in graph.nodes:
        label = str(node.table)
        if shared[node.table.name] > 1:
            label += f" ({node.table.uri or node.table.table_id})"
        labels[node.table] = visible(label)
    return labels


def visible(text: str) -> str:
    r"""Return a text with escapes for what a terminal does not print.

    >>> print(visible("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _notes(graph: Lineage) -> Iterator[str]:
    names = _labels(graph)
    first = graph.nodes[0].table
    if graph.requested.version != first.version:
        yield f"{graph.requested} changed no row: its rows are those of {names[first]}"
    if graph.cut:
        shown = ", ".join(names[node.table] for node in graph.cut[:CUT_SHOWN])
        more = "" if len(graph.cut) <= CUT_SHOWN else f", and {len(graph.cut) - CUT_SHOWN} more"
        yield f"cut at depth {graph.depth} or at its size, edges are left out of: {shown}{more}"
    missing = [node for node in graph.nodes if not node.in_ledger]
    if missing:
        yield "run `deltawitness reconcile TABLE` for versions that are not in the ledger"


# --- text for other programs -------------------------------------------------------------------------

_MERMAID_ARROWS = {EdgeKind.EXACT: "-->", EdgeKind.INFERRED: "-.->", EdgeKind.HISTORY: "==>"}

_DOT_STYLES = {EdgeKind.EXACT: "solid", EdgeKind.INFERRED: "dashed", EdgeKind.HISTORY: "bold"}


def mermaid_text(graph: Lineage) -> str:
    """Return a flowchart of Mermaid: a line for each version, an arrow from each input to its reader."""
    ids = _ids(graph)
    lines = ["flowchart LR"]
    for node in graph.nodes:
        label = _label(graph, node, mermaid_escape, "<br/>")
        lines.append(f'    {ids[node.table]}["{label}"]')
    for edge in graph.edges:
        arrow = f"{_MERMAID_ARROWS[edge.kind]}|{edge.kind.value}{_mermaid_read(edge)}|"
        lines.append(f"    {ids[edge.source]} {arrow} {ids[edge.target]}")
    return "\n".join([*lines, *(f"    %% {one_line(note)}" for note in _notes(graph)), ""])


def _mermaid_read(edge: LineageEdge) -> str:
    is_later = edge.read_version != edge.source.version
    return f" read at {edge.read_version}" if is_later else ""


def dot_text(graph: Lineage) -> str:
    """Return a graph in the language of Graphviz, with an edge from each input to its reader."""
    ids = _ids(graph)
    lines = ["digraph lineage {", "    rankdir=LR;", "    node [shape=box];"]
    for node in graph.nodes:
        style = "" if node.in_ledger else ", style=dashed"
        label = _label(graph, node, dot_escape, "\\n")
        lines.append(f'    {ids[node.table]} [label="{label}"{style}];')
    for edge in graph.edges:
        label = f"{edge.kind.value}{_mermaid_read(edge)}"
        style = _DOT_STYLES[edge.kind]
        ends = f"{ids[edge.source]} -> {ids[edge.target]}"
        lines.append(f'    {ends} [label="{label}", style={style}];')
    return "\n".join([*lines, *(f"    // {one_line(note)}" for note in _notes(graph)), "}", ""])


def _ids(graph: Lineage) -> dict[TableVersion, str]:
    return {node.table: f"n{number}" for number, node in enumerate(graph.nodes)}


def _label(graph: Lineage, node: LineageNode, escape: Callable[[str], str], line_break: str) -> str:
    lines = [_labels(graph)[node.table], *_details(node), *(["..."] if node.is_cut else [])]
    return line_break.join(map(escape, lines))


_MERMAID_PLAIN = frozenset(" @.,:-_/+")


def mermaid_escape(text: str) -> str:
    """Return a text for a quoted label of Mermaid: entities for all that its syntax or HTML could use.

    >>> mermaid_escape('a"]<b>')
    'a#34;#93;#60;b#62;'
    """
    return "".join(
        each if each.isalnum() or each in _MERMAID_PLAIN else f"#{ord(each)};" for each in text
    )


def dot_escape(text: str) -> str:
    r"""Return a text for a quoted label of Graphviz.

    >>> print(dot_escape('a"\\N'))
    a\"\\N
    """
    return text.replace("\\", "\\\\").replace('"', '\\"')


def one_line(text: str) -> str:
    """Return a text for a comment of one line."""
    return "".join(each if each.isprintable() else " " for each in text)
