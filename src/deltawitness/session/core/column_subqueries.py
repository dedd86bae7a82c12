"""The columns that a subquery of an expression reads.

The engine has no method that returns the plan of such a subquery, so its text is read: all columns of
tables that it names. Columns of a derived table that are not used further are among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from deltawitness.column_sources import ColumnUse
from deltawitness.session.core.column_scope import Column, Scope, Sources, merged, used_as

__all__ = ["subqueries_of"]

_INDENT = 2
_SUBQUERY = "Subquery:"
_VALUES = ("Projection:", "Aggregate:", "WindowAggr:", "Unnest:")
_SCAN = re.compile(r"TableScan: (.+?)(?: projection=.*| full_filters=.*|, fetch=.*)? \[(.*)\]$")
_COLUMN = re.compile(r"(?:^|, )([^:]+):(?=[A-Z])")
_OUTER = re.compile(r"outer_ref\(([^()]*)\)")
_OUTPUT = re.compile(r" \[(?:[^\[\]]|\[[^\[\]]*\])*\]$")


def subqueries_of(text: str, outer: Scope, table_of: Callable[[str], int | str]) -> list[Sources]:
    """Return the sources of the subqueries of a node's expressions, in order.

    Args:
        text: `LogicalPlan.display_indent_schema()` of the node.
        outer: the columns of the node's inputs.
        table_of: returns the table that a scanned name means.
    """
    return [_sources(block, outer, table_of) for block in _blocks(text)]


def _blocks(text: str) -> Iterator[list[str]]:
    """Yield the lines of each subquery directly below the first line of a plan's text."""
    block: list[str] | None = None
    for line in text.splitlines()[1:]:
        depth = len(line) - len(line.lstrip())
        if depth <= _INDENT:
            if block is not None:
                yield block
            if not line.startswith(" " * _INDENT + _SUBQUERY):
                return
            block = []
        elif block is not None:
            block.append(line)
    if block is not None:
        yield block


def _sources(lines: list[str], outer: Scope, table_of: Callable[[str], int | str]) -> Sources:
    scope = Scope(list(_scanned(lines, table_of)))
    values, conditions = [], []
    has_aggregate = any(line.lstrip().startswith(_VALUES[1:3]) for line in lines)
    use = ColumnUse.AGGREGATION if has_aggregate else ColumnUse.IDENTITY
    for line in lines:
        node = line.lstrip()
        if node.startswith("TableScan:"):
            continue
        body = _OUTPUT.sub("", node)
        outside = [outer.sources(name) for name in _OUTER.findall(body)]
        conditions += [used_as(each, ColumnUse.CONDITION) for each in outside]
        named = scope.named_in(_OUTER.sub("", body))
        if node.startswith(_VALUES):
            values.append(used_as(named, use))
        else:
            conditions.append(used_as(named, ColumnUse.CONDITION))
    return merged([*values, *conditions])


def _scanned(lines: list[str], table_of: Callable[[str], int | str]) -> Iterator[Column]:
    """Yield the columns of the scanned tables, under the names that expressions use."""
    alias: tuple[int, str] | None = None
    for line in lines:
        node = line.lstrip()
        depth = len(line) - len(node)
        if found := _SCAN.match(node):
            table, relation = found[1], found[1]
            if alias is not None and alias[0] == depth - _INDENT:
                relation = alias[1]
            for name in _COLUMN.findall(found[2]):
                yield Column(
                    f"{relation}.{name}", name, {(table_of(table), name): ColumnUse.IDENTITY}
                )
        is_alias = node.startswith("SubqueryAlias: ")
        alias = (depth, _OUTPUT.sub("", node).removeprefix("SubqueryAlias: ")) if is_alias else None
