"""Compares two results column by column, independent of the order of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.table_digest import TableDigest, digest_table

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import DataFrame

__all__ = ["Comparison", "compare"]

TOLERANCE = 1e-9
"""Largest relative difference of two floats that is attributed to the order of summation."""

ROUNDING_LIMIT = 20_000_000
"""Maximum number of rows for the pairwise comparison of floats."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two results.

    Attributes:
        stored: number of rows of the stored result.
        computed: number of rows of the recomputed result.
        differing: columns with other values; empty although the results differ if each column has
            the same values but the rows combine them differently.
        rounded: float columns that differ only within `TOLERANCE`.
        is_same: whether both hold the same rows, apart from rounding.
    """

    stored: int
    computed: int
    differing: tuple[str, ...]
    rounded: tuple[str, ...]
    is_same: bool


def compare(stored: DataFrame, computed: DataFrame) -> Comparison:
    """Compare two results, independent of the order of rows.

    The sum of floats depends on the order of addition, and that on the number of threads: float
    columns that differ by at most 1e-9 relatively count as equal and are reported as rounded.

    Args:
        stored: the stored result; values are compared in its types.
        computed: the recomputed result.

    Raises:
        TypeError: a column has a type that cannot be hashed, or the columns differ.
        Exception: of the engine, when one of the results cannot be read.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy

    schema = pa.schema(unpatched(stored, "schema")()).remove_metadata()
    left, right = _digest(stored, schema), _digest(computed, schema)
    differing = _differing_columns(left, right)
    if left == right:
        return Comparison(left.rows, right.rows, (), (), is_same=True)
    floats = {field.name for field in schema if pa.types.is_floating(field.type)}
    may_be_rounded = set(differing) <= floats and left.rows == right.rows <= ROUNDING_LIMIT
    if differing and may_be_rounded and _are_close(stored, computed, schema, differing):
        return Comparison(left.rows, right.rows, (), differing, is_same=True)
    return Comparison(left.rows, right.rows, differing, (), is_same=False)


def _digest(frame: DataFrame, schema: pa.Schema) -> TableDigest:
    return digest_table(schema, _cast(frame, schema))


def _cast(frame: DataFrame, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a frame, cast to the types of the stored rows.

    Raises:
        TypeError: the frame has other columns.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy

    if unpatched(frame, "schema")().names != schema.names:
        msg = "the recomputed result has other columns"
        raise TypeError(msg)
    for batch in unpatched(frame, "execute_stream")():
        sortable = pa.Table.from_batches([batch.to_pyarrow()])
        columns = [
            column if column.type == field.type else column.cast(field.type, safe=False)
            for column, field in zip(sortable.columns, schema, strict=True)
        ]
        yield from pa.Table.from_arrays(columns, schema=_nullable(schema)).to_batches()


def _sortable(schema: pa.Schema) -> pa.Schema:
    """Replace string and binary views by large types: Arrow cannot sort views."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return pa.schema(
        [field.with_type(views.get(field.type, field.type)) for field in _nullable(schema)]
    )


def _nullable(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    return pa.schema([field.with_nullable(nullable=True) for field in schema])


def _differing_columns(left: TableDigest, right: TableDigest) -> tuple[str, ...]:
    return tuple(name for name in left.columns if left.columns[name] != right.columns[name])


def _are_close(
    stored: DataFrame, computed: DataFrame, schema: pa.Schema, rounded: tuple[str, ...]
) -> bool:
    """Return whether the rows are equal apart from small differences in the `rounded` columns."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    exact = [name for name in schema.names if name not in rounded]
    sortable = _sortable(schema)
    order = [
        (name, "ascending")
        for name in (*exact, *rounded)
        if not pa.types.is_nested(sortable.field(name).type)
    ]
    try:
        left, right = (
            pa.Table.from_batches(_cast(frame, sortable), sortable).sort_by(order)
            for frame in (stored, computed)
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False  # the rows cannot be sorted, so they cannot be paired
    if not all(left[name].equals(right[name]) for name in exact):
        return False
    for name in rounded:
        a, b = left[name].cast(pa.float64()), right[name].cast(pa.float64())
        limit = pc.multiply(pc.max_element_wise(pc.abs(a), pc.abs(b)), TOLERANCE)
        are_finite = pc.and_(pc.is_finite(a), pc.is_finite(b))
        close = pc.and_(are_finite, pc.less_equal(pc.abs(pc.subtract(a, b)), limit))
        same = pc.or_(pc.equal(a, b), pc.and_(pc.is_nan(a), pc.is_nan(b)))
        is_null = pc.and_(pc.is_null(a), pc.is_null(b))
        good = pc.or_(pc.fill_null(pc.or_(close, same), False), is_null)  # noqa: FBT003 - the signature of pyarrow
        if not pc.all(good).as_py():
            return False
    return True
