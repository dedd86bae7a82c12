"""`WritePipeline`: execute write requests with DataFusion and delta-rs, streaming the rows."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deltawitness.commit.receipts import with_receipt_id
from deltawitness.delta_rs.handle_cache import HandleCache
from deltawitness.delta_rs.receipts import receipt_of_creation, receipt_of_handle
from deltawitness.exceptions import WriteRequestError
from deltawitness.ids_and_clock import new_id
from deltawitness.observe.write_watch import has_quarantined, watch_writes
from deltawitness.pipeline.file_writer import write_files
from deltawitness.pipeline.request import WriteFormat, WriteMode, WriteRequest, WriteResult

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import SessionContext
    from deltalake import CommitProperties, DeltaTable

__all__ = ["WriteFormat", "WriteMode", "WritePipeline", "WriteRequest", "WriteResult"]


class WritePipeline:
    """Executes write requests.

    The source is not collected: the engine reads it as an Arrow stream.

    Args:
        ctx: runs sources that are SQL text; not needed for other sources.
        reuse_handles: cache open Delta tables between writes; each write still uses the newest version.

    >>> import pyarrow as pa, tempfile
    >>> from deltawitness import WriteRequest
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = pa.table({"x": [1, 2]})
    ...     WritePipeline().write(WriteRequest(source=data, destination=f"{folder}/t")).version
    0
    """

    def __init__(self, ctx: SessionContext | None = None, *, reuse_handles: bool = True) -> None:
        self._ctx = ctx
        self._handles = HandleCache() if reuse_handles else None

    def write(self, request: WriteRequest) -> WriteResult:
        """Execute one request.

        Raises:
            WriteRequestError: the request is invalid; nothing was written.
            FileExistsError: the target is a directory of files that exists, and the mode is `error`.
        """
        source = self.source_of(request)
        if request.format is WriteFormat.DELTA:
            return self._write_delta(request, source)
        rows = _Counter()
        files = write_files(request, rows.count_rows(_reader(source)))
        return WriteResult(
            format=request.format,
            mode=request.mode,
            rows=None if files is None else rows.count,
            files=files,
            skipped=files is None,
        )

    def source_of(self, request: WriteRequest) -> Any:
        """Return the source of the request's rows as an object that exports Arrow data.

        SQL text is planned, a dataset becomes a reader, and any other source is returned unchanged.

        Raises:
            WriteRequestError: the source is SQL text and the pipeline has no session context, or it
                exports no Arrow data.
        """
        source = request.source
        if isinstance(source, str):
            if self._ctx is None:
                msg = "source: SQL text needs a pipeline with a session context"
                raise WriteRequestError(msg)
            return self._ctx.sql(source)
        if any(hasattr(source, name) for name in _EXPORTS) or isinstance(source, Sequence):
            return source
        scanner = getattr(source, "scanner", None)
        if scanner is not None:
            return scanner().to_reader()
        msg = f"source: {type(source).__name__} exports no Arrow data"
        raise WriteRequestError(msg)

    def _write_delta(self, request: WriteRequest, source: Any) -> WriteResult:
        from deltalake import write_deltalake  # noqa: PLC0415 - heavy

        with self._table(request) as table:
            if table is not None and request.mode is WriteMode.IGNORE:
                write_deltalake(table, source, mode="ignore")  # reads neither argument
                return WriteResult(format=request.format, mode=request.mode, skipped=True)
            arguments = _delta_arguments(request)
            if table is None:
                return self._create_delta(request, source, arguments)
            with watch_writes() as writes:
                write_deltalake(table, source, **arguments)
            if has_quarantined(writes):
                return _quarantined(request)
            receipt = receipt_of_handle(table, writes)
        return WriteResult(
            format=request.format, mode=request.mode, version=receipt.version, rows=receipt.rows
        )

    @staticmethod
    def _create_delta(request: WriteRequest, source: Any, arguments: dict[str, Any]) -> WriteResult:
        """Create a table; without a handle its commit is found by an id in the commit metadata."""
        from deltalake import write_deltalake  # noqa: PLC0415 - heavy

        destination, receipt_id = str(request.destination), new_id()
        properties = with_receipt_id(arguments.get("commit_properties"), receipt_id)
        with watch_writes() as writes:
            write_deltalake(destination, source, **{**arguments, "commit_properties": properties})
        if has_quarantined(writes):
            return _quarantined(request)
        receipt = receipt_of_creation(destination, _options(request), receipt_id)
        return WriteResult(
            format=request.format,
            mode=request.mode,
            version=receipt.version,
            rows=receipt.rows,
            skipped=receipt.version is None and request.mode is WriteMode.IGNORE,
        )

    @contextmanager
    def _table(self, request: WriteRequest) -> Iterator[DeltaTable | None]:
        destination = request.destination
        if not isinstance(destination, str | os.PathLike):
            yield destination
        elif self._handles is None:
            with HandleCache().lease(destination, _options(request)) as table:
                yield table
        else:
            with self._handles.lease(destination, _options(request)) as table:
                yield table


_EXPORTS = ("__arrow_c_stream__", "__arrow_c_array__")


class _Counter:
    """Counts the rows of a reader."""

    def __init__(self) -> None:
        self.count = 0

    def count_rows(self, reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """Return a reader of the same rows that adds each batch to `count`."""
        import pyarrow as pa  # noqa: PLC0415 - heavy, only for other formats

        return pa.RecordBatchReader.from_batches(reader.schema, self._counted(reader))

    def _counted(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in reader:
            self.count += batch.num_rows
            yield batch


def _reader(source: Any) -> pa.RecordBatchReader:
    import pyarrow as pa  # noqa: PLC0415 - heavy, only for other formats

    if isinstance(source, Sequence):
        batches = [pa.record_batch(batch) for batch in source]
        if not batches:
            msg = "source: an empty sequence has no schema"
            raise WriteRequestError(msg)
        return pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    if hasattr(source, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(source)
    batch = pa.record_batch(source)
    return pa.RecordBatchReader.from_batches(batch.schema, [batch])


def _quarantined(request: WriteRequest) -> WriteResult:
    return WriteResult(format=request.format, mode=request.mode, is_quarantined=True)


def _options(request: WriteRequest) -> dict[str, str] | None:
    return None if request.storage_options is None else dict(request.storage_options)


def _delta_arguments(request: WriteRequest) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "mode": request.mode.value,
        "partition_by": list(request.partition_by) or None,
        "schema_mode": request.schema_mode,
        "storage_options": _options(request),
        "predicate": request.predicate,
        "configuration": request.table_properties,
        "writer_properties": request.writer_properties,
        "target_file_size": request.target_file_size,
        "commit_properties": _commit_properties(request),
        "name": request.format_options.get("name"),
        "description": request.format_options.get("description"),
    }
    return {name: value for name, value in arguments.items() if value is not None}


def _commit_properties(request: WriteRequest) -> CommitProperties | None:
    """Return the request's commit properties with its `commit_metadata` added.

    A key in both keeps the value of the commit properties.
    """
    from deltalake import CommitProperties  # noqa: PLC0415 - heavy

    metadata = request.format_options.get("commit_metadata")
    if metadata is None:
        return request.commit_properties
    given = request.commit_properties
    if given is None:
        return CommitProperties(custom_metadata=dict(metadata))
    properties = copy.copy(given)
    properties.custom_metadata = {**metadata, **(given.custom_metadata or {})}
    return properties
