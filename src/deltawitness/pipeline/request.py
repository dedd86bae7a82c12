"""Requests and results of write pipelines; a request is validated when it is created."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from deltawitness.exceptions import WriteRequestError
from deltawitness.locations import local_path

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable, WriterProperties

__all__ = ["WriteFormat", "WriteMode", "WriteRequest", "WriteResult"]


T = TypeVar("T", bound=StrEnum)


class WriteFormat(StrEnum):
    """The format of the written data."""

    DELTA = "delta"
    PARQUET = "parquet"
    CSV = "csv"
    JSON = "json"
    ARROW = "arrow"


class WriteMode(StrEnum):
    """What to do if the destination exists."""

    ERROR = "error"
    APPEND = "append"
    OVERWRITE = "overwrite"
    IGNORE = "ignore"


FORMAT_OPTIONS: Mapping[WriteFormat, frozenset[str]] = {
    WriteFormat.DELTA: frozenset({"commit_metadata", "name", "description"}),
    WriteFormat.PARQUET: frozenset({"compression", "max_rows_per_file"}),
    WriteFormat.CSV: frozenset({"include_header", "delimiter", "max_rows_per_file"}),
    WriteFormat.JSON: frozenset(),
    WriteFormat.ARROW: frozenset({"max_rows_per_file"}),
}
"""The `format_options` that each format accepts."""

_DELTA_ONLY = (
    "schema_mode",
    "predicate",
    "table_properties",
    "writer_properties",
    "target_file_size",
    "commit_properties",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest:
    """One write: a source, a destination, and how.

    Attributes:
        source: a DataFusion DataFrame, SQL text, or any object that exports an Arrow stream or array.
        destination: a path or URI, or an open Delta table.
        format: Delta, or a directory of Parquet, CSV, JSON lines or Arrow files on a local disk.
        mode: what to do if the destination exists.
        partition_by: columns to partition by.
        schema_mode: `merge` or `overwrite`, as in `write_deltalake`.
        predicate: selects the rows that an overwrite replaces ("replace where").
        storage_options: as in `write_deltalake`.
        format_options: options of single formats: `commit_metadata` (a mapping), `name`,
            `description` for Delta; `compression` for Parquet; `include_header`, `delimiter` for
            CSV; `max_rows_per_file` for all but Delta and JSON.
        table_properties: configuration of a new Delta table.
        writer_properties: delta-rs's `WriterProperties`.
        target_file_size: target size of each file in bytes.
        commit_properties: delta-rs's `CommitProperties`.

    Raises:
        WriteRequestError: an attribute is invalid or does not fit the others; the message names it.

    >>> WriteRequest(source="SELECT 1", destination="t", predicate="x = 1")
    Traceback (most recent call last):
    ...
    deltawitness.exceptions.WriteRequestError: predicate: only with mode overwrite
    """

    source: Any
    destination: str | os.PathLike[str] | DeltaTable
    format: WriteFormat = WriteFormat.DELTA
    mode: WriteMode = WriteMode.ERROR
    partition_by: tuple[str, ...] = ()
    schema_mode: str | None = None
    predicate: str | None = None
    storage_options: Mapping[str, str] | None = None
    format_options: Mapping[str, Any] = field(default_factory=dict)
    table_properties: Mapping[str, str] | None = None
    writer_properties: WriterProperties | None = None
    target_file_size: int | None = None
    commit_properties: CommitProperties | None = None

    def __post_init__(self) -> None:
        """Normalize the format, the mode and the partition columns, and validate the request.

        Raises:
            WriteRequestError: an attribute is invalid or does not fit the others.
        """
        object.__setattr__(self, "format", _member(WriteFormat, self.format))
        object.__setattr__(self, "mode", _member(WriteMode, self.mode))
        columns = self.partition_by
        object.__setattr__(
            self, "partition_by", (columns,) if isinstance(columns, str) else tuple(columns or ())
        )
        if self.source is None:
            msg = "source: nothing to write"
            raise WriteRequestError(msg)
        self._check_options()
        if self.format is not WriteFormat.DELTA:
            self._check_files()
        if self.predicate is not None and self.mode is not WriteMode.OVERWRITE:
            msg = "predicate: only with mode overwrite"
            raise WriteRequestError(msg)

    def _check_options(self) -> None:
        allowed = FORMAT_OPTIONS[self.format]
        for name in self.format_options:
            if name not in allowed:
                names = ", ".join(sorted(allowed)) or "none"
                msg = f"format_options: {self.format} does not accept {name!r}; it accepts {names}"
                raise WriteRequestError(msg)
        if not isinstance(self.format_options.get("commit_metadata", {}), Mapping):
            msg = "format_options: commit_metadata must be a mapping"
            raise WriteRequestError(msg)

    def _check_files(self) -> None:
        for name in _DELTA_ONLY:
            if getattr(self, name) is not None:
                msg = f"{name}: only with format delta"
                raise WriteRequestError(msg)
        is_local = (
            isinstance(self.destination, str | os.PathLike)
            and local_path(os.fspath(self.destination)) is not None
        )
        if not is_local:
            msg = f"destination: {self.format} is written to a local directory only"
            raise WriteRequestError(msg)
        if self.format is WriteFormat.JSON and self.partition_by:
            msg = "partition_by: not with format json"
            raise WriteRequestError(msg)


def _member(choices: type[T], value: str) -> T:
    try:
        return choices(value)
    except ValueError:
        name = "format" if choices is WriteFormat else "mode"
        msg = f"{name}: expected one of {', '.join(choices)}"
        raise WriteRequestError(msg) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """The result of a write of a pipeline or of `write_delta`.

    Attributes:
        format: the format of the request.
        mode: the mode of the request.
        version: the Delta version that this write committed, even if other writers have committed
            since; None for other formats, if nothing was committed, or if the log is unreadable.
        rows: number of written rows, for Delta from the commit; None if nothing was written or the
            commit has no row count.
        files: number of written files; None for Delta.
        skipped: the destination existed and the mode was `ignore`.
        is_quarantined: the rows did not meet an expectation (:class:`deltawitness.expect`), and were
            written to a quarantine table instead; nothing was committed to the destination.
    """

    format: WriteFormat
    mode: WriteMode
    version: int | None = None
    rows: int | None = None
    files: int | None = None
    skipped: bool = False
    is_quarantined: bool = False
