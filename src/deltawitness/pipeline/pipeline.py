"""`WritePipeline`: execute write requests with DataFusion and delta-rs, streaming the rows."""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from deltawitness.commit.receipts import with_receipt_id
from deltawitness.delta_rs.handle_cache import HandleCache
from deltawitness.delta_rs.own_commits import commit_of_creation, commit_of_handle
from deltawitness.exceptions import WriteRequestError
from deltawitness.ids_and_clock import new_id
from deltawitness.observe.write_watch import has_quarantined, watch_writes
from deltawitness.pipeline.file_writer import write_files
from deltawitness.pipeline.request import WriteFormat, WriteMode, WriteRequest, WriteResult

if TYPE_CHECKING:
    import pyarrow as pa
    from datafusion import SessionContext
    from deltalake import DeltaTable

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
        write_deltalake = _delta_rs().write_deltalake
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
            commit = commit_of_handle(table, writes)
        return WriteResult(
            format=request.format, mode=request.mode, version=commit.version, rows=commit.rows
        )

    @staticmethod
    def _create_delta(request: WriteRequest, source: Any, arguments: dict[str, Any]) -> WriteResult:
        """Create a table; without a handle its commit is found by an id in the commit metadata."""
        destination, receipt_id = str(request.destination), new_id()
        properties = with_receipt_id(arguments.get("commit_properties"), receipt_id)
        with watch_writes() as writes:
            _delta_rs().write_deltalake(
                destination, source, **{**arguments, "commit_properties": properties}
            )
        if has_quarantined(writes):
            return _quarantined(request)
        commit = commit_of_creation(destination, _options(request), receipt_id)
        return WriteResult(
            format=request.format,
            mode=request.mode,
            version=commit.version,
            rows=commit.rows,
            skipped=commit.version is None and request.mode is WriteMode.IGNORE,
        )

    def _table(self, request: WriteRequest) -> AbstractContextManager[DeltaTable | None]:
        destination = request.destination
        if not isinstance(destination, str | os.PathLike):
            return nullcontext(destination)
        handles = HandleCache() if self._handles is None else self._handles
        return handles.lease(destination, _options(request))


@cache
def _delta_rs() -> ModuleType:
    """Return the module `deltalake`, which is heavy: it is imported at the first write."""
    return importlib.import_module("deltalake")


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
    """Return the arguments of `write_deltalake` that the request sets."""
    arguments: dict[str, Any] = {"mode": request.mode.value}
    if request.partition_by:
        arguments["partition_by"] = list(request.partition_by)
    for attribute, argument in _DELTA_ARGUMENTS:
        value = getattr(request, attribute)
        if value is not None:
            arguments[argument] = value
    if request.storage_options is not None:
        arguments["storage_options"] = dict(request.storage_options)
    if request.format_options:
        _add_format_options(arguments, request)
    return arguments


_DELTA_ARGUMENTS = (
    ("schema_mode", "schema_mode"),
    ("predicate", "predicate"),
    ("table_properties", "configuration"),
    ("writer_properties", "writer_properties"),
    ("target_file_size", "target_file_size"),
    ("commit_properties", "commit_properties"),
)
"""Attributes of a request that are passed on unchanged, and their arguments of `write_deltalake`."""


def _add_format_options(arguments: dict[str, Any], request: WriteRequest) -> None:
    """Add the name, the description and the commit metadata of a request to its arguments.

    A key in the metadata and in the commit properties keeps the value of the commit properties.
    """
    options = request.format_options
    for name in ("name", "description"):
        if options.get(name) is not None:
            arguments[name] = options[name]
    metadata, given = options.get("commit_metadata"), request.commit_properties
    if metadata is None:
        return
    if given is None:
        properties = _delta_rs().CommitProperties(custom_metadata=dict(metadata))
    else:
        properties = copy.copy(given)
        properties.custom_metadata = {**metadata, **(given.custom_metadata or {})}
    arguments["commit_properties"] = properties
