"""Apply changes that the session has computed to a Delta table, as one MERGE of delta-rs.

Delta has no row numbers. The columns that a change depends on are the key instead: rows with equal
values in them change alike. Each combination of their values is one row of the source, and it matches
every row of the table with these values; NULL equals NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deltawitness.session.sql.delta_sql import null_safe_match
from deltawitness.session.sql.plan_metrics import with_operator_metrics
from deltawitness.sql_quoting import quote_identifier

if TYPE_CHECKING:
    from datafusion import DataFrame
    from deltalake import DeltaTable
    from deltalake.table import TableMerger

__all__ = ["SOURCE", "TARGET", "Change", "apply_changes", "changed_rows"]

TARGET, SOURCE = "deltawitness_target", "deltawitness_source"
"""Aliases of target and source in the expressions that are passed to delta-rs."""


@dataclass(frozen=True, slots=True)
class Change:
    """One WHEN clause of the MERGE that is passed to delta-rs.

    Attributes:
        action: `update`, `delete` or `insert`.
        values: SQL of the assigned values, by column of the table.
        condition: SQL of the clause's own condition; None for all rows.
        is_matched: true for rows in both table and source, false for rows in only one of them.
    """

    action: str
    values: Mapping[str, str]
    condition: str | None = None
    is_matched: bool = True


def apply_changes(
    table: DeltaTable, source: DataFrame, condition: str, changes: Sequence[Change]
) -> dict[str, Any]:
    """Apply the changes in one MERGE; the first change that applies to a row is used.

    Args:
        table: the table, at the version that the changes were computed from.
        source: the source rows; the batches have the types of the schema (see `coerce`).
        condition: SQL of the match, with the aliases :data:`TARGET` and :data:`SOURCE`.
        changes: the changes, in order.

    Returns:
        The metrics of delta-rs.
    """
    with with_operator_metrics(source) as rows:
        merger = table.merge(rows, condition, source_alias=SOURCE, target_alias=TARGET)
        for change in changes:
            merger = _CLAUSES[change.action, change.is_matched](merger, change)
        return merger.execute()


def changed_rows(metrics: Mapping[str, Any]) -> int:
    """Return the number of rows that a MERGE inserted, updated and deleted, from its metrics."""
    names = ("inserted", "updated", "deleted")
    return sum(int(metrics.get(f"num_target_rows_{name}") or 0) for name in names)


def matching(columns: Sequence[str], source_columns: Sequence[str]) -> str:
    """Return the condition that a row of the table equals a source row in the given columns.

    Args:
        columns: columns of the table.
        source_columns: the source's columns, in the same order.
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
