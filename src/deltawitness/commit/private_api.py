"""Every private or undocumented part of delta-rs that the package uses; each has a contract test.

A release of delta-rs that changes one of them fails `tests/delta_rs/test_private_api.py`, which
names what changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deltawitness.semconv import CacheOperation, Operation

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake._internal import RawDeltaTable

__all__ = [
    "CONVERT_OPEN_SEAM",
    "CONVERT_SEAM",
    "FUNCTION_SEAMS",
    "MERGE_BUILD",
    "MERGE_EXECUTE",
    "MERGE_SOURCE",
    "METHOD_SEAMS",
    "OPEN_SEAM",
    "QUERY_SEAM",
    "READING_ROWS",
    "READ_SEAMS",
    "WHOLE_WRITE",
    "Seam",
    "modified_at",
    "storage_options_of",
]


@dataclass(frozen=True, slots=True)
class Seam:
    """A callable of delta-rs that writes: the innermost one that Python can replace.

    Attributes:
        name: the attribute that is replaced: a module global looked up at call time, or a method
            of `RawDeltaTable`.
        operation: the operation.
        cache_operation: the same operation in terms of the cache.
        commits: whether it can make a commit, and so takes `commit_properties`.
        many: whether one call can make several commits.
        moves: whether the open table is at the version of its commit afterwards.
        module: the module whose global it is; empty for a method.
        uri: name of the argument with the table's URI; empty for a method.
    """

    name: str
    operation: Operation
    cache_operation: CacheOperation
    commits: bool = True
    many: bool = False
    moves: bool = True
    module: str = ""
    uri: str = ""


FUNCTION_SEAMS = (
    Seam(
        "write_deltalake_rust",
        Operation.WRITE,
        CacheOperation.WRITE,
        module="deltalake.writer.writer",
        uri="table_uri",
    ),
    Seam(
        "_create_deltalake",
        Operation.CREATE_TABLE,
        CacheOperation.CREATE,
        module="deltalake.table",
        uri="table_uri",
    ),
    Seam(
        "_create_table_with_add_actions",
        Operation.CREATE_TABLE,
        CacheOperation.CREATE,
        module="deltalake.transaction",
        uri="table_uri",
    ),
    Seam(
        "_convert_to_deltalake",
        Operation.CONVERT,
        CacheOperation.CONVERT,
        module="deltalake.writer.convert_to",
        uri="uri",
    ),
)
"""Module globals that the public functions look up at call time. Replacing them also observes programs
that imported a public function before the patches were installed."""

CONVERT_SEAM = FUNCTION_SEAMS[-1]

OPEN_SEAM = ("deltalake.writer.writer", "try_get_table_and_table_uri")
"""The first thing `write_deltalake` calls: it opens the table."""

CONVERT_OPEN_SEAM = ("deltalake.writer.convert_to", "try_get_deltatable")
"""What `convert_to_deltalake` calls in mode `ignore`; where it finds a table, the conversion returns."""

MERGE_SOURCE = ("deltalake.table", "RecordBatchReader")
"""The class with which `DeltaTable.merge` turns its source into a stream, right before it passes the
stream to :data:`MERGE_BUILD` as `source`."""

READ_SEAMS = ("dataset_partitions", "file_uris")
"""Methods of `RawDeltaTable` from which Python code learns which files to read: `to_pyarrow_dataset`,
the methods built on it, and polars."""

QUERY_SEAM = ("deltalake._internal", "PyQueryBuilder", "register")
"""The method that registers a table with a `QueryBuilder`, as `delta_table`."""

WHOLE_WRITE = ("deltalake.writer.writer", "write_deltalake")
"""The public function that returns without a write in mode `ignore`, and that turns its source into a
stream before it calls the engine. It is a plain function whose code can be replaced: it issues no
warning with a `stacklevel`."""

MERGE_BUILD = "create_merge_builder"
"""The method that sets a merge's commit properties."""

MERGE_EXECUTE = Seam("merge_execute", Operation.MERGE, CacheOperation.MERGE)
"""The method that commits the merge of a builder."""

READING_ROWS = frozenset({"write", "write_deltalake_rust", MERGE_BUILD, MERGE_EXECUTE.name})
"""Seams that read the rows of a source, on threads of delta-rs."""

_ALTER = CacheOperation.ALTER

METHOD_SEAMS = (
    Seam("write", Operation.WRITE, CacheOperation.WRITE),
    Seam("create_write_transaction", Operation.WRITE, CacheOperation.WRITE, moves=False),
    Seam("update", Operation.UPDATE, CacheOperation.UPDATE),
    Seam("delete", Operation.DELETE, CacheOperation.DELETE),
    Seam("compact_optimize", Operation.OPTIMIZE, CacheOperation.OPTIMIZE, many=True),
    Seam("z_order_optimize", Operation.OPTIMIZE, CacheOperation.OPTIMIZE, many=True),
    Seam("vacuum", Operation.VACUUM, CacheOperation.VACUUM, many=True),
    Seam("restore", Operation.RESTORE, CacheOperation.RESTORE),
    Seam("repair", Operation.REPAIR, CacheOperation.REPAIR),
    Seam("add_columns", Operation.ADD_COLUMNS, _ALTER),
    Seam("add_constraints", Operation.ADD_CONSTRAINT, _ALTER),
    Seam("drop_constraints", Operation.DROP_CONSTRAINT, _ALTER),
    Seam("add_feature", Operation.ADD_FEATURE, _ALTER),
    Seam("drop_column_not_null", Operation.DROP_NOT_NULL, _ALTER),
    Seam("set_table_properties", Operation.SET_TABLE_PROPERTIES, _ALTER),
    Seam("set_table_name", Operation.UPDATE_TABLE_METADATA, _ALTER),
    Seam("set_table_description", Operation.UPDATE_TABLE_METADATA, _ALTER),
    Seam("set_column_metadata", Operation.SET_COLUMN_METADATA, _ALTER),
    Seam("create_checkpoint", Operation.CHECKPOINT, CacheOperation.CHECKPOINT, commits=False),
    Seam("cleanup_metadata", Operation.CLEANUP, CacheOperation.CLEANUP, commits=False),
    Seam("compact_logs", Operation.COMPACT_LOGS, CacheOperation.CHECKPOINT, commits=False),
    Seam("generate", Operation.GENERATE, CacheOperation.CHECKPOINT, commits=False),
)
"""Methods of `deltalake._internal.RawDeltaTable` that the public methods of `DeltaTable` call to write."""

READING_METHODS = frozenset(
    {
        "dataset_partitions",
        "deletion_vectors",
        "file_uris",
        "files",
        "get_active_partitions",
        "get_add_actions",
        "get_add_file_sizes",
        "get_latest_version",
        "get_num_index_cols",
        "get_stats_columns",
        "history",
        "is_deltatable",
        "load_cdf",
        "load_version",
        "load_with_datetime",
        "metadata",
        "protocol_versions",
        "scan",
        "schema",
        "table_config",
        "table_uri",
        "transaction_version",
        "update_incremental",
        "version",
    }
)
"""Methods of `RawDeltaTable` that write nothing; a test fails for a method that is in no list."""

COMMIT_PROPERTIES = "commit_properties"
"""The argument that every committing seam takes."""

SIZE_UNKNOWN = 1 << 26
"""Bytes to request of a file of unknown size: the store returns as many as there are."""


def storage_options_of(table: DeltaTable) -> dict[str, str] | None:
    """Return the storage options that `table` was opened with, which have no public name."""
    options: dict[str, str] | None = table._storage_options  # noqa: SLF001 - listed here
    return options


def remote_store(
    table_uri: str, storage_options: dict[str, str] | None, paths: Iterable[str]
) -> Any:
    """Return the engine's file client of a table's storage, which reads each of `paths` with one GET.

    Without `known_sizes`, the client requests a file's size with a HEAD first, and holds the GIL
    meanwhile. Here each size is set to :data:`SIZE_UNKNOWN`: a ranged GET past the end returns all of
    the file.
    """
    from deltalake._internal import DeltaFileSystemHandler  # noqa: PLC0415 - heavy, remote logs only

    return DeltaFileSystemHandler(table_uri, storage_options, dict.fromkeys(paths, SIZE_UNKNOWN))


def store_of(raw: RawDeltaTable, paths: Iterable[str]) -> Any:
    """Return the file client of an open table's own storage; see :func:`remote_store`."""
    from deltalake._internal import DeltaFileSystemHandler  # noqa: PLC0415 - heavy, remote logs only

    return DeltaFileSystemHandler.from_table(raw, None, dict.fromkeys(paths, SIZE_UNKNOWN))


def modified_at(table: DeltaTable, path: str) -> datetime | None:
    """Return the modification time of a file of an open table; None where the storage has none."""
    from deltalake._internal import DeltaFileSystemHandler  # noqa: PLC0415 - heavy, and rare

    store = DeltaFileSystemHandler.from_table(table._table, None, None)  # noqa: SLF001 - listed here
    modified: datetime | None = store.get_file_info([path])[0].mtime
    return modified


def read_file(store: Any, path: str) -> bytes | None:
    """Return a file through `store`, or None when it is not there.

    Raises:
        OSError: the storage cannot be read.
    """
    try:
        return bytes(store.open_input_file(path).read(SIZE_UNKNOWN))
    except FileNotFoundError:
        return None
