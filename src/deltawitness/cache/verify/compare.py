"""Whether two results hold the same rows, column by column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deltawitness.cache.fingerprint.table_digest import TableDigest, digest_table
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame

__all__ = ["Comparison", "compare"]

TOLERANCE = 1e-9
"""How far two floats may lie apart, relative to the larger, that differ by the order of a sum alone."""

ROUNDING_LIMIT = 20_000_000
"""Rows of which floats are held against each other one by one."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two results compare.

    Attributes:
        kept: rows of the one.
        now: rows of the other.
        differing: columns that hold other values; with none named although the results differ, the
            values stand beside each other in another way.
        rounded: columns of floats that differ by no more than the order in which they were summed.
        is_same: whether they hold the same rows, but for what is rounded.
    """

    kept: int
    now: int
    differing: tuple[str, ...]
    rounded: tuple[str, ...]
    is_same: bool


def compare(kept: DataFrame, now: DataFrame) -> Comparison:
    """Return how two results compare, whatever order their rows come in.

    A sum of floats depends on the order in which an engine adds, and that on how many threads it
    has: columns of floats that differ by a billionth at most are the same, and said to be rounded.

    Args:
        kept: the one, whose types are those to compare in.
        now: the other.

    Raises:
        TypeError: a column is of a type whose values cannot be told.
        Exception: the engine's, when one of them cannot be read.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy

    schema = pa.schema(unpatched(kept, "schema")()).remove_metadata()
    one, other = _digest(kept, schema), _digest(now, schema)
    differing = _differing(one, other)
    if one == other:
        return Comparison(one.rows, other.rows, (), (), is_same=True)
    floats = {field.name for field in schema if pa.types.is_floating(field.type)}
    may_be_rounded = set(differing) <= floats and one.rows == other.rows <= ROUNDING_LIMIT
    if differing and may_be_rounded and _are_close(kept, now, schema, differing):
        return Comparison(one.rows, other.rows, (), differing, is_same=True)
    return Comparison(one.rows, other.rows, differing, (), is_same=False)


def _digest(frame: DataFrame, schema: pa.Schema) -> TableDigest:
    return digest_table(schema, _cast(frame, schema))


def _cast(frame: DataFrame, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a frame with the columns and types that its rows are kept with.

    Raises:
        TypeError: it has other columns.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy

    if unpatched(frame, "schema")().names != schema.names:
        msg = "it would have other columns now"
        raise TypeError(msg)
    for batch in unpatched(frame, "execute_stream")():
        plain = pa.Table.from_batches([batch.to_pyarrow()])
        columns = [
            column if column.type == field.type else column.cast(field.type, safe=False)
            for column, field in zip(plain.columns, schema, strict=True)
        ]
        yield from pa.Table.from_arrays(columns, schema=_nullable(schema)).to_batches()


def _sortable(schema: pa.Schema) -> pa.Schema:
    """Return a schema without views, which Arrow's own functions do not sort."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return pa.schema(
        [field.with_type(views.get(field.type, field.type)) for field in _nullable(schema)]
    )


def _nullable(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    return pa.schema([field.with_nullable(nullable=True) for field in schema])


def _differing(one: TableDigest, other: TableDigest) -> tuple[str, ...]:
    return tuple(name for name in one.columns if one.columns[name] != other.columns[name])


def _are_close(
    kept: DataFrame, now: DataFrame, schema: pa.Schema, rounded: tuple[str, ...]
) -> bool:
    """Tell whether the rows are the same, but for small differences in some columns of floats."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    exact = [name for name in schema.names if name not in rounded]
    plain = _sortable(schema)
    order = [
        (name, "ascending")
        for name in (*exact, *rounded)
        if not pa.types.is_nested(plain.field(name).type)
    ]
    try:
        one, other = (
            pa.Table.from_batches(_cast(frame, plain), plain).sort_by(order)
            for frame in (kept, now)
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False  # nothing tells which row belongs to which
    if not all(one[name].equals(other[name]) for name in exact):
        return False
    for name in rounded:
        a, b = one[name].cast(pa.float64()), other[name].cast(pa.float64())
        limit = pc.multiply(pc.max_element_wise(pc.abs(a), pc.abs(b)), TOLERANCE)
        are_finite = pc.and_(pc.is_finite(a), pc.is_finite(b))
        close = pc.and_(are_finite, pc.less_equal(pc.abs(pc.subtract(a, b)), limit))
        same = pc.or_(pc.equal(a, b), pc.and_(pc.is_nan(a), pc.is_nan(b)))
        is_null = pc.and_(pc.is_null(a), pc.is_null(b))
        good = pc.or_(pc.fill_null(pc.or_(close, same), False), is_null)  # noqa: FBT003 - as the engine has it
        if not pc.all(good).as_py():
            return False
    return True
