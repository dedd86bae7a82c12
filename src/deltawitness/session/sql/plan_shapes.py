"""The shapes of UPDATE and DELETE plans that can be executed: those that DataFusion plans from text.

An optimized plan may express the same statement with other nodes: the filter as a join, inside the
scan, or folded to an empty relation, and without the columns that no expression reads. Such a plan is
refused: executing a shape that is not completely recognized could change other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from deltawitness.exceptions import StatementError
from deltawitness.session.core.private_api import is_of_kind, wrapped_plan
from deltawitness.session.sql.delta_sql import column_name, unaliased

if TYPE_CHECKING:
    from datafusion.plan import LogicalPlan

__all__ = ["DeleteShape", "UpdateShape"]


@dataclass(frozen=True, slots=True)
class _Shape:
    """The plan of the rows that a statement changes.

    Attributes:
        rows: the plan.
        filter: the predicate, or None.
    """

    rows: LogicalPlan
    filter: Any

    statement: ClassVar[str]

    @classmethod
    def of(cls, plan: LogicalPlan, table: str, columns: Sequence[str]) -> Self:
        """Parse the plan below the DML node.

        Args:
            plan: the plan.
            table: the name of the target table.
            columns: the columns of the target table.

        Raises:
            StatementError: the plan has another shape.
        """
        return cls._parse(plan, table, columns)

    @classmethod
    def _parse(cls, plan: LogicalPlan, table: str, columns: Sequence[str]) -> Self:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class DeleteShape(_Shape):
    """`[Filter] <- TableScan`; the scan may have an alias."""

    statement: ClassVar[str] = "DELETE FROM"

    @classmethod
    def _parse(cls, plan: LogicalPlan, table: str, columns: Sequence[str]) -> Self:
        if is_of_kind(plan, "Limit"):
            msg = "DELETE with LIMIT is not possible on a Delta table, whose rows have no order"
            raise StatementError(msg)
        return cls(plan, _filter_over_scan(plan, cls.statement, table, columns))


@dataclass(frozen=True, slots=True)
class UpdateShape(_Shape):
    """`Projection <- [Filter] <- TableScan`; the scan may have an alias.

    Attributes:
        assigned: the new values, by column; without columns that keep their value.
    """

    assigned: dict[str, Any]

    statement: ClassVar[str] = "UPDATE"

    @classmethod
    def _parse(cls, plan: LogicalPlan, table: str, columns: Sequence[str]) -> Self:
        if not is_of_kind(plan, "Projection"):
            raise _other_shape(cls.statement, table)
        parts = plan.to_variant()
        rows = wrapped_plan(parts.input()[0])
        filter_ = _filter_over_scan(rows, cls.statement, table, columns)
        values = {_name(each): unaliased(each) for each in parts.projections()}
        if set(values) != set(columns) or len(parts.projections()) != len(columns):
            raise _other_shape(cls.statement, table)
        assigned = {n: values[n] for n in columns if column_name(values[n]) != n}
        return cls(rows, filter_, assigned)


def _name(raw: Any) -> str | None:
    """Return the output name of an expression in a projection: its alias, or the name of a column."""
    from datafusion.expr import Expr  # noqa: PLC0415 - heavy, already loaded

    expression = raw if isinstance(raw, Expr) else Expr(raw)
    if expression.variant_name() == "Alias":
        alias: str = expression.to_variant().alias()
        return alias
    return column_name(expression)


def _filter_over_scan(plan: Any, statement: str, table: str, columns: Sequence[str]) -> Any:
    """Return the predicate of `[Filter] <- [SubqueryAlias] <- TableScan`; None without a filter."""
    filter_ = None
    if is_of_kind(plan, "Filter"):
        parts = plan.to_variant()
        filter_, plan = parts.predicate(), parts.input()[0]
    if is_of_kind(plan, "SubqueryAlias"):
        plan = plan.to_variant().input()[0]
    if not is_of_kind(plan, "TableScan"):
        raise _other_shape(statement, table)
    scan = plan.to_variant()
    read = [name for _, name in scan.projection()]
    reads_all_columns = not read or read == list(columns)
    if (
        scan.fqn()[-1] != table
        or scan.filters()
        or scan.fetch() is not None
        or not reads_all_columns
    ):
        raise _other_shape(statement, table)
    return filter_


def _other_shape(statement: str, table: str) -> StatementError:
    return StatementError(
        f"{statement} {table}: the plan is not one that DataFusion makes of a statement's text"
        " (an optimized one?); run the statement's text, or its plan before it is optimized"
    )
