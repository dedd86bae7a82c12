"""The graph of the tables that were made from others, as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from deltawitness.html_report.content import InputEdge, ReportContent
from deltawitness.html_report.markup import Markup, element, join, visible
from deltawitness.locations import last_segment
from deltawitness.report.format import count_of

__all__ = ["dependents", "draw_graph", "drawn_edges", "levels", "lineage_graph"]

MAX_NODES = 60
"""Maximum number of tables in the drawing; the list below it has all edges."""

_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 170, 34, 70, 14, 10
_LABEL_CHARACTERS = 22


def lineage_graph(content: ReportContent) -> Markup:
    """Return the drawing, and a list of the edges with the versions that were read and written."""
    if not content.edges:
        return element("p", "No operation in this time is known to have read another table.")
    names = content.names
    # Of a table that was only read, the version that was read.
    versions: dict[str, int | None] = {edge.source: edge.source_version for edge in content.edges}
    versions |= {
        table.place: table.last_version
        for table in content.tables
        if table.last_version is not None
    }
    edges = drawn_edges(content.edges)
    label = f"Lineage graph of {count_of(len(_nodes(edges)), 'table')}; the list below has the versions."
    drawing = draw_graph(edges, names, versions, label)
    scrolled = element(
        "div", drawing, class_="scroll", tabindex="0", role="region", aria_label="Lineage graph"
    )
    hidden = len(_nodes(content.edges)) - len(_nodes(edges))
    note = element("p", f"{count_of(hidden, 'more table')} not drawn.", class_="note")
    rows = [_row(edge, names) for edge in content.edges]
    head = element("tr", *(element("th", text, scope="col") for text in _HEAD))
    listed = element(
        "details",
        element("summary", f"{count_of(len(rows), 'edge')} with versions"),
        element(
            "div",
            element("table", element("thead", head), element("tbody", *rows)),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label="Edges of the lineage graph",
        ),
    )
    return join(scrolled, *([note] if hidden else []), listed)


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


_HEAD = ("made from", "table", "writes", "known by")


def _row(edge: InputEdge, names: Mapping[str, str]) -> Markup:
    source = _versioned(edge.source, edge.source_version, names)
    target = _versioned(edge.target, edge.target_version, names)
    kind = "reads of the run before" if edge.is_inferred else "query plan"
    return element(
        "tr",
        element("td", element("bdi", visible(source)), title=visible(edge.source)),
        element("td", element("bdi", visible(target)), title=visible(edge.target)),
        element("td", f"{edge.count:,}", class_="n"),
        element("td", kind),
    )


def _name(place: str, names: Mapping[str, str]) -> str:
    return names.get(place) or last_segment(place) or place


def _versioned(place: str, version: int | None, names: Mapping[str, str]) -> str:
    name = _name(place, names)
    return name if version is None else f"{name}@{version}"


def _nodes(edges: Iterable[InputEdge]) -> list[str]:
    return list(dict.fromkeys(place for edge in edges for place in (edge.source, edge.target)))


def drawn_edges(edges: Sequence[InputEdge]) -> list[InputEdge]:
    """Return the edges of the first tables, at most `MAX_NODES` of which fit into the drawing."""
    chosen: dict[str, None] = {}
    for edge in edges:
        wanted = {edge.source, edge.target} - chosen.keys()
        if len(chosen) + len(wanted) <= MAX_NODES:
            chosen |= dict.fromkeys(sorted(wanted))
    return [edge for edge in edges if edge.source in chosen and edge.target in chosen]


def levels(edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return the column of each table: to the right of all that it was made from.

    Tables that were made from each other have the columns in which the search met them.

    Args:
        edges: pairs of a table and one that was made from it.

    >>> levels([("a", "b"), ("b", "c"), ("a", "c")])
    {'a': 0, 'b': 1, 'c': 2}
    """
    sources: dict[str, list[str]] = {}
    for source, target in edges:
        sources.setdefault(source, [])
        sources.setdefault(target, []).append(source)
    found: dict[str, int] = {}
    for start in sources:
        open_nodes: set[str] = set()
        stack = [start]
        while stack:
            node = stack[-1]
            if node in found:
                stack.pop()
                continue
            open_nodes.add(node)
            missing = [
                each for each in sources[node] if each not in found and each not in open_nodes
            ]
            if missing:
                stack.append(missing[0])
                continue
            known = [found[each] for each in sources[node] if each in found]
            found[node] = max(known, default=-1) + 1
            stack.pop()
    return {node: found[node] for node in sources}


def draw_graph(
    edges: Sequence[InputEdge],
    names: Mapping[str, str],
    versions: Mapping[str, int | None],
    label: str,
) -> Markup:
    """Return a drawing of a graph, from left to right.

    Args:
        edges: which table was made from which; at least one.
        names: the names of tables by their places.
        versions: the versions of tables by their places; None for one that is not known.
        label: what the drawing shows, for screen readers.
    """
    columns = levels([(edge.source, edge.target) for edge in edges])
    rows: dict[int, int] = {}
    places: dict[str, tuple[float, float]] = {}
    for node, column in columns.items():
        row = rows.get(column, 0)
        rows[column] = row + 1
        x = _MARGIN + column * (_BOX_WIDTH + _GAP_X)
        places[node] = x, _MARGIN + row * (_BOX_HEIGHT + _GAP_Y)
    width = _MARGIN * 2 + (max(columns.values()) + 1) * (_BOX_WIDTH + _GAP_X) - _GAP_X
    height = _MARGIN * 2 + max(rows.values()) * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y
    return element(
        "svg",
        *(_edge(edge, places, names) for edge in edges),
        *(_node(node, places[node], names, versions) for node in columns),
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
        class_="lineage",
    )


def _edge(
    edge: InputEdge, places: Mapping[str, tuple[float, float]], names: Mapping[str, str]
) -> Markup:
    (x1, y1), (x2, y2) = places[edge.source], places[edge.target]
    x1, y1, y2 = x1 + _BOX_WIDTH, y1 + _BOX_HEIGHT / 2, y2 + _BOX_HEIGHT / 2
    middle = (x1 + x2) / 2
    source = visible(_versioned(edge.source, edge.source_version, names), 80)
    target = visible(_versioned(edge.target, edge.target_version, names), 80)
    return element(
        "path",
        element("title", f"{target} was made from {source}"),
        d=f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}",
        class_="edge inferred" if edge.is_inferred else "edge",
    )


def _node(
    place: str,
    at: tuple[float, float],
    names: Mapping[str, str],
    versions: Mapping[str, int | None],
) -> Markup:
    text = visible(_versioned(place, versions.get(place), names), None)
    shown = text if len(text) <= _LABEL_CHARACTERS else f"{text[: _LABEL_CHARACTERS - 1]}…"
    return element(
        "g",
        element("title", visible(place)),
        element("rect", x=at[0], y=at[1], width=_BOX_WIDTH, height=_BOX_HEIGHT, rx=5),
        element("text", shown, x=at[0] + 8, y=at[1] + 21, unicode_bidi="isolate"),
        class_="node",
    )
