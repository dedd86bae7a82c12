"""Hashes of schemas and plans. They are the same in every process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from deltawitness.forks import importing

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["digest", "plan_hash", "plan_shape_hash", "schema_hash"]

DIGITS = 32
"""Hex digits of a hash: 128 bits."""


def digest(kind: str, text: str) -> str:
    """Return the hash of a text of a kind.

    The kind is part of the input and has a version, so that a changed text form gets other hashes.
    """
    return hashlib.sha256(f"{kind}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


# --- schemas ---------------------------------------------------------------------------------------


def schema_hash(schema: object) -> str:
    """Return the hash of a schema: of its names, order, types and nullability, without metadata.

    Args:
        schema: an object that exports an Arrow schema (`__arrow_c_schema__`), or has one as
            `.schema`: a pyarrow, arro3, polars or delta-rs schema or table, a DataFusion DataFrame.

    Raises:
        TypeError: the object exports no Arrow schema.

    >>> import pyarrow as pa
    >>> one = pa.schema([pa.field("id", pa.int64(), metadata={"note": "x"})])
    >>> schema_hash(one) == schema_hash(pa.schema([("id", pa.int64())]))
    True
    """
    try:
        arrow = _arrow_schema(schema)
    except TypeError:
        raise
    except Exception:  # noqa: BLE001 - Arrow raises its own errors for a type that pyarrow rejects
        return _hash_of_fields(_foreign_field_text(field) for field in _foreign_fields(schema))
    global _last  # noqa: PLW0603 - one value, which is replaced and not changed
    last = _last
    if last is not None and arrow.equals(last[0], check_metadata=False):
        return last[1]
    try:
        found, has_plain_types = _hash_of_schema(arrow.remove_metadata())
    except TypeError:  # pyarrow cannot hash some types, so lru_cache cannot cache them
        found, has_plain_types = _hash_of_schema.__wrapped__(arrow)
    _last = (arrow, found) if has_plain_types else None
    return found


_last: tuple[pa.Schema, str] | None = None
"""The last schema with plain types, and its hash. To compare it is faster than a lookup in a cache."""


@lru_cache(maxsize=512)
def _hash_of_schema(schema: pa.Schema) -> tuple[str, bool]:
    """Return the hash of a schema, and whether each equal schema has the same.

    Arrow takes schemas for equal that differ in some names inside of nested types.
    """
    types = _pyarrow().types
    has_plain_types = not any(
        types.is_nested(kind) or types.is_dictionary(kind) or hasattr(kind, "extension_name")
        for kind in schema.types
    )
    return _hash_of_fields(_field_text(field) for field in schema), has_plain_types


def _hash_of_fields(fields: Iterable[str]) -> str:
    return digest("schema/1", "\n".join(fields))


def _arrow_schema(source: Any) -> pa.Schema:
    pa = _pyarrow()
    if isinstance(source, pa.Schema):
        return source
    if hasattr(source, "__arrow_c_schema__"):
        return pa.schema(source)
    inner = getattr(source, "schema", None)
    if inner is not None:
        return _arrow_schema(inner() if callable(inner) else inner)
    to_arrow = getattr(source, "to_arrow", None)
    if to_arrow is not None:
        return _arrow_schema(to_arrow())
    msg = f"schema_hash: {type(source).__name__} exports no Arrow schema"
    raise TypeError(msg)


@cache
def _pyarrow() -> Any:
    """Return the module `pyarrow`, which is slow to import: it is loaded when there is a schema."""
    with importing():
        import pyarrow.types  # noqa: PLC0415 - see above

    return pyarrow


def _foreign_fields(source: Any) -> list[Any]:
    """Return the fields of a schema that pyarrow cannot import.

    pyarrow rejects a known extension type with an unexpected storage type, such as the `arrow.uuid`
    over plain binary that delta-rs stores.
    """
    inner = source
    while not hasattr(inner, "field") and getattr(inner, "schema", None) is not None:
        inner = inner.schema() if callable(inner.schema) else inner.schema
    return list(inner)


def _foreign_field_text(field: Any) -> str:
    """Return the text of a field: its storage type inside the name of its extension type."""
    import pyarrow as pa  # noqa: PLC0415 - as in _arrow_schema

    nullability = "" if field.nullable else "!"
    try:
        return _field_text(pa.field(field))
    except pa.ArrowException:
        metadata = {_text(name): _text(value) for name, value in (field.metadata or {}).items()}
    try:
        storage = _type_text(pa.field(field.with_metadata({})).type)
    except pa.ArrowException:  # the extension type is inside another type
        storage = " ".join(str(field.type).split())
    extension = metadata.get(_EXTENSION_NAME)
    kind = storage if extension is None else f"{extension}<{storage}>"
    return f"{field.name!r}:{kind}{nullability}"


_EXTENSION_NAME = "ARROW:extension:name"
"""Metadata key of a field for the name of its extension type, from the Arrow specification."""


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _field_text(field: pa.Field) -> str:
    return f"{field.name!r}:{_type_text(field.type)}{'' if field.nullable else '!'}"


def _type_text(kind: pa.DataType) -> str:  # noqa: PLR0911 - one return per kind of type
    import pyarrow.types as pt  # noqa: PLC0415 - as in _arrow_schema

    if hasattr(kind, "extension_name"):
        return f"{kind.extension_name}<{_type_text(kind.storage_type)}>"
    if pt.is_struct(kind):
        return f"struct<{','.join(_field_text(kind.field(i)) for i in range(kind.num_fields))}>"
    if pt.is_map(kind):
        order = ",sorted" if kind.keys_sorted else ""
        return f"map<{_field_text(kind.key_field)},{_field_text(kind.item_field)}{order}>"
    if pt.is_fixed_size_list(kind):
        return f"fixed_list[{kind.list_size}]<{_field_text(kind.value_field)}>"
    if pt.is_large_list(kind) or pt.is_list(kind):
        # The name of a list's element field differs between writers and means nothing.
        element = kind.value_field
        large = "large_" if pt.is_large_list(kind) else ""
        return f"{large}list<{_field_text(element.with_name('item'))}>"
    if pt.is_dictionary(kind):
        order = ",ordered" if kind.ordered else ""
        return f"dictionary<{_type_text(kind.index_type)},{_type_text(kind.value_type)}{order}>"
    return str(kind)


# --- plans -----------------------------------------------------------------------------------------

_ANONYMOUS = re.compile(r"\bc[0-9a-f]{32}\b")
_LITERALS = re.compile(
    r"""(?xsm)
    [A-Z][A-Za-z0-9]*\((?:".*?"(?=\)[\s,)\]]|\)$)|[^()"]*)(?:,[^()]*)?\)   # Utf8("..."), Int64(3)
    | "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.|'')*'                       # quoted text
    | (?<![\w.$#])-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])          # bare numbers
    """
)
_LITERAL_TYPES = re.compile(
    r"^(?:Utf8|LargeUtf8|Utf8View|U?Int(?:8|16|32|64)|Float(?:16|32|64)|Boolean|Binary|LargeBinary"
    r"|BinaryView|FixedSizeBinary|Date(?:32|64)|Time(?:32|64)\w*|Timestamp\w*|Decimal(?:32|64|128|256)"
    r"|Interval\w*|Duration\w*|List|LargeList|FixedSizeList|Struct|Map|Dictionary|NULL)$"
)


def is_anonymous(name: str) -> bool:
    """Return whether the engine has generated the name of a table, which is another one in each process.

    >>> is_anonymous("c0123456789abcdef0123456789abcdef"), is_anonymous("orders")
    (True, False)
    """
    return _ANONYMOUS.fullmatch(name) is not None


def plan_hash(frame: Any) -> str:
    """Return the hash of a DataFrame's plan, including its literals.

    Args:
        frame: a DataFusion `DataFrame`, or its `LogicalPlan`.

    The hash is made from the plan's text (`LogicalPlan.display_indent`), in which anonymous table
    names are numbered by first appearance. DataFusion prints only the first rows of a VALUES list
    and does not print the files of a scan, so plans that differ only there have the same hash. To
    distinguish them, hash the values or the files as well.

    >>> from datafusion import SessionContext
    >>> ctx = SessionContext()
    >>> plan_hash(ctx.sql("SELECT 1")) == plan_hash(ctx.sql("SELECT 2"))
    False
    """
    return hash_of_plan_text(plan_text(frame))


def plan_shape_hash(frame: Any) -> str:
    """Return the hash of a DataFrame's plan without its literals: equal for a query with other values.

    Args:
        frame: a DataFusion `DataFrame`, or its `LogicalPlan`.

    >>> from datafusion import SessionContext
    >>> ctx = SessionContext()
    >>> plan_shape_hash(ctx.sql("SELECT 1")) == plan_shape_hash(ctx.sql("SELECT 2"))
    True
    """
    return shape_hash_of_plan_text(plan_text(frame))


def hash_of_plan_text(text: str) -> str:
    """Return the hash of a plan's text (:func:`plan_text`), literals included."""
    return digest("plan/1", text)


def shape_hash_of_plan_text(text: str) -> str:
    """Return the hash of a plan's text (:func:`plan_text`) without its literals."""
    return digest("plan-shape/1", without_literals(text))


def plan_text(frame: Any) -> str:
    """Return the text of a plan for its hashes. The text has literals, so do not export it.

    Args:
        frame: a DataFusion `DataFrame`, or its `LogicalPlan`.
    """
    plan = frame.logical_plan() if hasattr(frame, "logical_plan") else frame
    numbers: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        return numbers.setdefault(match[0], f"anonymous{len(numbers)}")

    return _ANONYMOUS.sub(numbered, plan.display_indent())


def without_literals(text: str) -> str:
    """Return the text of a plan with `?` in place of each literal."""

    def masked(match: re.Match[str]) -> str:
        token = match[0]
        if token[0] in "\"'-0123456789":
            return "?"
        name = token.partition("(")[0]
        return "?" if _LITERAL_TYPES.match(name) else token

    return _LITERALS.sub(masked, text)
