"""Compare the schemas of the parts with each other and with the table, before any commit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from deltawitness.distributed.staging import StagedPart

__all__ = ["merged_schema", "new_columns"]

Field = dict[str, Any]


def merged_schema(
    staged: Sequence[StagedPart], given: str | None, *, may_differ: bool
) -> str | None:
    """Return the schema of all parts as Delta JSON; None if there is no part and no other schema.

    Args:
        staged: the parts.
        given: the schema of parts that have none themselves.
        may_differ: whether parts may lack columns of other parts, which are then null.

    Raises:
        SchemaMismatchError: the schemas do not fit together.
    """
    columns: dict[str, Field] = {}
    first: StagedPart | None = None
    for part in sorted(staged, key=lambda each: each.number):
        fields = _fields(part.schema or given)
        for column in fields:
            known = columns.get(column["name"])
            if known is None:
                if first is not None and not may_differ:
                    _refuse(part, f"column {column['name']!r} is not in part {first.number}")
                columns[column["name"]] = {
                    **column,
                    "nullable": first is not None or column["nullable"],
                }
                continue
            _check_type(part, column, known)
            columns[column["name"]] = _united(known, column)
        _add_missing(part, columns, fields, may_differ=may_differ)
        first = first or part
    if first is None:
        return given
    return json.dumps({"type": "struct", "fields": list(columns.values())})


def _add_missing(
    part: StagedPart, columns: dict[str, Field], fields: Iterable[Field], *, may_differ: bool
) -> None:
    """Make the columns nullable that a part lacks."""
    names = {column["name"] for column in fields}
    for name, column in columns.items():
        if name not in names:
            if not may_differ:
                _refuse(part, f"column {name!r} is missing")
            column["nullable"] = True


def _check_type(part: StagedPart, column: Field, known: Field) -> None:
    if _plain(column["type"]) != _plain(known["type"]):
        found, expected = (_named(each["type"]) for each in (column, known))
        _refuse(part, f"column {column['name']!r} is {found}, in other parts {expected}")


def _plain(kind: Any) -> Any:
    """Return a Delta type without the metadata of nested fields and without what may be null."""
    if not isinstance(kind, dict):
        return kind
    if kind["type"] == "struct":
        return [(field["name"], _plain(field["type"])) for field in kind["fields"]]
    return {name: _plain(value) for name, value in kind.items() if not name.endswith("ontainsNull")}


def _united(known: Field, column: Field) -> Field:
    """Return a field that may be null wherever one of two fields of one type may be."""
    is_nullable = known["nullable"] or column["nullable"]
    return {
        **known,
        "type": _united_type(known["type"], column["type"]),
        "nullable": is_nullable,
    }


def _united_type(known: Any, kind: Any) -> Any:
    if not isinstance(known, dict):
        return known
    if known["type"] == "struct":
        pairs = zip(known["fields"], kind["fields"], strict=True)
        return {**known, "fields": [_united(*pair) for pair in pairs]}
    return {
        name: value or kind[name]
        if name.endswith("ontainsNull")
        else _united_type(value, kind[name])
        for name, value in known.items()
    }


def _named(kind: Any) -> str:
    return kind if isinstance(kind, str) else str(kind["type"])


def new_columns(staged: Sequence[StagedPart], schema: str) -> tuple[int, str] | None:
    """Return the number of a part and the name of its first column that a schema lacks; None without one."""
    names = {column["name"] for column in _fields(schema)}
    for part in staged:
        for column in _fields(part.schema):
            if column["name"] not in names:
                return part.number, column["name"]
    return None


def _fields(schema: str | None) -> list[Field]:
    return [] if schema is None else json.loads(schema)["fields"]


def _refuse(part: StagedPart, reason: str) -> NoReturn:
    from deltalake.exceptions import SchemaMismatchError  # noqa: PLC0415 - heavy

    msg = f"part {part.number}: {reason}; nothing was committed"
    raise SchemaMismatchError(msg)
