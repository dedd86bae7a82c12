"""The drawing of the graph of tables as SVG: boxes in columns, and curves between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deltawitness.html_report.content import GraphEdge
from deltawitness.html_report.markup import Markup, element, visible
from deltawitness.locations import last_segment

__all__ = ["draw_graph", "levels", "name_of", "versioned_name"]

_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 170, 34, 70, 14, 10
_LABEL_CHARACTERS = 22
_TITLE_CHARACTERS = 80


def name_of(place: str, names: Mapping[str, str]) -> str:
    """Return the name of a table, else the end of its location."""
    return names.get(place) or last_segment(place) or place


def versioned_name(place: str, version: int | None, names: Mapping[str, str]) -> str:
    """Return the name of a table with a version, such as `orders@3`."""
    name = name_of(place, names)
    return name if version is None else f"{name}@{version}"


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
    edges: Mapping[int, GraphEdge],
    names: Mapping[str, str],
    versions: Mapping[str, int | None],
    label: str,
    *,
    buttons: Sequence[str] = (),
) -> Markup:
    """Return a drawing of a graph, from left to right.

    Args:
        edges: the edges to draw, at least one, by their positions in the data of the page.
        names: names of the tables by location.
        versions: the versions that the tables are shown with.
        label: what the drawing shows, for screen readers.
        buttons: the locations of all tables of the graph, by their positions in the data of the page.
            With them, tables and edges are buttons: the script of the page shows their columns.
    """
    columns = levels([(edge.source, edge.target) for edge in edges.values()])
    rows: dict[int, int] = {}
    places: dict[str, tuple[float, float]] = {}
    for node, column in columns.items():
        row = rows.get(column, 0)
        rows[column] = row + 1
        x = _MARGIN + column * (_BOX_WIDTH + _GAP_X)
        places[node] = x, _MARGIN + row * (_BOX_HEIGHT + _GAP_Y)
    width = _MARGIN * 2 + (max(columns.values()) + 1) * (_BOX_WIDTH + _GAP_X) - _GAP_X
    height = _MARGIN * 2 + max(rows.values()) * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y
    numbers = {place: number for number, place in enumerate(buttons)}
    curves = (
        _edge(edge, places, names, number if buttons else None) for number, edge in edges.items()
    )
    boxes = (
        _node(
            node, places[node], versioned_name(node, versions.get(node), names), numbers.get(node)
        )
        for node in columns
    )
    return element(
        "svg",
        *curves,
        *boxes,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="group" if buttons else "img",
        aria_label=label,
        class_="lineage",
    )


def _edge(
    edge: GraphEdge,
    places: Mapping[str, tuple[float, float]],
    names: Mapping[str, str],
    number: int | None,
) -> Markup:
    """Return a curve; for a button with a wider one that is not seen and takes the clicks."""
    (x1, y1), (x2, y2) = places[edge.source], places[edge.target]
    x1, y1, y2 = x1 + _BOX_WIDTH, y1 + _BOX_HEIGHT / 2, y2 + _BOX_HEIGHT / 2
    middle = (x1 + x2) / 2
    curve = f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    source = visible(versioned_name(edge.source, edge.source_version, names), _TITLE_CHARACTERS)
    target = visible(versioned_name(edge.target, edge.target_version, names), _TITLE_CHARACTERS)
    text = f"{target} was made from {source}"
    title = element("title", text)
    line = element("path", d=curve, class_="edge inferred" if edge.is_inferred else "edge")
    if number is None:
        return element("g", title, line)
    return element(
        "g",
        title,
        line,
        element("path", d=curve, class_="hit"),
        class_="made",
        role="button",
        tabindex="-1",
        aria_label=text,
        data_edge=number,
    )


def _node(place: str, at: tuple[float, float], name: str, number: int | None) -> Markup:
    text = visible(name, None)
    shown = text if len(text) <= _LABEL_CHARACTERS else f"{text[: _LABEL_CHARACTERS - 1]}…"
    parts = (
        element("title", visible(place)),
        element("rect", x=at[0], y=at[1], width=_BOX_WIDTH, height=_BOX_HEIGHT, rx=5),
        element("text", shown, x=at[0] + 8, y=at[1] + 21, unicode_bidi="isolate"),
    )
    if number is None:
        return element("g", *parts, class_="node")
    return element(
        "g",
        *parts,
        class_="node",
        role="button",
        tabindex="-1",
        aria_label=visible(name, _TITLE_CHARACTERS),
        data_node=number,
    )
