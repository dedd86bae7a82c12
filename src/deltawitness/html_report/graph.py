"""The section of the tables that were made from others: the drawing, the columns, and a list of the edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from deltawitness.html_report.content import EdgeColumns, GraphEdge, InputEdge, ReportContent
from deltawitness.html_report.graph_drawing import draw_graph, versioned_name
from deltawitness.html_report.markup import Markup, element, isolated, join, visible
from deltawitness.html_report.tables import scrolled
from deltawitness.plurals import count_of

__all__ = ["dependents", "drawn_edges", "lineage_graph"]

_Edge = TypeVar("_Edge", bound=GraphEdge)

MAX_NODES = 60
"""Maximum number of tables in the drawing; the list below it has all edges."""

_LISTED_PAIRS = 10
"""Maximum number of pairs of columns of an edge in the list."""

_HELP = (
    "Choose a table or an edge to see its columns: with a click, or with the arrow keys and Enter."
    " A dashed edge has no query plan: the run had read the table before."
)


def lineage_graph(content: ReportContent) -> Markup:
    """Return the drawing, and a list of the edges with versions and columns."""
    if not content.edges:
        return element("p", "No operation in this time is known to have read another table.")
    names, nodes = content.names, _nodes(content.edges)
    # Of a table that was only read, the version that was read.
    versions: dict[str, int | None] = {edge.source: edge.source_version for edge in content.edges}
    versions |= {
        table.place: table.last_version
        for table in content.tables
        if table.last_version is not None
    }
    edges = drawn_edges(content.edges)
    drawn = len(_nodes(edges.values()))
    label = f"Graph of {count_of(drawn, 'table')}; the list below has the same edges."
    hidden = len(nodes) - drawn
    note = element("p", f"{count_of(hidden, 'more table')} not drawn.", class_="note")
    columns = element(
        "div", id="columns", tabindex="-1", role="region", aria_label="Columns", hidden=True
    )
    return join(
        element("p", _HELP, class_="note"),
        scrolled("Lineage graph", draw_graph(edges, names, versions, label, buttons=nodes)),
        *([note] if hidden else []),
        columns,
        _list(content.edges, names),
    )


def dependents(edges: Iterable[InputEdge], places: Iterable[str]) -> list[str]:
    """Return the tables that were made from some tables, directly or through others, the nearest first.

    Args:
        edges: which table was made from which.
        places: the locations of the tables, which are not in the result.
    """
    targets: dict[str, list[str]] = {}
    for edge in edges:
        targets.setdefault(edge.source, []).append(edge.target)
    first = list(dict.fromkeys(places))
    found = dict.fromkeys(first)
    waiting = first
    while waiting:
        reached = dict.fromkeys(each for place in waiting for each in targets.get(place, ()))
        waiting = [each for each in reached if each not in found]
        found |= dict.fromkeys(waiting)
    return list(found)[len(first) :]


def _nodes(edges: Iterable[GraphEdge]) -> list[str]:
    """Return the tables in the order in which the script of the page finds them."""
    return list(dict.fromkeys(place for edge in edges for place in (edge.source, edge.target)))


def drawn_edges(edges: Sequence[_Edge]) -> dict[int, _Edge]:
    """Return the edges of the first tables, as many as fit, by their positions."""
    chosen: dict[str, None] = {}
    for edge in edges:
        wanted = {edge.source, edge.target} - chosen.keys()
        if len(chosen) + len(wanted) <= MAX_NODES:
            chosen |= dict.fromkeys(sorted(wanted))
    return {
        number: edge
        for number, edge in enumerate(edges)
        if edge.source in chosen and edge.target in chosen
    }


# --- the list ----------------------------------------------------------------------------------------

_HEAD = ("made from", "table", "writes", "known by", "columns")


def _list(edges: Sequence[InputEdge], names: Mapping[str, str]) -> Markup:
    head = element("tr", *(element("th", text, scope="col") for text in _HEAD))
    rows = [_row(edge, names) for edge in edges]
    table = element("table", element("thead", head), element("tbody", *rows))
    return element(
        "details",
        element("summary", f"{count_of(len(rows), 'edge')} with versions and columns"),
        scrolled("Edges of the lineage graph", table),
    )


def _row(edge: InputEdge, names: Mapping[str, str]) -> Markup:
    source = versioned_name(edge.source, edge.source_version, names)
    target = versioned_name(edge.target, edge.target_version, names)
    kind = "reads of the run before" if edge.is_inferred else "query plan"
    return element(
        "tr",
        element("td", element("bdi", visible(source)), title=visible(edge.source)),
        element("td", element("bdi", visible(target)), title=visible(edge.target)),
        element("td", f"{edge.count:,}", class_="n"),
        element("td", kind),
        element("td", *_columns(edge.columns)),
    )


def _columns(columns: EdgeColumns) -> list[str]:
    """Return the first columns of an edge, or why they are not known."""
    if columns.reason is not None:
        return [f"not known: {columns.reason}"]
    parts: list[str] = []
    for pair in columns.pairs[:_LISTED_PAIRS]:
        parts += [", "] if parts else []
        target = "rows" if pair.target is None else pair.target
        parts.append(isolated(f"{target}: {pair.use} of {pair.source}"))
    more = len(columns.pairs) + columns.left_out - _LISTED_PAIRS
    return [*parts, f", {more:,} more"] if more > 0 else parts or ["none"]
