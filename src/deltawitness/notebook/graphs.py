"""Lineage of tables and columns in a notebook."""

from __future__ import annotations

from deltawitness.answers.column_graph import ColumnLineage
from deltawitness.answers.impact_report import Impact
from deltawitness.answers.lineage_graph import Lineage, LineageNode
from deltawitness.answers.rows import TableVersion
from deltawitness.html_report.content import GraphEdge
from deltawitness.html_report.graph import drawn_edges
from deltawitness.html_report.graph_drawing import draw_graph
from deltawitness.html_report.markup import Markup, isolated
from deltawitness.html_report.tables import scrolled
from deltawitness.notebook.parts import (
    listing,
    names_of,
    note,
    short_id,
)
from deltawitness.plurals import count_of
from deltawitness.report.format import operation, timestamp

__all__ = ["show_column_lineage", "show_impact", "show_lineage"]


def show_lineage(found: Lineage) -> list[Markup]:
    """Show the drawing of a graph, and a table of its versions."""
    keys = {node.table: _key(node.table) for node in found.nodes}
    edges = [
        GraphEdge(
            source=_key(edge.source),
            source_version=edge.read_version,
            target=_key(edge.target),
            target_version=edge.target.version,
            is_inferred=edge.kind.value != "exact",
        )
        for edge in found.edges
    ]
    names = {key: str(each.name or each.uri or each.table_id) for each, key in keys.items()}
    versions = {key: each.version for each, key in keys.items()}
    side = "made from" if found.direction.value == "up" else "made into"
    title = f"{found.requested}: what it was {side}"
    parts = [] if edges else [note(f"{title}: nothing is known")]
    if edges:
        shown = drawn_edges(edges)
        parts.append(scrolled(title, draw_graph(shown, names, versions, title)))
        if len(shown) < len(edges):
            parts.append(note(f"{len(shown)} of {len(edges):,} edges are drawn."))
    head = ("version", "operation", "time", "job", "run")
    parts += listing(title, head, list(map(_node_line, found.nodes)))
    if found.cut:
        parts.append(note(f"{count_of(len(found.cut), 'version')} at the edge have further ones."))
    return parts


def _key(version: TableVersion) -> str:
    return f"{version.uri or version.table_id}@{version.version}"


def _node_line(node: LineageNode) -> tuple[str, ...]:
    return (
        isolated(node.table),
        isolated(operation(node.operation, node.mode) if node.in_ledger else "not in the ledger"),
        timestamp(node.time),
        isolated(node.job),
        short_id(node.run_id),
    )


def show_column_lineage(found: ColumnLineage) -> list[Markup]:
    """Show from which columns the columns of a version come."""
    values = [
        (isolated(edge.target), isolated(edge.source), edge.use.value) for edge in found.edges
    ]
    of_rows = [
        (isolated(edge.target), isolated(edge.source), edge.use.value) for edge in found.rows
    ]
    unknown = [
        (isolated(each.table), isolated(each.column or "all columns"), isolated(each.reason))
        for each in found.unknown
    ]
    return [
        *listing(f"columns of {found.requested}", ("column", "made from", "use"), values),
        *listing("which rows", ("version", "decided by", "use"), of_rows),
        *listing("not known", ("version", "column", "why"), unknown),
    ] or [note(f"{found.requested}: nothing is known")]


def show_impact(found: Impact) -> list[Markup]:
    """Show the tables that depend on a table."""
    lines = [
        (
            isolated(each.table),
            str(each.distance),
            isolated(names_of(read.table for read in each.inputs)),
            f"since {timestamp(each.stale_since)}" if each.is_stale else "",
            isolated(each.job),
            short_id(each.run_id),
        )
        for each in found.dependents
    ]
    head = ("table", "distance", "has read", "stale", "job", "run")
    parts = listing(f"made from {found.table}", head, lines, ("distance",))
    if found.cut:
        parts.append(note(f"{count_of(found.cut, 'further table')} left out because of the depth."))
    return parts or [note(f"no table is known to be made from {found.table}")]
