"""Write directories of Parquet, CSV, JSON or Arrow files in a staging directory, then move them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.extras import require
from deltawitness.ids_and_clock import new_id
from deltawitness.locations import local_path
from deltawitness.pipeline.request import WriteFormat, WriteMode, WriteRequest

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_files"]

JSON_ROWS = 65_536
"""Minimum number of rows of a JSON file, except the last one."""


def write_files(request: WriteRequest, reader: pa.RecordBatchReader) -> int | None:
    """Write a stream as a directory of files.

    The files are written to a sibling directory and moved to the target when they are complete. An
    error in the source leaves the target unchanged, and a new target appears atomically. An append
    moves its files one by one, under new names. An overwrite renames the old target away before it
    renames the new one into place; between the two renames there is no target.

    Args:
        request: the validated request.
        reader: the rows, read batch by batch.

    Returns:
        The number of written files; None if the target exists and the mode is `ignore`.

    Raises:
        FileExistsError: the target exists and the mode is `error`.
        MissingExtraError: the format is JSON and DataFusion is not installed (extra `datafusion`).
    """
    if request.format is WriteFormat.JSON:
        require("WriteFormat.JSON", "datafusion")
    destination: Any = request.destination
    path = local_path(os.fspath(destination))
    assert path is not None  # the request is validated: files have a local destination
    target = Path(path)
    if target.exists() and request.mode is WriteMode.IGNORE:
        return None
    if target.exists() and request.mode is WriteMode.ERROR:
        msg = "the destination exists already"
        raise FileExistsError(msg)
    with _staging(target) as staging:
        write = _write_json if request.format is WriteFormat.JSON else _write_dataset
        write(request, reader, staging)
        files = sum(path.is_file() for path in staging.rglob("*"))
        _move_into_place(staging, target, request.mode)
    return files


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    staging = target.parent / f".{target.name}.{new_id()}.part"
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_into_place(staging: Path, target: Path, mode: WriteMode) -> None:
    if mode is WriteMode.APPEND and target.exists():
        for path in [path for path in staging.rglob("*") if path.is_file()]:
            place = target / path.relative_to(staging)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
        return
    replaced = target.parent / f".{target.name}.{new_id()}.old"
    had_one = target.exists()
    if had_one:
        target.replace(replaced)
    try:
        staging.replace(target)
    except OSError:
        if had_one:
            replaced.replace(target)
        raise
    if replaced.is_dir():
        shutil.rmtree(replaced)
    else:
        replaced.unlink(missing_ok=True)


def _write_dataset(request: WriteRequest, reader: pa.RecordBatchReader, staging: Path) -> None:
    import pyarrow.dataset as ds  # noqa: PLC0415 - heavy, only for other formats

    file_format, options = _FORMATS[request.format](request.format_options)
    partitioning = None
    if request.partition_by:
        fields = [reader.schema.field(name) for name in request.partition_by]
        import pyarrow as pa  # noqa: PLC0415 - as above

        partitioning = ds.partitioning(pa.schema(fields), flavor="hive")
    rows = request.format_options.get("max_rows_per_file", 0)
    ds.write_dataset(
        reader,
        staging,
        format=file_format,
        file_options=options,
        partitioning=partitioning,
        basename_template=f"part-{new_id()}-{{i}}.{request.format}",
        max_rows_per_file=rows,
        max_rows_per_group=min(rows, _GROUP_ROWS) if rows else _GROUP_ROWS,
        max_partitions=10_000,
        existing_data_behavior="overwrite_or_ignore",
    )


_GROUP_ROWS = 1 << 20


def _parquet(options: Any) -> tuple[Any, Any]:
    import pyarrow.dataset as ds  # noqa: PLC0415 - as above

    file_format = ds.ParquetFileFormat()
    return file_format, file_format.make_write_options(
        compression=options.get("compression", "snappy")
    )


def _csv(options: Any) -> tuple[Any, Any]:
    import pyarrow.dataset as ds  # noqa: PLC0415 - as above

    file_format = ds.CsvFileFormat()
    return file_format, file_format.make_write_options(
        include_header=options.get("include_header", True),
        delimiter=options.get("delimiter", ","),
    )


def _arrow(options: Any) -> tuple[Any, Any]:  # noqa: ARG001 - one signature for all formats
    import pyarrow.dataset as ds  # noqa: PLC0415 - as above

    return ds.IpcFileFormat(), None


_FORMATS: dict[WriteFormat, Callable[[Any], tuple[Any, Any]]] = {
    WriteFormat.PARQUET: _parquet,
    WriteFormat.CSV: _csv,
    WriteFormat.ARROW: _arrow,
}


def _write_json(request: WriteRequest, reader: pa.RecordBatchReader, staging: Path) -> None:  # noqa: ARG001 - one signature for all formats
    """Write JSON lines with DataFusion, one file per part of the rows: pyarrow cannot write JSON."""
    import datafusion  # noqa: PLC0415 - heavy, only for JSON
    import pyarrow as pa  # noqa: PLC0415 - as above

    context, name = datafusion.SessionContext(), new_id()
    for number, batches in enumerate(_parts(reader)):
        table = pa.Table.from_batches(batches, schema=reader.schema)
        context.from_arrow(table).write_json(str(staging / f"part-{name}-{number}.json"))


def _parts(reader: pa.RecordBatchReader) -> Iterator[list[pa.RecordBatch]]:
    part: list[pa.RecordBatch] = []
    rows = 0
    for batch in reader:
        part.append(batch)
        rows += batch.num_rows
        if rows >= JSON_ROWS:
            yield part
            part, rows = [], 0
    if part:
        yield part
