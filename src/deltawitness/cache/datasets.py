"""Datasets: files, directories and tables from outside, staged as Delta."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.cache.content import TooLarge, content_hash
from deltawitness.cache.fingerprint import DataMark, Fingerprint, TableMark, Uncacheable
from deltawitness.cache.plans import DATA_LIMIT, columns_of, file_mark
from deltawitness.cache.policy import CachePolicy
from deltawitness.cache.recipes import Made, Recipe, checked_name
from deltawitness.exceptions import ConfigurationError
from deltawitness.hashing import schema_hash, table_id
from deltawitness.semconv import CacheScope
from deltawitness.sources import new_id

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable

__all__ = ["dataset_recipe"]

_READERS: dict[str, str] = {
    ".parquet": "read_parquet",
    ".csv": "read_csv",
    ".json": "read_json",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
    ".arrow": "read_arrow",
    ".feather": "read_arrow",
    ".ipc": "read_arrow",
}


def dataset_recipe(  # noqa: PLR0913 - what a dataset is, by keyword
    ctx: SessionContext,
    name: str,
    source: Any,
    *,
    policy: CachePolicy,
    version: str | None,
    storage_options: dict[str, str] | None,
) -> Recipe:
    """Return the recipe of a dataset.

    Args:
        ctx: the session.
        name: the entry's name.
        source: a path or URI of a file, directory or Delta table; an open Delta table; anything
            that exports an Arrow stream.
        policy: how it is kept.
        version: what the program says of a source that cannot be seen to have changed.
        storage_options: how a Delta table at a URI is opened.

    Raises:
        ConfigurationError: the source is none of these.
    """
    make = _maker(ctx, source, version, storage_options)
    return Recipe(CacheScope.DATASET, checked_name(name), policy, make, origin=_origin(source))


def _origin(source: Any) -> dict[str, str]:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    if isinstance(source, DeltaTable):
        return {"table": source.table_uri}
    if not isinstance(source, str | os.PathLike):
        return {}
    text = os.fspath(source)
    is_table = "://" in text or (Path(text) / "_delta_log").is_dir()
    return {"table" if is_table else "path": str(text if is_table else Path(text).absolute())}


def _maker(
    ctx: SessionContext,
    source: Any,
    version: str | None,
    storage_options: dict[str, str] | None,
) -> Callable[[], Made]:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    if isinstance(source, DeltaTable):
        return lambda: _of_table(ctx, source, version)
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if "://" in text or (Path(text) / "_delta_log").is_dir():
            return lambda: _of_table(
                ctx, DeltaTable(text, storage_options=storage_options), version
            )
        return lambda: _of_files(ctx, Path(text), version)
    if hasattr(source, "__arrow_c_stream__"):
        return lambda: _of_stream(ctx, source, version)
    msg = (
        "a dataset's source is a path or URI of Parquet, CSV, JSON, Arrow or Delta, an open Delta"
        f" table, or an Arrow stream, not {type(source).__name__}"
    )
    raise ConfigurationError(msg)


def _of_table(ctx: SessionContext, table: DeltaTable, version: str | None) -> Made:
    frame = ctx.read_table(table)
    named = table.metadata().name or "table"
    mark = TableMark(
        table_id(table.table_uri), named, int(table.version()), str(table.metadata().id)
    )
    return Made(frame, _fingerprint(frame, version, tables=(mark,)))


def _of_files(ctx: SessionContext, path: Path, version: str | None) -> Made:
    files = sorted(_files_in(path))
    if not files:
        msg = "a dataset's source holds no file of a known format"
        raise ConfigurationError(msg)
    readers = {_READERS[file.suffix.lower()] for file in files}
    if len(readers) > 1:
        msg = "a dataset's source holds files of several formats"
        raise ConfigurationError(msg)
    marks = tuple(file_mark(file) for file in files)
    frame = _read(ctx, readers.pop(), path, files)
    return Made(frame, _fingerprint(frame, version, files=marks))


def _files_in(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.suffix.lower() not in _READERS:
            msg = f"a file of a dataset ends in one of {', '.join(_READERS)}"
            raise ConfigurationError(msg)
        yield path
        return
    if not path.is_dir():
        msg = "a dataset's source is not there"
        raise ConfigurationError(msg)
    for file in path.rglob("*"):
        is_hidden = file.name.startswith((".", "_"))
        if file.suffix.lower() in _READERS and file.is_file() and not is_hidden:
            yield file


def _read(ctx: SessionContext, reader: str, path: Path, files: list[Path]) -> DataFrame:
    if reader == "read_arrow":
        import pyarrow.dataset as ds  # noqa: PLC0415 - heavy

        return ctx.from_arrow(ds.dataset([str(file) for file in files], format="ipc").to_table())
    from datafusion import SessionContext as Plain  # noqa: PLC0415 - heavy

    # In a session of its own: one that has read the directory before keeps the list of its files.
    read = getattr(Plain(), reader)
    frame: DataFrame = read(str(path), file_extension=files[0].suffix)
    return frame


def _of_stream(ctx: SessionContext, source: Any, version: str | None) -> Made:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    if not isinstance(source, pa.Table | pa.RecordBatch):
        # It can be read only once, so that nobody can look before it is kept.
        frame = ctx.from_arrow(source)
        return Made(frame, _fingerprint(frame, version or f"once {new_id()}"))
    frame = ctx.from_arrow(source)
    if version is not None:
        return Made(frame, _fingerprint(frame, version))
    table = source if isinstance(source, pa.Table) else pa.Table.from_batches([source])
    try:
        mark = DataMark("source", content_hash(table.to_batches(), limit=DATA_LIMIT))
    except TooLarge:
        reason = f"more than {DATA_LIMIT >> 20} MiB in memory: give it a version"
        return Made(frame, Uncacheable(reason))
    return Made(frame, _fingerprint(frame, None, data=(mark,)))


def _fingerprint(frame: DataFrame, version: str | None, **marks: Any) -> Fingerprint:
    schema = frame.schema()
    return Fingerprint(
        schema_hash=schema_hash(schema), columns=columns_of(schema), version=version, **marks
    )
