"""Content hashes of tables in row order, independent of batch sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TooLargeError", "content_hash"]


class TooLargeError(Exception):
    """The content is larger than the limit."""


def content_hash(batches: Iterable[pa.RecordBatch], *, limit: int | None = None) -> str:
    """Return a hash of rows in their order, with types and column names.

    Args:
        batches: the rows.
        limit: maximum size in bytes; None: no limit.

    Raises:
        TooLargeError: the rows are larger than the limit.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy, and loaded already

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
    digest.update(b"\0%d\0" % rows)  # rows without columns have no other content
    if parts:
        # Batch sizes depend on the settings of the engine: combine all batches first.
        table = pa.Table.from_batches(parts).combine_chunks()
        for batch in table.to_batches():
            digest.update(_as_bytes(batch))
    return digest.hexdigest()[:32]


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Cast string and binary views to large types, because views of few rows share large buffers."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and loaded already

    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    schema = pa.schema(
        [field.with_type(plain.get(field.type, field.type)) for field in batch.schema]
    )
    return batch.replace_schema_metadata(None).cast(schema.remove_metadata())


def _as_bytes(batch: pa.RecordBatch) -> pa.Buffer:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and loaded already

    # IPC copies only the slice of each buffer, and its padding is deterministic.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()
