"""Hashes of what is in a table, whatever order its rows come in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TooLarge", "content_hash"]


class TooLarge(Exception):  # noqa: N818 - an answer, caught where it is asked for
    """There is more of it than is to be looked at."""


def content_hash(batches: Iterable[pa.RecordBatch], *, limit: int | None = None) -> str:
    """Return a hash of rows in the order in which they come, types and names included.

    Args:
        batches: the rows.
        limit: bytes that are looked at.

    Raises:
        TooLarge: there is more than the limit.
    """
    digest = hashlib.sha256(b"content/1\0")
    seen = 0
    for batch in batches:
        seen += batch.nbytes
        if limit is not None and seen > limit:
            raise TooLarge
        for part in _parts(batch):
            digest.update(part)
    return digest.hexdigest()[:32]


def _parts(batch: pa.RecordBatch) -> Iterator[bytes]:
    import pyarrow as pa  # noqa: PLC0415 - heavy, and there already

    # Through IPC a slice is cut out of its buffers, and padding is what it always is.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema.remove_metadata()) as writer:
        writer.write_batch(batch.replace_schema_metadata(None))
    yield sink.getvalue()
