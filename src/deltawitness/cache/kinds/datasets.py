"""Datasets: external files, directories and tables, staged as Delta."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.definitions import Candidate, EntryDefinition, checked_name
from deltawitness.cache.entries.policy import CachePolicy
from deltawitness.commit.log import LOG_DIRECTORY
from deltawitness.exceptions import ConfigurationError
from deltawitness.locations import is_uri
from deltawitness.semconv import CacheScope
from deltawitness.session.core.table_providers import provider_of
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.content_digest import TooLargeError, content_hash
from deltawitness.session.fingerprint.inputs import DATA_LIMIT, collect_inputs, table_input
from deltawitness.session.fingerprint.model import DataInput, NotCacheable
from deltawitness.session.fingerprint.plan import source_fingerprint
from deltawitness.session.fingerprint.scans import UnknownScanError

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext
    from deltalake import DeltaTable

__all__ = ["define_dataset"]

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


def define_dataset(  # noqa: PLR0913 - each is an option of a dataset, by keyword
    ctx: SessionContext,
    name: str,
    source: Any,
    *,
    policy: CachePolicy,
    version: str | None,
    storage_options: dict[str, str] | None,
) -> EntryDefinition:
    """Return the definition of a dataset.

    Args:
        ctx: the session.
        name: name of the entry.
        source: path or URI of a file, directory or Delta table; an open Delta table; any object
            that exports an Arrow stream.
        policy: how the entry is stored and how long it is served.
        version: a version that the caller gives to a source whose changes cannot be detected.
        storage_options: options to open a Delta table at a URI.

    Raises:
        ConfigurationError: the source is of another kind.
    """
    make = _candidate_factory(ctx, source, version, storage_options)
    return EntryDefinition(
        CacheScope.DATASET, checked_name(name), policy, make, origin=_origin(source)
    )


def _origin(source: Any) -> dict[str, str]:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    if isinstance(source, DeltaTable):
        return {"table": source.table_uri}
    if not isinstance(source, str | os.PathLike):
        return {}
    text = os.fspath(source)
    return {"table": text} if _is_table(text) else {"path": str(Path(text).absolute())}


def _is_table(location: str) -> bool:
    """Return whether a path or URI is that of a Delta table; sources of other kinds have no URI."""
    return is_uri(location) or (Path(location) / LOG_DIRECTORY).is_dir()


def _candidate_factory(
    ctx: SessionContext,
    source: Any,
    version: str | None,
    storage_options: dict[str, str] | None,
) -> Callable[[], Candidate]:
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    if isinstance(source, DeltaTable):
        return lambda: _table_candidate(ctx, source, version)
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        if _is_table(text):
            return lambda: _table_candidate(
                ctx, DeltaTable(text, storage_options=storage_options), version
            )
        return lambda: _files_candidate(Path(text), version)
    if hasattr(source, "__arrow_c_stream__"):
        # A stream can be read only once.
        return cache(lambda: _stream_candidate(source, version))
    msg = (
        "a dataset's source is a path or URI of Parquet, CSV, JSON, Arrow or Delta, an open Delta"
        f" table, or an Arrow stream, not {type(source).__name__}"
    )
    raise ConfigurationError(msg)


def _table_candidate(ctx: SessionContext, table: DeltaTable, version: str | None) -> Candidate:
    frame = ctx.read_table(provider_of(table))
    return Candidate(frame, source_fingerprint(frame, version, tables=(table_input(table),)))


def _files_candidate(path: Path, version: str | None) -> Candidate:
    files = sorted(_files_in(path))
    if not files:
        msg = "the dataset's source has no file of a known format"
        raise ConfigurationError(msg)
    readers = {_READERS[file.suffix.lower()] for file in files}
    if len(readers) > 1:
        msg = "the dataset's source has files of several formats"
        raise ConfigurationError(msg)
    endings = {file.suffix for file in files}
    if len(endings) > 1:
        msg = "the dataset's source has files of one format with several file extensions"
        raise ConfigurationError(msg)
    frame = _read_files(readers.pop(), path, endings.pop())
    try:
        inputs = collect_inputs(frame, version)
    except UnknownScanError as reason:
        return Candidate(frame, NotCacheable(str(reason)))
    return Candidate(frame, source_fingerprint(frame, version, **inputs.as_fields()))


def _files_in(path: Path) -> Iterator[Path]:
    if path.is_file():
        if path.suffix.lower() not in _READERS:
            msg = f"a dataset file must end in one of {', '.join(_READERS)}"
            raise ConfigurationError(msg)
        yield path
        return
    if not path.is_dir():
        msg = f"dataset: the source {str(path)!r} does not exist"
        raise ConfigurationError(msg)
    for file in path.rglob("*"):
        is_hidden = file.name.startswith((".", "_"))
        if file.suffix.lower() in _READERS and file.is_file() and not is_hidden:
            yield file


def _read_files(reader: str, path: Path, ending: str) -> DataFrame:
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    # A separate session: one that read the directory before has its file list cached.
    read = unpatched(SessionContext(), reader)
    frame: DataFrame = read(_file_uri(path), file_extension=ending)
    return frame


def _file_uri(path: Path) -> str:
    """Return a path as a file URI: in a bare path the engine reads `[`, `?` and `*` as a glob."""
    where = path.absolute().as_uri()
    return f"{where}/" if path.is_dir() else where


def _stream_candidate(source: Any, version: str | None) -> Candidate:
    import pyarrow as pa  # noqa: PLC0415 - heavy
    from datafusion import SessionContext  # noqa: PLC0415 - heavy

    table = (
        pa.Table.from_batches([source]) if isinstance(source, pa.RecordBatch) else pa.table(source)
    )
    # A separate session: the caller's session would hold the table for its lifetime.
    frame = unpatched(SessionContext(), "from_arrow")(table)
    if version is not None:
        return Candidate(frame, source_fingerprint(frame, version))
    try:
        data_input = DataInput("source", content_hash(table.to_batches(), limit=DATA_LIMIT))
    except TooLargeError:
        reason = f"more than {DATA_LIMIT >> 20} MiB in memory: pass version="
        return Candidate(frame, NotCacheable(reason))
    return Candidate(frame, source_fingerprint(frame, None, data=(data_input,)))
