"""The columns that an expression of a logical plan reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from deltawitness.column_sources import ColumnUse
from deltawitness.session.core.column_scope import Scope, Sources, merged, used_as
from deltawitness.session.core.private_api import OUTER_REFERENCE

if TYPE_CHECKING:
    from datafusion import Expr

__all__ = ["ExpressionColumns", "name_of", "wrapped"]

_CLAUSES = ("FILTER (", "ORDER BY [", "PARTITION BY [", "WITHIN GROUP ")
"""What follows the arguments in the text of an aggregate or window call."""

_SAME_VALUE = frozenset({"Cast", "TryCast"})


class ExpressionColumns:
    """Reads the columns of the expressions of one node.

    Args:
        scope: the columns of the node's inputs.
        subqueries: the sources of the node's subqueries, in order of their appearance.
        outer: the columns that a LATERAL subquery can name in addition to those of its tables.
    """

    def __init__(
        self,
        scope: Scope,
        subqueries: Iterator[Sources] | None = None,
        outer: Sequence[Scope] = (),
    ) -> None:
        self._scope = scope
        self._subqueries = iter(()) if subqueries is None else subqueries
        self._outer = outer

    def sources(self, raw: Any) -> Sources:
        """Return the columns that an expression reads; None if they are not known."""
        try:
            return self._sources(wrapped(raw))
        except Exception:  # noqa: BLE001 - the engine has expressions without a Python class
            return None

    def _sources(self, expression: Expr) -> Sources:
        kind = expression.variant_name()
        read = _READERS.get(kind)
        if read is not None:
            return read(self, expression)
        operands = [self.sources(each) for each in expression.rex_call_operands()]
        found = merged(operands)
        return found if kind in _SAME_VALUE else used_as(found, ColumnUse.TRANSFORMATION)

    def column(self, expression: Expr) -> Sources:
        """Return the sources of a named column."""
        return self._scope.sources(expression.to_variant().qualified_name())

    def outer_column(self, expression: Expr) -> Sources:
        """Return the sources of a column of the query around a LATERAL subquery."""
        name = str(expression.canonical_name()).removeprefix(OUTER_REFERENCE).removesuffix(")")
        found = (scope.get(name) for scope in reversed(self._outer))
        return next((column.sources for column in found if column is not None), None)

    def alias(self, expression: Expr) -> Sources:
        """Return the sources of the expression that has a new name."""
        return self.sources(expression.to_variant().expr())

    def grouping_set(self, expression: Expr) -> Sources:
        """Return the sources of all columns of GROUPING SETS, CUBE or ROLLUP."""
        return self._scope.named_in(expression.canonical_name())

    def case(self, expression: Expr) -> Sources:
        """Return the sources of the values of a CASE, and of its conditions."""
        case = expression.to_variant()
        base, otherwise = case.expr(), case.else_expr()
        conditions = [] if base is None else [base]
        values = [] if otherwise is None else [otherwise]
        for when, then in case.when_then_expr():
            conditions.append(when)
            values.append(then)
        return merged(
            [
                *(used_as(self.sources(each), ColumnUse.TRANSFORMATION) for each in values),
                *(used_as(self.sources(each), ColumnUse.CONDITION) for each in conditions),
            ]
        )

    def aggregate(self, expression: Expr) -> Sources:
        """Return the columns of an aggregate or window call: those of its arguments compute the value.

        The engine has no method for those of FILTER, ORDER BY and PARTITION BY; the expression's text
        names them.
        """
        values = merged(self.sources(each) for each in expression.rex_call_operands())
        found = used_as(values, ColumnUse.AGGREGATION)
        text = expression.canonical_name()
        if not any(clause in text for clause in _CLAUSES):
            return found
        return merged([found, used_as(self._scope.named_in(text), ColumnUse.CONDITION)])

    def scalar_subquery(self, _: Expr) -> Sources:
        """Return the sources of the value of the next subquery."""
        return next(self._subqueries, None)

    def exists(self, _: Expr) -> Sources:
        """Return the sources of an EXISTS."""
        return used_as(next(self._subqueries, None), ColumnUse.CONDITION)

    def comparison(self, expression: Expr) -> Sources:
        """Return the sources of a comparison with the rows of a subquery."""
        compared = self.sources(expression.to_variant().expr())
        rows = next(self._subqueries, None)
        return used_as(merged([compared, rows]), ColumnUse.TRANSFORMATION)


def _no_sources(_: ExpressionColumns, __: Expr) -> Sources:
    return {}


_READERS: dict[str, Callable[[ExpressionColumns, Expr], Sources]] = {
    "AggregateFunction": ExpressionColumns.aggregate,
    "Alias": ExpressionColumns.alias,
    "Case": ExpressionColumns.case,
    "Column": ExpressionColumns.column,
    "Exists": ExpressionColumns.exists,
    "GroupingSet": ExpressionColumns.grouping_set,
    "InSubquery": ExpressionColumns.comparison,
    "Literal": _no_sources,
    "Outer": ExpressionColumns.outer_column,
    "Placeholder": _no_sources,
    "ScalarSubquery": ExpressionColumns.scalar_subquery,
    "ScalarVariable": _no_sources,
    "SetComparison": ExpressionColumns.comparison,
    "WindowFunction": ExpressionColumns.aggregate,
}
"""Readers of expressions whose operands are not all that they read."""


def wrapped(expression: Any) -> Expr:
    """Return an expression as the public class; plan nodes return an inner class."""
    from datafusion import Expr  # noqa: PLC0415 - heavy, already loaded

    return expression if isinstance(expression, Expr) else Expr(expression)


def name_of(raw: Any) -> tuple[str, str]:
    """Return the qualified name and the name of the column that an expression makes."""
    expression = wrapped(raw)
    kind = expression.variant_name()
    if kind == "Column":
        column = expression.to_variant()
        return column.qualified_name(), column.name()
    if kind == "Alias":
        name = str(expression.to_variant().alias())
        return name, name
    name = str(expression.schema_name())
    return name, name
