"""Hashes of what is in a table, however its rows are cut into batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TooLargeError", "content_hash"]


class TooLargeError(Exception):
    """There is more of it than is to be looked at."""


def content_hash(batches: Iterable[pa.RecordBatch], *, limit: int | None = None) -> str:
    """Return a hash of rows in the order in which they come, types and names included.

    Args:
        batches: the rows.
        limit: bytes that are looked at.

    Raises:
        TooLarge: there is more than the limit.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy, and there already

    digest = hashlib.sha256(b"content/2\0")
    parts: list[pa.RecordBatch] = []
    seen = rows = 0
    for batch in batches:
        part = _without_views(batch)
        seen += part.nbytes
        if limit is not None and seen > limit:
            raise TooLargeError
        if not parts:
            digest.update(str(batch.schema.remove_metadata()).encode("utf-8", "surrogatepass"))
        parts.append(part)
        rows += batch.num_rows
    digest.update(b"\0%d\0" % rows)  # which is all there is of rows without columns
    if parts:
        # How an engine cuts rows into batches depends on its settings: they are put together again.
        whole = pa.Table.from_batches(parts).combine_chunks()
        for batch in whole.to_batches():
            digest.update(_as_bytes(batch))
    return digest.hexdigest()[:32]


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows whose texts are theirs alone: views share buffers, however few rows they are of."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and there already

    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    schema = pa.schema(
        [field.with_type(plain.get(field.type, field.type)) for field in batch.schema]
    )
    return batch.replace_schema_metadata(None).cast(schema.remove_metadata())


def _as_bytes(batch: pa.RecordBatch) -> pa.Buffer:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and there already

    # Through IPC a slice is cut out of its buffers, and padding is what it always is.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()
