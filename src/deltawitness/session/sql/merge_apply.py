"""Changes that the session has worked out, applied to a Delta table as one MERGE.

Delta has no row numbers. What stands in for one is the columns that a change depends on: rows that
agree in them are changed alike, so each combination of their values is one row of the source, and
it matches every row of the table that has these values, NULL with NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltawitness.session.core.tokens import quote_identifier
from deltawitness.session.sql.delta_sql import null_safe_match
from deltawitness.session.sql.plan_metrics import with_operator_metrics

if TYPE_CHECKING:
    from datafusion import DataFrame
    from deltalake import DeltaTable
    from deltalake.table import TableMerger

__all__ = ["SOURCE", "TARGET", "Change", "apply_changes", "changed_rows"]

TARGET, SOURCE = "deltawitness_target", "deltawitness_source"
"""Aliases of the two sides of a MERGE, in every expression that delta-rs is given."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to the rows that one clause is about.

    Attributes:
        action: `update`, `delete` or `insert`.
        values: for each column of the table that gets a value, its SQL.
        condition: SQL that must hold besides; None for all rows.
        is_matched: whether the rows are in the table and in the source, else only in one of them.
    """

    action: str
    values: Mapping[str, str]
    condition: str | None = None
    is_matched: bool = True


def apply_changes(
    table: DeltaTable, source: DataFrame, condition: str, changes: Sequence[Change]
) -> dict[str, Any]:
    """Carry the changes out, in order: the first that applies to a row decides.

    Args:
        table: the table; it is at the version that the changes were worked out from.
        source: the rows to match with, of the types that they say they are.
        condition: SQL of the match, with the aliases :data:`TARGET` and :data:`SOURCE`.
        changes: what happens to whom.

    Returns:
        The engine's metrics.
    """
    with with_operator_metrics(source) as rows:
        merger = table.merge(rows, condition, source_alias=SOURCE, target_alias=TARGET)
        for change in changes:
            merger = _CLAUSES[change.action, change.is_matched](merger, change)
        return merger.execute()


def changed_rows(metrics: Mapping[str, Any]) -> int:
    """Return how many rows a MERGE inserted, updated and deleted."""
    names = ("inserted", "updated", "deleted")
    return sum(int(metrics.get(f"num_target_rows_{name}") or 0) for name in names)


def matching(columns: Sequence[str], source_columns: Sequence[str]) -> str:
    """Return the condition under which a row of the table has the values of a source row.

    Args:
        columns: columns of the table.
        source_columns: the same of the source, in this order.
    """
    return null_safe_match(
        (f"{TARGET}.{quote_identifier(column)}", f"{SOURCE}.{quote_identifier(other)}")
        for column, other in zip(columns, source_columns, strict=True)
    )


def _updates(change: Change) -> dict[str, str]:
    return {quote_identifier(column): value for column, value in change.values.items()}


Clause = Callable[["TableMerger", Change], "TableMerger"]

_CLAUSES: dict[tuple[str, bool], Clause] = {
    ("update", True): lambda merger, change: merger.when_matched_update(
        _updates(change), change.condition
    ),
    ("delete", True): lambda merger, change: merger.when_matched_delete(change.condition),
    ("insert", False): lambda merger, change: merger.when_not_matched_insert(
        _updates(change), change.condition
    ),
    ("update", False): lambda merger, change: merger.when_not_matched_by_source_update(
        _updates(change), change.condition
    ),
    ("delete", False): lambda merger, change: merger.when_not_matched_by_source_delete(
        change.condition
    ),
}
