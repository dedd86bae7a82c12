"""Translate Arrow filter expressions to equivalent SQL.

DataFusion converts the filters of a scan to Arrow expressions, passes them to the dataset, and does not
apply them again. Arrow evaluates some of them differently from SQL (NaN, NULL in `NOT IN`), so they are
translated back to SQL, node by node. Python has no public API for the structure of an expression; its
serialized form has a structure that does not depend on how the expression prints.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from deltawitness.sql_quoting import quote_identifier, quote_literal

__all__ = [
    "FilterCall",
    "FilterColumn",
    "FilterError",
    "FilterLiteral",
    "Node",
    "parse_filter",
    "pruning_filter",
    "to_sql",
]


class FilterError(NotImplementedError):
    """A filter that cannot be translated to SQL. The scan fails: without the filter it returns wrong rows."""


@dataclass(frozen=True, slots=True)
class FilterColumn:
    """A column of the scanned table."""

    name: str


@dataclass(frozen=True, slots=True)
class FilterLiteral:
    """A constant."""

    value: pa.Scalar


@dataclass(frozen=True, slots=True)
class FilterCall:
    """A call of an Arrow compute function.

    Attributes:
        function: the name of the function.
        arguments: the arguments.
        options: the function's options by name; empty for most functions.
    """

    function: str
    arguments: tuple[Node, ...]
    options: dict[str, Any] = field(default_factory=dict)


Node: TypeAlias = "FilterColumn | FilterLiteral | FilterCall"


# --- from Arrow ------------------------------------------------------------------------------------


def parse_filter(expression: pc.Expression | pa.Scalar) -> Node:
    """Return the structure of a filter expression.

    Args:
        expression: an Arrow expression, or a scalar, as DataFusion passes a constant filter.

    Raises:
        FilterError: the expression has parts that DataFusion's filters do not have.
    """
    if isinstance(expression, pa.Scalar):
        return FilterLiteral(expression)
    _, (content,) = expression.__reduce__()
    batch = pa.ipc.open_file(content).get_batch(0)
    entries = iter(_metadata_of(batch.schema))
    try:
        node = _parse(next(entries), entries, batch)
    except StopIteration:
        msg = "a filter that Arrow serializes in an unknown form"
        raise FilterError(msg) from None
    return node


def _parse(
    entry: tuple[str, str], entries: Iterator[tuple[str, str]], batch: pa.RecordBatch
) -> Node:
    kind, text = entry
    if kind == "field_ref":
        return FilterColumn(text)
    if kind == "literal":
        return FilterLiteral(batch.column(int(text))[0])
    if kind != "call":
        msg = f"a filter with a part of the kind {kind}"
        raise FilterError(msg)
    arguments: list[Node] = []
    options: dict[str, Any] = {}
    while (below := next(entries)) != ("end", text):
        if below[0] == "options":
            options = dict(batch.column(int(below[1]))[0])
        else:
            arguments.append(_parse(below, entries, batch))
    return FilterCall(text, tuple(arguments), options)


class _CSchema(ctypes.Structure):
    """`ArrowSchema` of the Arrow C data interface."""

    _fields_ = (
        ("format", ctypes.c_void_p),
        ("name", ctypes.c_void_p),
        ("metadata", ctypes.c_void_p),
        ("flags", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


def _metadata_of(schema: pa.Schema) -> list[tuple[str, str]]:
    """Return the metadata of a schema in order; `Schema.metadata` has each key only once."""
    exported = _CSchema()
    address = ctypes.addressof(exported)
    schema._export_to_c(address)  # noqa: SLF001 - documented for the C data interface
    try:
        return list(_decode_metadata(exported.metadata))
    finally:
        pa.Schema._import_from_c(address)  # noqa: SLF001 - imports the export again, which frees it


def _decode_metadata(address: int | None) -> Iterator[tuple[str, str]]:
    if address is None:
        return
    at = address

    def number() -> int:
        nonlocal at
        value = ctypes.c_int32.from_address(at).value
        at += 4
        return value

    def text() -> str:
        nonlocal at
        length = number()
        content = ctypes.string_at(at, length)
        at += length
        return content.decode()

    for _ in range(number()):
        yield text(), text()


# --- to SQL ----------------------------------------------------------------------------------------

_COMPARISONS = {
    "equal": "=",
    "not_equal": "<>",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
_CONNECTIVES = {"and_kleene": "AND", "or_kleene": "OR"}
_SUFFIXES = {"is_null": "IS NULL", "is_valid": "IS NOT NULL"}


def to_sql(node: Node) -> str:
    """Return a node as SQL in DataFusion's dialect, with the meaning of the original SQL filter.

    Raises:
        FilterError: the node cannot be translated.
    """
    match node:
        case FilterColumn(name):
            return quote_identifier(name)
        case FilterLiteral(value):
            return _literal_sql(value)
        case FilterCall("invert", (operand,)):
            return f"(NOT {to_sql(operand)})"
        case FilterCall("is_in", (operand,), options):
            members = ", ".join(_literal_sql(each) for each in options["value_set"].values)
            return f"({to_sql(operand)} IN ({members}))" if members else "false"
        case FilterCall(function, (operand,)) if function in _SUFFIXES:
            return f"({to_sql(operand)} {_SUFFIXES[function]})"
        case FilterCall(function, (left, right)) if function in _COMPARISONS | _CONNECTIVES:
            operator = (_COMPARISONS | _CONNECTIVES)[function]
            return f"({to_sql(left)} {operator} {to_sql(right)})"
    msg = f"a filter with the function {node.function}"
    raise FilterError(msg)


def _literal_sql(value: pa.Scalar) -> str:
    """Return a constant as SQL with its exact type."""
    if _is_nested(value.type):
        return _value_sql(value)  # its members have casts to their types
    return f"arrow_cast({_value_sql(value)}, {quote_literal(_type_name(value.type))})"


def _value_sql(value: pa.Scalar) -> str:
    """Return a constant as SQL whose cast to the constant's type has its exact value."""
    if not value.is_valid:
        return "NULL"
    spell = next((spell for is_of, spell in _SPELLINGS if is_of(value.type)), None)
    if spell is None:
        msg = f"a filter with a constant of the type {value.type}"
        raise FilterError(msg)
    return spell(value)


def _array_sql(members: Iterable[pa.Scalar]) -> str:
    return f"make_array({', '.join(map(_literal_sql, members))})"


def _struct_sql(value: pa.Scalar) -> str:
    members = ", ".join(
        f"{quote_literal(each.name)}, {_literal_sql(value[at])}"
        for at, each in enumerate(value.type)
    )
    return f"named_struct({members})"


def _map_sql(value: pa.Scalar) -> str:
    entries = list(value.values)
    keys, items = (_array_sql(each[part] for each in entries) for part in ("key", "value"))
    return f"map({keys}, {items})"


def _float_sql(value: float) -> str:
    if math.isnan(value):
        # SQL can express only these two bit patterns, and DataFusion compares NaN values by their bits.
        signs = {0x7FF8 << 48: "", 0xFFF8 << 48: "-"}
        (bits,) = struct.unpack(">Q", struct.pack(">d", value))
        if bits not in signs:
            msg = "a filter with a NaN of unusual bits"
            raise FilterError(msg)
        return f"{signs[bits]}arrow_cast('NaN', 'Float64')"
    return quote_literal(repr(value))


def _type_name(kind: pa.DataType) -> str:
    """Return the name of a type for `arrow_cast`.

    Raises:
        FilterError: Delta tables have no such type.
    """
    if (simple := _SIMPLE_TYPES.get(str(kind))) is not None:
        return simple
    if pa.types.is_timestamp(kind):
        unit = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}[
            kind.unit
        ]
        zone = "None" if kind.tz is None else f'Some("{kind.tz}")'
        return f"Timestamp({unit}, {zone})"
    if pa.types.is_decimal128(kind):
        return f"Decimal128({kind.precision}, {kind.scale})"
    msg = f"a filter with a constant of the type {kind}"
    raise FilterError(msg)


_SIMPLE_TYPES = {
    "null": "Null",
    "bool": "Boolean",
    **{
        f"{sign}int{bits}": f"{sign.upper()}Int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
    "float": "Float32",
    "double": "Float64",
    "string": "Utf8",
    "large_string": "LargeUtf8",
    "string_view": "Utf8View",
    "binary": "Binary",
    "large_binary": "LargeBinary",
    "binary_view": "BinaryView",
    "date32[day]": "Date32",
}


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


_SPELLINGS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], str]], ...] = (
    (pa.types.is_boolean, lambda value: str(value.as_py()).lower()),
    (pa.types.is_integer, lambda value: quote_literal(str(value.as_py()))),
    (pa.types.is_floating, lambda value: _float_sql(value.as_py())),
    (pa.types.is_decimal, lambda value: quote_literal(format(value.as_py(), "f"))),
    (_is_text, lambda value: quote_literal(value.as_py())),
    (_is_binary, lambda value: f"X'{value.as_py().hex()}'"),
    (pa.types.is_date32, lambda value: f"arrow_cast({value.value}, 'Int32')"),
    (
        pa.types.is_timestamp,
        lambda value: f"arrow_cast({quote_literal(str(value.value))}, 'Int64')",
    ),
    (pa.types.is_struct, _struct_sql),
    (pa.types.is_map, _map_sql),
    (pa.types.is_list, lambda value: _array_sql(value.values)),
)
"""Pairs of a type test and a function that returns the SQL of a constant; the first match is used."""


# --- file skipping --------------------------------------------------------------------------------


def pruning_filter(node: Node, schema: pa.Schema) -> str | None:
    """Return SQL that is true for every row for which a filter is true, safe for skipping files.

    It has comparisons of integers, dates, text and booleans with constants that are not NULL, joined
    by AND and OR. Floats, decimals and timestamps are left out, because file statistics ignore NaN and
    truncate timestamps; so are negations and tests for NULL.

    Args:
        node: the filter.
        schema: the table's columns.

    Returns:
        None if no part of the filter can be used.
    """
    match node:
        case FilterCall("and_kleene", (left, right)):
            parts = [pruning_filter(each, schema) for each in (left, right)]
            return " AND ".join(part for part in parts if part is not None) or None
        case FilterCall("or_kleene", (left, right)):
            first, second = (pruning_filter(each, schema) for each in (left, right))
            return None if first is None or second is None else f"(({first}) OR ({second}))"
        case FilterCall(function, (left, right)) if function in _ORDERED:
            is_comparable = _is_prunable(left, schema) and _is_constant(right)
            return to_sql(node) if is_comparable else None
        case FilterCall("is_in", (operand,), options):
            has_null = any(not each.is_valid for each in options["value_set"].values)
            return to_sql(node) if _is_prunable(operand, schema) and not has_null else None
        case FilterColumn() | FilterCall("invert", (FilterColumn(),)):
            column = node if isinstance(node, FilterColumn) else node.arguments[0]
            return to_sql(node) if _is_prunable(column, schema) else None
    return None


_ORDERED = frozenset({"equal", "less", "less_equal", "greater", "greater_equal"})


def _is_prunable(node: Node, schema: pa.Schema) -> bool:
    if not isinstance(node, FilterColumn):
        return False
    kind = schema.field(node.name).type
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_date32(kind)
        or pa.types.is_boolean(kind)
        or _is_text(kind)
    )


def _is_constant(node: Node) -> bool:
    return isinstance(node, FilterLiteral) and node.value.is_valid
