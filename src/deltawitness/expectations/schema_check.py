"""Check the rule `schema`: the columns and types of the written rows against those of the table."""

from __future__ import annotations

import json
from typing import Any

from deltawitness.events import ExpectationCheck
from deltawitness.expectations.row_checks import unchecked
from deltawitness.expectations.rules import UNCHANGED, SchemaRule
from deltawitness.semconv import ExpectationRule

__all__ = ["check_schema", "delta_types"]

SHOWN = 5
"""Differing columns that a result names."""


def check_schema(
    rule: SchemaRule, written: dict[str, str], table: dict[str, str] | None
) -> ExpectationCheck:
    """Return the result of the rule `schema`.

    Args:
        rule: `unchanged`: the rows have the columns of the table, with the same types. `compatible`: the
            rows may have further columns. The order and the nullability of columns do not matter.
        written: the type of each column of the rows, from :func:`delta_types`.
        table: the same of the table; None if the table does not exist.
    """
    if table is None:
        return unchecked(ExpectationRule.SCHEMA, (), "the table does not exist yet")
    missing = [f"no column `{name}`" for name in table if name not in written]
    new = [f"new column `{name}`" for name in written if name not in table]
    changed = [
        f"`{name}` is {kind}, not {table[name]}"
        for name, kind in written.items()
        if name in table and kind != table[name]
    ]
    found = missing + changed + (new if rule == UNCHANGED else [])
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    detail = ", ".join(found[:SHOWN]) + more if found else f"{rule}"
    return ExpectationCheck(ExpectationRule.SCHEMA, (), not found, len(found), detail)


def delta_types(schema: Any) -> dict[str, str]:
    """Return the Delta type of each column, without nullability and metadata.

    Args:
        schema: an Arrow schema, or the schema of a Delta table.
    """
    from deltalake import Schema  # noqa: PLC0415 - heavy, already loaded

    delta = schema if isinstance(schema, Schema) else Schema.from_arrow(schema)
    fields = json.loads(delta.to_json())["fields"]
    return {field["name"]: _text(field["type"]) for field in fields}


def _text(kind: Any) -> str:
    plain = _without_nullability(kind)
    return plain if isinstance(plain, str) else json.dumps(plain, sort_keys=True)


def _without_nullability(kind: Any) -> Any:
    if isinstance(kind, list):
        return [_without_nullability(each) for each in kind]
    if isinstance(kind, dict):
        return {
            name: _without_nullability(value)
            for name, value in kind.items()
            if name not in {"nullable", "containsNull", "valueContainsNull", "metadata"}
        }
    return kind
