"""Translate DataFusion expressions to delta-rs's SQL dialect, where both engines evaluate them alike.

delta-rs evaluates the expressions of UPDATE, DELETE and MERGE itself, from text. The translated
subset is small on purpose; the session evaluates every other expression.

Values and filters differ. A *value* is computed row by row. A *filter* is also compared with file
statistics, where delta-rs is correct only for plain comparisons: `delete("x = NULL")` deletes every
row, a NaN is outside every minimum and maximum, and a literal of a slightly different type than its
column raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from deltawitness.session.core.private_api import calls_volatile, cast_type
from deltawitness.sql_quoting import quote_identifier, quote_literal

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["NotTranslatable", "columns_in", "filter_sql", "is_volatile", "value_sql"]


class NotTranslatable(Exception):  # noqa: N818 - a result, no error: evaluate it in the session
    """The expression has no equivalent in delta-rs's SQL dialect; the session must evaluate it."""


NameColumn = Callable[[str | None, str], str]
"""Returns the SQL of a column, from its relation (as the plan prints it) and its name."""


# --- parts of expressions --------------------------------------------------------------------------


def _expression(raw: Any) -> Any:
    from datafusion.expr import Expr  # noqa: PLC0415 - heavy

    return raw if isinstance(raw, Expr) else Expr(raw)


def _decompose(raw: Any) -> tuple[str, Any]:
    """Return the kind of an expression and the engine's object with its parts.

    Raises:
        NotTranslatable: the engine has no Python class for the expression.
    """
    expression = _expression(raw)
    kind: str = expression.variant_name()
    try:
        return kind, expression.to_variant()
    except ValueError as error:
        raise NotTranslatable(kind) from error


def unaliased(raw: Any) -> Any:
    """Return an expression without its aliases."""
    kind = _expression(raw).variant_name()
    return unaliased(_expression(raw).to_variant().expr()) if kind == "Alias" else _expression(raw)


def column_name(raw: Any) -> str | None:
    """Return the name of a column expression, or None for another expression."""
    expression = unaliased(raw)
    if expression.variant_name() != "Column":
        return None
    name: str = expression.to_variant().name()
    return name


_LEAVES = frozenset({"Literal", "ScalarSubquery", "Exists", "Placeholder", "ScalarVariable"})


def columns_in(raw: Any) -> set[str] | None:
    """Return the names of the columns in an expression, except those inside subqueries.

    Returns:
        None if the engine does not return the operands of a part of the expression.
    """
    expression = unaliased(raw)
    kind = expression.variant_name()
    if kind == "Column":
        return {expression.to_variant().name()}
    if kind in _LEAVES:
        return set()
    try:
        operands = [part for part in expression.rex_call_operands() if str(part) != str(expression)]
    except Exception:  # noqa: BLE001 - the engine returns no operands for some kinds
        return None
    if kind == "Case":
        operands = _case_parts(expression.to_variant())
    elif not operands and "(" in str(expression) and not str(expression).endswith("()"):
        return None
    found: set[str] = set()
    for operand in operands:
        inside = columns_in(operand)
        if inside is None:
            return None
        found |= inside
    return found


def is_volatile(raw: Any) -> bool:
    """Return whether an expression calls a volatile function.

    Calls inside a subquery do not count, because a subquery is evaluated once.
    """
    expression = unaliased(raw)
    if expression.variant_name() == "ScalarFunction" and calls_volatile(expression):
        return True
    if expression.variant_name() in _LEAVES | {"Column"}:
        return False
    if expression.variant_name() == "Case":
        parts = _case_parts(expression.to_variant())
    else:
        try:
            parts = [p for p in expression.rex_call_operands() if str(p) != str(expression)]
        except Exception:  # noqa: BLE001 - the engine returns no operands for some kinds
            return expression.variant_name() not in {"InSubquery", "Exists"}
    return any(map(is_volatile, parts))


def _case_parts(case: Any) -> list[Any]:
    parts = [part for pair in case.when_then_expr() for part in pair]
    return [part for part in (case.expr(), *parts, case.else_expr()) if part is not None]


# --- values ------------------------------------------------------------------------------------------

_OPERATORS = {
    "=": "=",
    "!=": "<>",
    "<>": "<>",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
    "+": "+",
    "-": "-",
    "*": "*",
    "/": "/",
    "%": "%",
    "||": "||",
    "AND": "AND",
    "OR": "OR",
    "IS DISTINCT FROM": "IS DISTINCT FROM",
    "IS NOT DISTINCT FROM": "IS NOT DISTINCT FROM",
}

_SUFFIXES = {
    "IsNull": "IS NULL",
    "IsNotNull": "IS NOT NULL",
    "IsTrue": "IS TRUE",
    "IsFalse": "IS FALSE",
    "IsUnknown": "IS UNKNOWN",
    "IsNotTrue": "IS NOT TRUE",
    "IsNotFalse": "IS NOT FALSE",
    "IsNotUnknown": "IS NOT UNKNOWN",
}

_CAST_TYPES = frozenset(
    {
        "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64",
        "Float32", "Float64", "Boolean", "Utf8", "LargeUtf8", "Utf8View", "Date32",
    }
)  # fmt: skip
"""The types to which delta-rs may cast a value, by their names in `arrow_cast`."""

_VOLATILE = frozenset({"random()", "uuid()"})
"""Calls with another result for each row: only delta-rs can evaluate them for the rows it rewrites."""


def value_sql(raw: Any, column: NameColumn) -> str:
    """Translate an expression that is computed row by row.

    Args:
        raw: the expression.
        column: returns the SQL of a column.

    Raises:
        NotTranslatable: a part of the expression has no equivalent in delta-rs.
    """
    expression = unaliased(raw)
    if expression.variant_name() == "ScalarFunction":
        call = str(expression.canonical_name())
        if call in _VOLATILE:
            return call
        raise NotTranslatable(call.partition("(")[0])
    kind, parts = _decompose(expression)
    if kind in _SUFFIXES:
        return f"({value_sql(parts.expr(), column)} {_SUFFIXES[kind]})"
    write = _VALUES.get(kind)
    if write is None:
        raise NotTranslatable(kind)
    return write(expression, parts, column)


def _column(_: Any, parts: Any, column: NameColumn) -> str:
    return column(parts.relation(), parts.name())


def _literal(expression: Any, parts: Any, _: NameColumn) -> str:
    return literal_sql(expression.python_value(), parts.data_type())


def _binary(_: Any, parts: Any, column: NameColumn) -> str:
    operator = _OPERATORS.get(parts.op())
    if operator is None:
        raise NotTranslatable(parts.op())
    return f"({value_sql(parts.left(), column)} {operator} {value_sql(parts.right(), column)})"


def _not(_: Any, parts: Any, column: NameColumn) -> str:
    return f"(NOT {value_sql(parts.expr(), column)})"


def _negative(_: Any, parts: Any, column: NameColumn) -> str:
    return f"(- {value_sql(parts.expr(), column)})"


def _in_list(_: Any, parts: Any, column: NameColumn) -> str:
    members = ", ".join(value_sql(member, column) for member in parts.list())
    negation = "NOT " if parts.negated() else ""
    return f"({value_sql(parts.expr(), column)} {negation}IN ({members}))"


def _between(_: Any, parts: Any, column: NameColumn) -> str:
    negation = "NOT " if parts.negated() else ""
    low, high = value_sql(parts.low(), column), value_sql(parts.high(), column)
    return f"({value_sql(parts.expr(), column)} {negation}BETWEEN {low} AND {high})"


def _case(_: Any, parts: Any, column: NameColumn) -> str:
    base, otherwise = parts.expr(), parts.else_expr()
    words = ["CASE"] if base is None else ["CASE", value_sql(base, column)]
    for when, then in parts.when_then_expr():
        words.append(f"WHEN {value_sql(when, column)} THEN {value_sql(then, column)}")
    if otherwise is not None:
        words.append(f"ELSE {value_sql(otherwise, column)}")
    return f"({' '.join(words)} END)"


def _cast(expression: Any, parts: Any, column: NameColumn) -> str:
    inner = unaliased(parts.expr())
    if inner.variant_name() == "Literal" and inner.python_value().as_py() is None:
        return "NULL"  # it takes the type of the column that it is assigned to
    kind = cast_type(expression)
    if kind not in _CAST_TYPES:
        raise NotTranslatable(kind)
    return f"arrow_cast({value_sql(parts.expr(), column)}, '{kind}')"


_VALUES: dict[str, Callable[[Any, Any, NameColumn], str]] = {
    "Between": _between,
    "BinaryExpr": _binary,
    "Case": _case,
    "Cast": _cast,
    "Column": _column,
    "InList": _in_list,
    "Literal": _literal,
    "Negative": _negative,
    "Not": _not,
}


def literal_sql(scalar: Any, kind: str) -> str:
    """Return the SQL of a literal with the same value and the same type.

    Args:
        scalar: a pyarrow scalar.
        kind: the name of its type in DataFusion.

    Raises:
        NotTranslatable: the type has no literal that both engines evaluate alike.

    >>> import pyarrow as pa
    >>> literal_sql(pa.scalar("it's"), "Utf8")
    "'it''s'"
    """
    value: Any = scalar.as_py()
    if value is None:
        return "NULL" if kind == "Null" else _typed("NULL", kind)
    if kind in {"Int64", "Boolean"}:
        return str(value)
    if kind == "Float64" and abs(value) < float("inf"):
        return repr(value)
    if kind in {"Utf8", "Utf8View", "LargeUtf8"} and "\0" not in value:
        return quote_literal(value)
    if kind.startswith(("Int", "UInt")):
        return _typed(str(value), kind)
    if kind == "Date32":
        return _typed(f"'{value.isoformat()}'", kind)
    raise NotTranslatable(kind)


def _typed(text: str, kind: str) -> str:
    if kind not in _CAST_TYPES:
        raise NotTranslatable(kind)
    return f"arrow_cast({text}, '{kind}')"


# --- filters -----------------------------------------------------------------------------------------

_COMPARISONS = {"=": "=", "!=": "!=", "<>": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""Each comparison operator, with the operator for swapped operands."""

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

_INTEGER_RANGES = {
    f"int{bits}": (f"Int{bits}", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for bits in (8, 16, 32, 64)
}


def filter_sql(raw: Any, schema: pa.Schema) -> str:  # noqa: PLR0911 - one return per kind of expression
    """Translate a filter over the table's own columns.

    Args:
        raw: the expression.
        schema: the table's columns.

    Raises:
        NotTranslatable: it has parts other than comparisons of columns with literals of the same
            type, joined by AND, OR and NOT.
    """
    expression = unaliased(raw)
    kind, parts = _decompose(expression)
    if kind == "Not":
        return f"(NOT {filter_sql(parts.expr(), schema)})"
    if kind == "Column":
        name = parts.name()
        return f"({quote_identifier(name)} = {_literal_for(name, True, schema)})"  # noqa: FBT003 - a literal of SQL
    if kind in {"IsNull", "IsNotNull"}:
        return f"({_nullable(parts.expr(), schema)} {_SUFFIXES[kind]})"
    if kind == "InList":
        return _filter_in(parts, schema)
    if kind == "Between":
        return _filter_between(parts, schema)
    if kind != "BinaryExpr":
        raise NotTranslatable(kind)
    operator = parts.op()
    if operator in {"AND", "OR"}:
        return (
            f"({filter_sql(parts.left(), schema)} {operator} {filter_sql(parts.right(), schema)})"
        )
    return _comparison(parts.left(), operator, parts.right(), schema)


def _comparison(left: Any, operator: str, right: Any, schema: pa.Schema) -> str:
    if operator not in _COMPARISONS:
        raise NotTranslatable(operator)
    if column_name(left) is None:
        left, operator, right = right, _COMPARISONS[operator], left
    column = _comparable(left, schema)
    literal = _filter_literal(right, column_name(left), schema)
    return f"({column} {'<>' if operator in {'!=', '<>'} else operator} {literal})"


def _filter_in(parts: Any, schema: pa.Schema) -> str:
    column = _comparable(parts.expr(), schema)
    name = column_name(parts.expr())
    members = [_filter_literal(member, name, schema) for member in parts.list()]
    return f"({column} {'NOT ' if parts.negated() else ''}IN ({', '.join(members)}))"


def _filter_between(parts: Any, schema: pa.Schema) -> str:
    column = _comparable(parts.expr(), schema)
    name = column_name(parts.expr())
    low = _filter_literal(parts.low(), name, schema)
    high = _filter_literal(parts.high(), name, schema)
    inside = f"({column} >= {low} AND {column} <= {high})"
    return f"(NOT {inside})" if parts.negated() else inside


def _nullable(raw: Any, schema: pa.Schema) -> str:
    """Return the SQL of a column that is not nested, so that file statistics count its NULLs."""
    import pyarrow.types as pt  # noqa: PLC0415 - heavy, already loaded

    name = column_name(raw)
    if name is None or pt.is_nested(schema.field(name).type):
        raise NotTranslatable(_expression(raw).variant_name())
    return quote_identifier(name)


def _comparable(raw: Any, schema: pa.Schema) -> str:
    name = column_name(raw)
    if name is None:
        raise NotTranslatable(_expression(raw).variant_name())
    kind = str(schema.field(name).type)
    if kind not in _INTEGER_RANGES and kind not in {*_TEXTS, "bool", "date32[day]"}:
        raise NotTranslatable(kind)
    return quote_identifier(name)


_TEXTS = frozenset({"string", "string_view", "large_string"})


_CAST_FOR = {"date32[day]": "Date32", "string_view": "Utf8View", "string": "Utf8"}


def _filter_literal(raw: Any, name: str | None, schema: pa.Schema) -> str:
    expression = unaliased(raw)
    if name is None:
        raise NotTranslatable(expression.variant_name())
    kind, parts = _decompose(expression)
    if kind == "Cast":
        # A cast of a string literal to the type of its column: DATE '2024-01-01'.
        if _CAST_FOR.get(str(schema.field(name).type)) != cast_type(expression):
            raise NotTranslatable(kind)
        expression = unaliased(parts.expr())
        kind, parts = _decompose(expression)
    if kind != "Literal":
        raise NotTranslatable(kind)
    return _literal_for(name, expression.python_value().as_py(), schema)


def _literal_for(name: str, value: Any, schema: pa.Schema) -> str:
    """Return the SQL of a value as a literal of its column's exact type."""
    kind = str(schema.field(name).type)
    if kind in _INTEGER_RANGES and isinstance(value, int) and not isinstance(value, bool):
        type_name, low, high = _INTEGER_RANGES[kind]
        if low <= value <= high:
            return str(value) if kind == "int64" else f"arrow_cast({value}, '{type_name}')"
    elif kind == "bool" and isinstance(value, bool):
        return str(value).lower()
    elif isinstance(value, str):
        if kind in _TEXTS and "\0" not in value:
            return quote_literal(value)
        if kind == "date32[day]" and _ISO_DATE.fullmatch(value):
            return f"arrow_cast('{value}', 'Date32')"
    raise NotTranslatable(kind)


def null_safe_match(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the condition that two rows are equal in every pair of columns; NULL equals NULL.

    Args:
        pairs: SQL of the columns to compare, one of each row.
    """
    # Without the parentheses the engine's parser makes the next AND a part of the comparison.
    return " AND ".join(f"({one} IS NOT DISTINCT FROM {other})" for one, other in pairs) or "true"
