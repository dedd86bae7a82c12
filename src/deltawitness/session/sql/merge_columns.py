"""From which columns a MERGE makes the columns that it assigns."""

from __future__ import annotations

from dataclasses import replace

from deltawitness.column_sources import ColumnSource, WriteColumns
from deltawitness.session.core.column_lineage import TableOf, columns_of_plan
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.merge_parser import Clause, Merge
from deltawitness.session.sql.planner import Planner

__all__ = ["columns_of_merge"]


def columns_of_merge(
    merge: Merge, planner: Planner, columns: list[str], table_of: TableOf
) -> WriteColumns:
    """Return from which columns a MERGE makes the columns that its clauses assign.

    Each clause is planned as a query of the values that it assigns.

    Args:
        merge: the statement.
        planner: plans parts of the statement with its resolved names and its parameters.
        columns: the columns of the target.
        table_of: returns the table that a scanned name means.
    """
    parts = []
    for clause in merge.clauses:
        if clause.action == "nothing":
            continue
        plan = unpatched(planner.frame(_query(merge, clause, columns)), "logical_plan")()
        part = columns_of_plan(plan, table_of)
        parts.append(part if clause.assigned(columns) else replace(part, columns={}))
    return _merged(parts)


def _query(merge: Merge, clause: Clause, columns: list[str]) -> str:
    quote = merge.spelling.quote_identifier
    assigned = clause.assigned(columns)
    values = ", ".join(f"({text}) AS {quote(name)}" for name, text in assigned.items())
    target, source = merge.target_sql(), merge.source_sql()
    match clause.kind:
        case "matched":
            tables = f"{target} JOIN {source}"
        case "not matched":
            tables = f"{source} LEFT ANTI JOIN {target}"
        case _:
            tables = f"{target} LEFT ANTI JOIN {source}"
    where = "" if clause.condition is None else f" WHERE {clause.condition}"
    return f"SELECT {values or '1 AS deleted'} FROM {tables} ON ({merge.condition}){where}"


def _merged(parts: list[WriteColumns]) -> WriteColumns:
    """Return the columns of several queries: those of each one with the same name together."""
    reason = next((each.reason for each in parts if each.reason is not None), None)
    if reason is not None:
        return WriteColumns(reason=reason)
    found: dict[str, tuple[ColumnSource, ...] | None] = {}
    rows: tuple[ColumnSource, ...] | None = ()
    for part in parts:
        rows = None if rows is None or part.rows is None else _together(rows, part.rows)
        for name, sources in part.columns.items():
            known = found.get(name, ())
            found[name] = None if known is None or sources is None else _together(known, sources)
    return WriteColumns(found, rows)


def _together(
    first: tuple[ColumnSource, ...], second: tuple[ColumnSource, ...]
) -> tuple[ColumnSource, ...]:
    return tuple(dict.fromkeys((*first, *second)))
