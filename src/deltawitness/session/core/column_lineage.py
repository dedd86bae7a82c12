"""From which columns of tables the columns of a logical plan are made.

The plan is the one that the session has bound and not optimized, so its names are those of the query.
Python has classes for most nodes; where it has none, the columns above are not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from deltawitness.column_sources import ColumnSource, ColumnUse, WriteColumns
from deltawitness.session.core.column_expressions import ExpressionColumns, name_of
from deltawitness.session.core.column_scope import (
    Column,
    Scope,
    Sources,
    listed,
    merged,
    used_as,
)
from deltawitness.session.core.column_subqueries import subqueries_of

__all__ = ["TableOf", "columns_of_plan"]

TableOf = Callable[[str], int | str]
"""Returns the table that a scanned name means: a position in the inputs of the write, or a name."""

_ROUNDS = 8
"""Maximum number of passes over the recursive part of a query."""


def columns_of_plan(
    plan: Any, table_of: TableOf, names: Sequence[str] | None = None
) -> WriteColumns:
    """Return from which columns of tables the columns of a plan are made.

    Args:
        plan: the logical plan of the rows of a write.
        table_of: returns the table that a scanned name means.
        names: names of the written columns; those of the plan if there is another number of them.
    """
    walk = _Walk(table_of)
    try:
        scope = walk.scope(plan)
    except RecursionError:
        return WriteColumns(reason="the plan has too many levels")
    if scope.columns is None:
        return WriteColumns(reason="the plan has a node whose columns cannot be read")
    own = [each.name for each in scope]
    written = own if names is None or len(names) != len(own) else list(names)
    wanted = set(written if names is None else names)
    columns = {
        name: None if each.sources is None else listed(each.sources)
        for name, each in zip(written, scope, strict=True)
        if name in wanted
    }
    rows = sorted(set(walk.rows), key=lambda each: (str(each[0]), each[1], each[2]))
    are_known = walk.are_rows_known
    return WriteColumns(columns, tuple(ColumnSource(*each) for each in rows) if are_known else None)


@dataclass
class _Walk:
    """Reads the nodes of a plan from the scans to the top.

    Attributes:
        table_of: returns the table that a scanned name means.
        rows: the columns that decided which rows there are: table, column and use.
        are_rows_known: whether these are all such columns.
        recursive: the columns of a recursive query, by the name with which it scans itself.
        outer: the columns that a LATERAL subquery can name in addition to those of its tables.
        limits: number of LIMIT nodes above the current node.
    """

    table_of: TableOf
    rows: list[tuple[int | str, str, ColumnUse]] = field(default_factory=list)
    are_rows_known: bool = True
    recursive: dict[str, list[Column]] = field(default_factory=dict)
    outer: list[Scope] = field(default_factory=list)
    limits: int = 0

    def scope(self, plan: Any) -> Scope:
        """Return the columns of a node's result."""
        try:
            node = plan.to_variant()
        except Exception:  # noqa: BLE001 - the engine has plan nodes without a Python class
            node = None
        read = _NODES.get(type(node).__name__)
        if node is None or read is None:
            return self._pass_through(plan)
        return Scope(read(self, plan, node))

    def below(self, plan: Any) -> list[Scope]:
        """Return the columns of a node's inputs."""
        return [self.scope(each) for each in plan.inputs()]

    def _pass_through(self, plan: Any) -> Scope:
        """Return the columns of a node of a kind that has the columns of its input, else unknown ones."""
        below = self.below(plan)
        is_known = plan.display().startswith(_TRANSPARENT)
        return below[0] if is_known and len(below) == 1 else Scope(None)

    def expressions(self, plan: Any, scope: Scope) -> ExpressionColumns:
        """Return the reader of a node's expressions."""
        found: list[Sources] = []
        if "<subquery>" in plan.display():
            found = subqueries_of(plan.display_indent_schema(), scope, self.table_of)
        return ExpressionColumns(scope, iter(found), self.outer)

    def add_rows(self, sources: Sources, use: ColumnUse) -> None:
        """Record columns that decided which rows there are."""
        self.are_rows_known &= sources is not None
        self.rows += [(*key, use) for key in sources or ()]


# --- nodes -------------------------------------------------------------------------------------------

_SAME = ColumnUse.IDENTITY

_TRANSPARENT = ("Repartition", "Subquery:")
"""Starts of nodes without a Python class in some releases, which have the columns of their input."""


def _scan(walk: _Walk, plan: Any, node: Any) -> list[Column]:
    shown = plan.display().removeprefix("TableScan: ").split(" projection=")[0]
    known = walk.recursive.get(shown)
    if known is not None:
        return [each.within(shown) for each in known]
    table = walk.table_of(shown)
    columns = []
    for qualified in node.schema().field_names():
        name = qualified.removeprefix(f"{shown}.")
        columns.append(Column(qualified, name, {(table, name): _SAME}))
    reader = ExpressionColumns(Scope(columns))
    for each in node.filters():
        walk.add_rows(reader.sources(each), ColumnUse.FILTER)
    return columns


def _alias(walk: _Walk, plan: Any, node: Any) -> list[Column] | None:
    (below,) = walk.below(plan)
    if below.columns is None:
        return None
    return [each.within(node.alias()) for each in below]


def _projection(walk: _Walk, plan: Any, node: Any) -> list[Column]:
    (below,) = walk.below(plan)
    reader = walk.expressions(plan, below)
    return [Column(*name_of(each), reader.sources(each)) for each in node.projections()]


def _filter(walk: _Walk, plan: Any, node: Any) -> list[Column] | None:
    (below,) = walk.below(plan)
    walk.add_rows(walk.expressions(plan, below).sources(node.predicate()), ColumnUse.FILTER)
    return below.columns


def _join(walk: _Walk, plan: Any, node: Any) -> list[Column] | None:
    left_plan, right_plan = plan.inputs()
    left = walk.scope(left_plan)
    walk.outer.append(left)
    right = walk.scope(right_plan)
    walk.outer.pop()
    both = Scope([*left, *right])
    reader = walk.expressions(plan, both)
    for pair in node.on():
        for each in pair:
            walk.add_rows(reader.sources(each), ColumnUse.JOIN)
    if node.filter() is not None:
        walk.add_rows(reader.sources(node.filter()), ColumnUse.JOIN)
    kind = str(node.join_type()).rpartition(".")[2]
    if left.columns is None or right.columns is None:
        return None
    if kind.startswith("Left") and kind != "Left":
        return left.columns if kind != "LeftMark" else None
    if kind.startswith("Right") and kind != "Right":
        return right.columns if kind != "RightMark" else None
    return both.columns


def _aggregate(walk: _Walk, plan: Any, node: Any) -> list[Column]:
    (below,) = walk.below(plan)
    reader = walk.expressions(plan, below)
    groups = {name_of(each): reader.sources(each) for each in node.group_by_exprs()}
    walk.add_rows(merged(groups.values()), ColumnUse.GROUP)
    calls = {name_of(each): reader.sources(each) for each in node.aggregate_exprs()}
    found = {
        qualified: (name, sources) for (qualified, name), sources in {**groups, **calls}.items()
    }
    columns = []
    for qualified in node.schema().field_names():
        name, sources = found.get(qualified, (qualified, None))
        if qualified not in found:
            # GROUPING SETS: the columns of the sets, and the number of the set.
            of_set = below.get(qualified)
            name = qualified if of_set is None else of_set.name
            sources = {} if of_set is None else of_set.sources
        columns.append(Column(qualified, name, sources))
    return columns


def _window(walk: _Walk, plan: Any, node: Any) -> list[Column] | None:
    (below,) = walk.below(plan)
    reader = walk.expressions(plan, below)
    if below.columns is None:
        return None
    added = [Column(*name_of(each), reader.sources(each)) for each in node.get_window_expr()]
    return [*below, *added]


def _union(walk: _Walk, plan: Any, node: Any) -> list[Column] | None:
    parts = [scope.columns for scope in walk.below(plan)]
    names = node.schema().field_names()
    return _union_of(parts, names)


def _recursive(walk: _Walk, plan: Any, node: Any) -> list[Column] | None:
    first, repeated = plan.inputs()
    found = walk.scope(first).columns
    for _ in range(_ROUNDS):
        if found is None:
            return None
        walk.recursive[node.name()] = found
        again = _union_of([found, walk.scope(repeated).columns], [c.qualified for c in found])
        if again == found:
            break
        found = again
    return found


def _sort(walk: _Walk, plan: Any, node: Any) -> list[Column] | None:
    is_limited = walk.limits > 0 or node.get_fetch_val() is not None
    (below,) = walk.below(plan)
    if is_limited:
        reader = walk.expressions(plan, below)
        for each in node.sort_exprs():
            walk.add_rows(reader.sources(each.expr()), ColumnUse.SORT)
    return below.columns


def _limit(walk: _Walk, plan: Any, _: Any) -> list[Column] | None:
    walk.limits += 1
    (below,) = walk.below(plan)
    walk.limits -= 1
    return below.columns


def _distinct(walk: _Walk, plan: Any, _: Any) -> list[Column] | None:
    (below,) = walk.below(plan)
    # The engine does not show what DISTINCT ON selects.
    return None if plan.display().startswith("DistinctOn") else below.columns


def _unnest(walk: _Walk, plan: Any, node: Any) -> list[Column]:
    (below,) = walk.below(plan)
    return [_unnested(qualified, below) for qualified in node.schema().field_names()]


def _without_input(_: _Walk, __: Any, node: Any) -> list[Column]:
    return [Column(name, name, {}) for name in node.schema().field_names()]


def _one_input(walk: _Walk, plan: Any, _: Any) -> list[Column] | None:
    (below,) = walk.below(plan)
    return below.columns


def _union_of(parts: Sequence[list[Column] | None], names: Sequence[str]) -> list[Column] | None:
    """Return the columns of rows that are put together by position; None if they are not known."""
    known = [part for part in parts if part is not None and len(part) == len(names)]
    if len(known) < len(parts):
        return None
    return [
        Column(name, known[0][place].name, merged(part[place].sources for part in known))
        for place, name in enumerate(names)
    ]


_DEPTH = re.compile(r",depth=\d+\)$")


def _unnested(qualified: str, below: Scope) -> Column:
    """Return a column of an UNNEST: one of its input, an element of a list, or a field of a struct."""
    same = below.get(qualified)
    if same is not None:
        return Column(qualified, same.name, same.sources)
    listed_as = _DEPTH.sub(")", qualified)
    for each in below:
        if each.qualified == listed_as or qualified.startswith(f"{each.qualified}."):
            value = used_as(each.sources, ColumnUse.TRANSFORMATION)
            return Column(qualified, qualified, value)
    return Column(qualified, qualified, None)


_NODES: dict[str, Callable[[_Walk, Any, Any], list[Column] | None]] = {
    "TableScan": _scan,
    "SubqueryAlias": _alias,
    "Projection": _projection,
    "Filter": _filter,
    "Join": _join,
    "Aggregate": _aggregate,
    "WindowExpr": _window,
    "Union": _union,
    "RecursiveQuery": _recursive,
    "Sort": _sort,
    "Limit": _limit,
    "Distinct": _distinct,
    "Unnest": _unnest,
    "Values": _without_input,
    "EmptyRelation": _without_input,
    "Repartition": _one_input,
    "Subquery": _one_input,
}
