"""Order-independent 256-bit content digest of a table.

Per column: the sum, modulo 2^64 in each of four lanes, of the 256-bit hashes of its values; the sum
changes when a value is changed, missing or repeated. The same sum over the hashes of rows shows
whether the values are combined into the same rows.

Which values are equal:

- NULL equals only NULL, at every depth: not an empty text, an empty list, a struct of NULLs or NaN;
- all NaNs are equal, with any bits; -0.0 equals 0.0; the infinities equal themselves;
- integers are equal by value in all widths, and so are floats; uint64 is a separate kind;
- decimals are equal by their digits at their scale;
- timestamps are equal by their microseconds; having a time zone matters, which one does not;
  timestamps in nanoseconds are a separate kind, and so is each unit of times and durations;
- text and binary are equal by their bytes, but text never equals binary; a dictionary equals its
  decoded values;
- lists are equal by their members in order, maps by their entries in order, structs by their fields
  in order, with any field names.

Column names count, column order does not.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TableDigest", "digest_table"]

C = TypeVar("C")
T = TypeVar("T")

CHUNK_ROWS = 1 << 18
"""Rows per chunk: large enough to amortize calls, small enough for memory."""

THREADS = 4
"""Number of chunks that are hashed in parallel."""

_WIDTH = 32
_LANES = 4
_MODULUS = 1 << 64
_NULL = hashlib.sha256(b"census/1 null").digest()


@dataclass(frozen=True, slots=True)
class TableDigest:
    """The content digest of a table.

    Attributes:
        rows: number of rows.
        columns: a hash per column, in column order.
        rows_hash: hash over the rows, independent of their order.
    """

    rows: int
    columns: dict[str, str]
    rows_hash: str

    @property
    def hash(self) -> str:
        """A hash of all fields."""
        columns = [part for column in sorted(self.columns.items()) for part in column]
        return _digest("census/1", str(self.rows), self.rows_hash, *columns)


def digest_table(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> TableDigest:
    """Return the content digest of a table, independent of the order of rows.

    Args:
        schema: schema of the batches.
        batches: the rows.

    Raises:
        TypeError: a column has a type that cannot be hashed.

    >>> import pyarrow as pa
    >>> one = pa.table({"id": [1, 2, 2], "name": ["a", "b", None]})
    >>> other = one.take([2, 0, 1]).select(["name", "id"])
    >>> digest_table(one.schema, one.to_batches()).hash == digest_table(
    ...     other.schema, other.to_batches()
    ... ).hash
    True
    """
    names = [field.name for field in schema]
    kinds = [_kind(field.type) for field in schema]
    by_name = sorted(range(len(names)), key=names.__getitem__)
    rows, sums = 0, [[0] * _LANES for _ in range(len(names) + 1)]
    with ThreadPoolExecutor(THREADS, "deltawitness-census") as pool:
        for count, found in _in_parallel(pool, partial(_sums, by_name), _chunks(batches)):
            rows += count
            sums = [
                [(old + new) % _MODULUS for old, new in zip(lanes, more, strict=True)]
                for lanes, more in zip(sums, found, strict=True)
            ]
    columns = {
        name: _digest("column/1", kind, *map(str, [rows, *lanes]))
        for name, kind, lanes in zip(names, kinds, sums[:-1], strict=True)
    }
    return TableDigest(rows, columns, _digest("rows/1", *map(str, [rows, *sums[-1]])))


def _digest(*parts: str) -> str:
    text = "\0".join(parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


# --- chunks ----------------------------------------------------------------------------------------------


def _chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Yield the rows in chunks of `CHUNK_ROWS`: engines return thousands of small batches."""
    chunk: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        for start in range(0, batch.num_rows, CHUNK_ROWS):
            part = batch.slice(start, CHUNK_ROWS)
            chunk.append(part)
            rows += part.num_rows
            if rows >= CHUNK_ROWS:
                yield chunk
                chunk, rows = [], 0
    if chunk:
        yield chunk


def _in_parallel(
    pool: ThreadPoolExecutor, act: Callable[[C], T], chunks: Iterable[C]
) -> Iterator[T]:
    """Yield the result of each chunk in order; reads at most `THREADS` chunks ahead."""
    waiting: deque[Future[T]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(act, chunk))
        if len(waiting) > THREADS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _sums(by_name: list[int], chunk: list[pa.RecordBatch]) -> tuple[int, list[list[int]]]:
    """Return how many rows a chunk has, and the sums of each of its columns and of its rows."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    table = pa.Table.from_batches(chunk)
    hashes = [_hash_values(_contiguous(column)) for column in table.columns]
    rows = _hash_rows([hashes[at] for at in by_name], table.num_rows)
    return table.num_rows, [_lane_sums(each) for each in (*hashes, rows)]


def _contiguous(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def _lane_sums(hashes: pa.Array) -> list[int]:
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    count = len(hashes)
    if not count:
        return [0] * _LANES
    words = pa.Array.from_buffers(pa.uint64(), count * _LANES, [None, hashes.buffers()[1]])
    lanes = pa.FixedSizeListArray.from_arrays(words, _LANES)
    # Arrow sums of uint64 wrap around: this is the sum modulo 2^64.
    return [pc.sum(pc.list_element(lanes, lane)).as_py() for lane in range(_LANES)]


# --- hashes of values --------------------------------------------------------------------------------------


def _hash_values(values: pa.Array) -> pa.Array:
    """Return the hash of each value, as fixed-size binary without NULLs."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return _hash_values(values.storage)
    if pt.is_dictionary(kind):
        return _hash_values(values.dictionary_decode())
    if pt.is_struct(kind):
        fields = [_hash_values(field) for field in values.flatten()]
        return _fill_null_hash(_hash_rows(fields, len(values)), values)
    if pt.is_map(kind):
        entries = pa.struct([("key", kind.key_type), ("value", kind.item_type)])
        return _hash_values(values.cast(pa.list_(entries)))
    if pt.is_nested(kind):
        return _hash_lists(values)
    return _fill_null_hash(_sha256(_to_bytes(values)), values)


def _hash_lists(lists: pa.Array) -> pa.Array:
    """Return the hash of each list: the hash of its members' concatenated hashes."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    members = _hash_values(lists.flatten())
    lengths = pc.list_value_length(lists).cast(pa.int64()).fill_null(0)
    ends = pc.multiply(pc.cumulative_sum(lengths), _WIDTH)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    joined = pa.Array.from_buffers(
        pa.large_binary(), len(lists), [None, offsets.buffers()[1], members.buffers()[1]]
    )
    return _fill_null_hash(_sha256(joined), lists)


def _hash_rows(hashes: list[pa.Array], count: int) -> pa.Array:
    """Return the hash of each row: the hash of its values' concatenated hashes."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    if not hashes:
        return _sha256(pa.array([b""] * count, pa.large_binary()))
    parts = [each.cast(pa.large_binary()) for each in hashes]
    return _sha256(pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.large_binary())))


def _fill_null_hash(hashes: pa.Array, values: pa.Array) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy

    if not values.null_count:
        return hashes
    return pc.if_else(values.is_valid(), hashes, pa.scalar(_NULL, pa.binary(_WIDTH)))


def _sha256(content: pa.Array) -> pa.Array:
    """Return the SHA-256 of each value; that of a NULL is undefined.

    Uses the engine's function: it hashes ten million values per second.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy
    from datafusion import SessionConfig, SessionContext, col  # noqa: PLC0415 - heavy
    from datafusion import functions as f  # noqa: PLC0415 - heavy

    # A separate session: its memory is freed with it.
    ctx = SessionContext(SessionConfig().with_batch_size(max(1, len(content))))
    filled = content.fill_null(b"") if content.null_count else content
    frame = unpatched(ctx, "from_arrow")(pa.table({"content": filled}))
    hashed = unpatched(frame, "select")(f.sha256(col("content")).alias("hash"))
    found = [batch.column(0) for batch in unpatched(hashed, "collect")()]
    hashes = pa.concat_arrays(found) if found else pa.array([], pa.binary())
    return hashes.cast(pa.binary(_WIDTH))


# --- values as bytes -----------------------------------------------------------------------------------------


def _to_bytes(values: pa.Array) -> pa.Array:
    """Return values as their canonical bytes."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    kind = values.type
    wide = pa.large_binary()
    if pt.is_null(kind):
        return pa.array([b""] * len(values), wide)
    if pt.is_large_string(kind) or pt.is_large_binary(kind):
        return values.cast(wide)
    if pt.is_string(kind) or pt.is_string_view(kind):
        return values.cast(pa.large_string()).cast(wide)
    if pt.is_binary(kind) or pt.is_binary_view(kind) or pt.is_fixed_size_binary(kind):
        return values.cast(wide)
    return _fixed_width_bytes(values).cast(wide)


def _fixed_width_bytes(values: pa.Array) -> pa.Array:  # noqa: PLR0911 - one return per kind of type
    """Return values of a fixed width as fixed-size binary."""
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.compute as pc  # noqa: PLC0415 - heavy
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    kind = values.type
    if pt.is_floating(kind):
        wide = values.cast(pa.float64())
        one_nan = pc.if_else(pc.is_nan(wide), pa.scalar(float("nan")), wide)
        return pc.add(one_nan, 0.0).view(pa.binary(8))  # -0.0 becomes 0.0
    if pt.is_decimal256(kind):
        return values.view(pa.binary(32))
    if pt.is_decimal(kind):
        return values.cast(pa.decimal128(38, kind.scale)).view(pa.binary(16))
    if kind == pa.month_day_nano_interval():
        return values.view(pa.binary(16))
    if pt.is_boolean(kind):
        return values.cast(pa.int64()).view(pa.binary(8))
    if pt.is_uint64(kind):
        return values.view(pa.binary(8))
    if pt.is_date(kind):
        return values.cast(pa.date32()).view(pa.int32()).cast(pa.int64()).view(pa.binary(8))
    if pt.is_time32(kind):
        return values.view(pa.int32()).cast(pa.int64()).view(pa.binary(8))
    if pt.is_timestamp(kind) and kind.unit != "ns":
        values = values.cast(pa.timestamp("us", kind.tz))
    return values.cast(pa.int64()).view(pa.binary(8))


def _kind(kind: pa.DataType) -> str:  # noqa: C901, PLR0911 - one return per kind of type
    """Return the kind of a type; values of different kinds are never equal.

    Raises:
        TypeError: the type cannot be hashed.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy
    import pyarrow.types as pt  # noqa: PLC0415 - heavy

    if isinstance(kind, pa.BaseExtensionType):
        return _kind(kind.storage_type)
    if pt.is_dictionary(kind):
        return _kind(kind.value_type)
    if pt.is_struct(kind):
        return f"struct<{','.join(_kind(kind.field(at).type) for at in range(kind.num_fields))}>"
    if pt.is_map(kind):
        return f"map<{_kind(kind.key_type)},{_kind(kind.item_type)}>"
    if pt.is_nested(kind) and hasattr(kind, "value_type"):
        return f"list<{_kind(kind.value_type)}>"
    if pt.is_integer(kind):
        return "uint64" if pt.is_uint64(kind) else "integer"
    if pt.is_decimal(kind):
        return f"decimal{'256' if pt.is_decimal256(kind) else ''}({kind.scale})"
    if pt.is_timestamp(kind):
        unit = " in nanoseconds" if kind.unit == "ns" else ""
        return f"timestamp{unit}{'' if kind.tz is None else ' with a zone'}"
    if pt.is_time(kind) or pt.is_duration(kind):
        return f"{kind}"
    for name, is_it in _PLAIN_KINDS:
        if any(getattr(pt, f"is_{each}")(kind) for each in is_it):
            return name
    if kind == pa.month_day_nano_interval():
        return "interval"
    msg = f"cannot hash columns of type {kind}"
    raise TypeError(msg)


_PLAIN_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("null", ("null",)),
    ("boolean", ("boolean",)),
    ("float", ("floating",)),
    ("date", ("date",)),
    ("text", ("string", "large_string", "string_view")),
    ("binary", ("binary", "large_binary", "binary_view", "fixed_size_binary")),
)
