"""MERGE INTO on a Delta table: translated for delta-rs if possible, else evaluated by the session.

Each expression of the statement is planned once more by itself, so that DataFusion alone resolves the
names in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deltawitness.session.sql.coercion import coerce
from deltawitness.session.sql.delta_sql import NotTranslatable, is_volatile, unaliased, value_sql
from deltawitness.session.sql.merge_apply import SOURCE, TARGET, Change, apply_changes, changed_rows
from deltawitness.session.sql.merge_evaluate import EvaluatedMerge, plan_expressions
from deltawitness.session.sql.merge_parser import Merge
from deltawitness.session.sql.planner import Planner
from deltawitness.sql_quoting import quote_identifier

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame
    from deltalake import DeltaTable

__all__ = ["execute_merge"]


def execute_merge(merge: Merge, planner: Planner, table: DeltaTable, source: DataFrame) -> int:
    """Run a MERGE and return the number of inserted, updated and deleted rows.

    Args:
        merge: the statement.
        planner: plans parts of the statement with its resolved names and its parameters.
        table: the table, at the version that the session serves.
        source: the rows of the source.

    Raises:
        StatementError: the session cannot evaluate the statement.
    """
    try:
        condition, changes = _translate(merge, planner, _schema_of(table))
    except NotTranslatable:
        return EvaluatedMerge(merge, planner, table, source).execute()
    return changed_rows(apply_changes(table, coerce(planner.ctx, source), condition, changes))


def _schema_of(table: DeltaTable) -> list[str]:
    return [field.name for field in table.schema().fields]


def _translate(merge: Merge, planner: Planner, columns: list[str]) -> tuple[str, list[Change]]:
    """Return the statement's condition and changes in delta-rs's SQL dialect.

    Raises:
        NotTranslatable: an expression or a clause has no equivalent in delta-rs.
    """
    kinds = {clause.kind for clause in merge.clauses}
    if "not matched by source" in kinds and "matched" not in kinds:
        # delta-rs would write a target row once for each source row that it matches.
        raise NotTranslatable(merge.clauses[0].kind)
    joined = f"{merge.target_sql()} CROSS JOIN {merge.source_sql()}"
    scopes = {
        "matched": joined,
        "not matched": merge.source_sql(),
        "not matched by source": merge.target_sql(),
    }
    sides = _sides(merge, planner)
    target = planner.frame(f"SELECT * FROM {merge.target}").schema()
    (condition,) = _translate_expressions(planner, joined, [(merge.condition, None)], sides)
    changes = []
    for clause in merge.clauses:
        if clause.action == "nothing":
            raise NotTranslatable(clause.action)
        assigned = clause.assigned(columns)
        wanted: list[tuple[str, Any]] = [
            (text, target.field(name).type) for name, text in assigned.items()
        ]
        if clause.condition is not None:
            wanted.append((clause.condition, None))
        sql = _translate_expressions(planner, scopes[clause.kind], wanted, sides)
        only_if = sql.pop() if clause.condition is not None else None
        values = dict(zip(assigned, sql, strict=True))
        changes.append(Change(clause.action, values, only_if, clause.kind == "matched"))
    return condition, changes


def _sides(merge: Merge, planner: Planner) -> Callable[[str | None, str], str]:
    """Return a function that names a column of the target or the source in the SQL for delta-rs.

    The function raises `NotTranslatable` for a column of another relation.
    """
    relations: dict[str | None, str] = {}
    for sql, alias in ((merge.target_sql(), TARGET), (merge.source_sql(), SOURCE)):
        for expression in plan_expressions(planner, f"SELECT * FROM {sql}"):
            parts = unaliased(expression).to_variant()
            relations[parts.relation()] = alias

    def column(relation: str | None, name: str) -> str:
        if relation not in relations:
            raise NotTranslatable(str(relation))
        return f"{relations[relation]}.{quote_identifier(name)}"

    return column


def _translate_expressions(
    planner: Planner,
    scope: str,
    texts: list[tuple[str, Any]],
    column: Callable[[str | None, str], str],
) -> list[str]:
    """Return expressions in delta-rs's SQL dialect.

    Args:
        planner: plans parts of the statement.
        scope: the FROM clause that the expressions refer to.
        texts: the expressions, each with the type of the column that it is assigned to, or None.
        column: returns the SQL of a column.

    Raises:
        NotTranslatable: an expression has no equivalent in delta-rs, or delta-rs would have to cast
            it; delta-rs casts the text of a timestamp to another time than DataFusion.
    """
    if not texts:
        return []
    listed = ", ".join(f"({text}) AS expression_{place}" for place, (text, _) in enumerate(texts))
    query = f"SELECT {listed} FROM {scope}"
    given = coerce(planner.ctx, planner.frame(query)).schema()
    for field, (_, wanted) in zip(given, texts, strict=True):
        if wanted is not None and not _is_widening(field.type, wanted):
            raise NotTranslatable(str(field.type))
    expressions = plan_expressions(planner, query)
    for expression, (_, wanted) in zip(expressions, texts, strict=True):
        if wanted is None and is_volatile(expression):
            raise NotTranslatable(str(wanted))
    return [value_sql(expression, column) for expression in expressions]


def _is_widening(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether values of a type can be assigned to another type unchanged or by widening."""
    import pyarrow.types as pt  # noqa: PLC0415 - heavy, already loaded

    if pt.is_null(given) or given == wanted:
        return True
    if pt.is_integer(given):
        return bool(pt.is_integer(wanted) or pt.is_floating(wanted))
    return any(
        kind(given) and kind(wanted) for kind in (pt.is_floating, lambda each: str(each) in _TEXTS)
    )


_TEXTS = frozenset({"string", "string_view", "large_string"})
