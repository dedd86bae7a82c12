"""Hold the rows of a write until they are checked: in memory up to a limit, then in a temporary file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SPILL_BYTES", "RowBuffer"]

SPILL_BYTES = 64 * 2**20
"""Bytes of rows that are held in memory."""


class RowBuffer:
    """Record batches that can be read several times.

    The temporary file has no name where the system allows that, and is deleted by :meth:`close`. It is in
    the folder of `tempfile`, which `TMPDIR` sets.

    Args:
        schema: the schema of the rows.
        limit: bytes that are held in memory.
    """

    def __init__(self, schema: pa.Schema, limit: int = SPILL_BYTES) -> None:
        self.schema = schema
        self._limit = limit
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._file: Any = None
        self._writer: Any = None

    def append(self, batch: pa.RecordBatch) -> None:
        """Append rows.

        Raises:
            OSError: the temporary file cannot be written.
        """
        if self._writer is None:
            self._batches.append(batch)
            self._bytes += batch.nbytes
            if self._bytes > self._limit:
                self._spill()
        else:
            self._writer.write_batch(batch)

    def _spill(self) -> None:
        import tempfile  # noqa: PLC0415 - every observed process imports this module, few spill

        import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

        self._file = tempfile.TemporaryFile(prefix="deltawitness-")  # noqa: SIM115 - close() closes it
        self._writer = pa.ipc.new_stream(self._file, self.schema)
        for batch in self._batches:
            self._writer.write_batch(batch)
        self._batches.clear()

    def reader(self) -> pa.RecordBatchReader:
        """Return a reader of all rows; only one may be in use at a time."""
        import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

        return pa.RecordBatchReader.from_batches(self.schema, self._read())

    def _read(self) -> Iterator[pa.RecordBatch]:
        if self._writer is None:
            yield from self._batches
            return
        import pyarrow as pa  # noqa: PLC0415 - heavy, already loaded

        self._writer.close()  # writes the end of the stream; a second call does nothing
        self._file.seek(0)
        yield from pa.ipc.open_stream(self._file)

    def close(self) -> None:
        """Delete the rows."""
        self._batches.clear()
        if self._file is not None:
            self._file.close()
