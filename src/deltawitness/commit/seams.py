"""The callables of delta-rs that the package replaces to observe writes: its seams.

Each entry names what the replacement uses of the callable, and the first release that has it. A
release that lacks a seam, or that has changed it, is observed through the other seams
(:mod:`deltawitness.delta_rs.seam_states`). `tests/delta_rs/test_seams.py` compares this list with the
installed delta-rs.
"""

from __future__ import annotations

from dataclasses import dataclass

from deltawitness.semconv import CacheOperation, Operation

__all__ = [
    "COMMIT_PROPERTIES",
    "CONVERT_OPEN_SEAM",
    "CONVERT_SEAM",
    "DRY_RUN",
    "FUNCTION_SEAMS",
    "MERGE_BUILD",
    "MERGE_EXECUTE",
    "MERGE_SOURCE",
    "METHOD_SEAMS",
    "MODE",
    "OPEN_SEAM",
    "QUERY_SEAM",
    "READING_METHODS",
    "READING_ROWS",
    "READ_SEAMS",
    "SEAMS",
    "STORAGE_OPTIONS",
    "WHOLE_WRITE",
    "Seam",
    "WriteSeam",
]

COMMIT_PROPERTIES = "commit_properties"
"""The parameter that every committing seam has."""

DRY_RUN = "dry_run"
"""The parameter with which a VACUUM or a REPAIR changes nothing."""

MODE = "mode"
"""The parameter with the save mode of a write."""

STORAGE_OPTIONS = "storage_options"
"""The parameter with the options of a table's storage."""

_INTERNAL = "deltalake._internal"
_TABLE = "RawDeltaTable"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seam:
    """A callable of delta-rs that is replaced.

    Attributes:
        name: the attribute that is replaced.
        module: the module that has the attribute, or the class with it.
        owner: the class that has the attribute; empty for a global of the module.
        parameters: names of the parameters that the replacement uses.
        members: names of attributes that the replacement uses; for a class.
        since: first release that has the callable; None when every supported release has it.
        needs: names of seams without which the replacement would record wrong values.
        is_plain_function: whether its code is replaced, which only a plain function allows.
    """

    name: str
    module: str = _INTERNAL
    owner: str = ""
    parameters: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    since: str | None = None
    needs: tuple[str, ...] = ()
    is_plain_function: bool = False

    @property
    def path(self) -> str:
        """The dotted path of the callable, unique among the seams.

        >>> OPEN_SEAM.path
        'deltalake.writer.writer.try_get_table_and_table_uri'
        """
        return ".".join(part for part in (self.module, self.owner, self.name) if part)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WriteSeam(Seam):
    """A callable of delta-rs that writes: the innermost one that Python can replace.

    Attributes:
        operation: the operation.
        cache_operation: the same operation in terms of the cache.
        commits: whether it can make a commit, and so takes `commit_properties`.
        many: whether one call can make several commits.
        moves: whether the open table is at the version of its commit afterwards.
        moves_since: first release in which it is; None when it is in every supported release.
        uri: name of the parameter with the table's URI; empty for a method.
    """

    operation: Operation
    cache_operation: CacheOperation
    commits: bool = True
    many: bool = False
    moves: bool = True
    moves_since: str | None = None
    uri: str = ""


def _function(  # noqa: PLR0913 - the fields of a declaration
    module: str,
    name: str,
    operation: Operation,
    cache_operation: CacheOperation,
    *,
    uri: str = "table_uri",
    mode: tuple[str, ...] = (MODE,),
) -> WriteSeam:
    """Return the seam of a function that writes to the table at a URI."""
    return WriteSeam(
        name=name,
        module=module,
        operation=operation,
        cache_operation=cache_operation,
        uri=uri,
        parameters=(uri, STORAGE_OPTIONS, COMMIT_PROPERTIES, *mode),
    )


def _method(  # noqa: PLR0913 - as above
    name: str,
    operation: Operation,
    cache_operation: CacheOperation,
    *parameters: str,
    many: bool = False,
    moves: bool = True,
    moves_since: str | None = None,
    commits: bool = True,
    since: str | None = None,
) -> WriteSeam:
    """Return the seam of a method of `RawDeltaTable`.

    Args:
        name: the method.
        operation: the operation.
        cache_operation: the same operation in terms of the cache.
        *parameters: names of the parameters in use besides `commit_properties`.
        many: whether one call can make several commits.
        moves: whether the open table is at the version of its commit afterwards.
        moves_since: first release in which it is; None when it is in every supported release.
        commits: whether it can make a commit.
        since: first release that has it; None when every supported release has it.
    """
    return WriteSeam(
        name=name,
        owner=_TABLE,
        operation=operation,
        cache_operation=cache_operation,
        parameters=(*parameters, *((COMMIT_PROPERTIES,) if commits else ())),
        many=many,
        moves=moves,
        moves_since=moves_since,
        commits=commits,
        since=since,
    )


_WRITER = "deltalake.writer.writer"
_CONVERTER = "deltalake.writer.convert_to"

CONVERT_SEAM = _function(
    _CONVERTER,
    "_convert_to_deltalake",
    Operation.CONVERT,
    CacheOperation.CONVERT,
    uri="uri",
    mode=(),
)

FUNCTION_SEAMS = (
    _function(_WRITER, "write_deltalake_rust", Operation.WRITE, CacheOperation.WRITE),
    _function(
        "deltalake.table", "_create_deltalake", Operation.CREATE_TABLE, CacheOperation.CREATE
    ),
    _function(
        "deltalake.transaction",
        "_create_table_with_add_actions",
        Operation.CREATE_TABLE,
        CacheOperation.CREATE,
    ),
    CONVERT_SEAM,
)
"""Module globals that the public functions look up at call time. Replacing them also observes programs
that imported a public function before the patches were installed."""

_ALTER = CacheOperation.ALTER

METHOD_SEAMS = (
    _method("write", Operation.WRITE, CacheOperation.WRITE, MODE),
    _method("create_write_transaction", Operation.WRITE, CacheOperation.WRITE, MODE, moves=False),
    _method("update", Operation.UPDATE, CacheOperation.UPDATE),
    _method("delete", Operation.DELETE, CacheOperation.DELETE),
    _method("compact_optimize", Operation.OPTIMIZE, CacheOperation.OPTIMIZE, many=True),
    _method("z_order_optimize", Operation.OPTIMIZE, CacheOperation.OPTIMIZE, many=True),
    _method(
        "vacuum",
        Operation.VACUUM,
        CacheOperation.VACUUM,
        DRY_RUN,
        many=True,
        moves_since="1.1.0",
    ),
    _method("restore", Operation.RESTORE, CacheOperation.RESTORE),
    _method("repair", Operation.REPAIR, CacheOperation.REPAIR, DRY_RUN),
    _method("add_columns", Operation.ADD_COLUMNS, _ALTER),
    _method("add_constraints", Operation.ADD_CONSTRAINT, _ALTER),
    _method("drop_constraints", Operation.DROP_CONSTRAINT, _ALTER),
    _method("add_feature", Operation.ADD_FEATURE, _ALTER),
    _method("drop_column_not_null", Operation.DROP_NOT_NULL, _ALTER, since="1.6.3"),
    _method("set_table_properties", Operation.SET_TABLE_PROPERTIES, _ALTER),
    _method("set_table_name", Operation.UPDATE_TABLE_METADATA, _ALTER),
    _method("set_table_description", Operation.UPDATE_TABLE_METADATA, _ALTER),
    _method("set_column_metadata", Operation.SET_COLUMN_METADATA, _ALTER),
    _method("create_checkpoint", Operation.CHECKPOINT, CacheOperation.CHECKPOINT, commits=False),
    _method("cleanup_metadata", Operation.CLEANUP, CacheOperation.CLEANUP, commits=False),
    _method(
        "compact_logs",
        Operation.COMPACT_LOGS,
        CacheOperation.CHECKPOINT,
        commits=False,
        since="1.5.0",
    ),
    _method(
        "generate", Operation.GENERATE, CacheOperation.CHECKPOINT, commits=False, since="1.3.0"
    ),
)
"""Methods of `deltalake._internal.RawDeltaTable` that the public methods of `DeltaTable` call to write."""

_BUILD, _EXECUTE = "create_merge_builder", "merge_execute"

MERGE_BUILD = Seam(name=_BUILD, owner=_TABLE, parameters=(COMMIT_PROPERTIES,), needs=(_EXECUTE,))
"""The method that sets a merge's commit properties."""

MERGE_EXECUTE = WriteSeam(
    name=_EXECUTE,
    owner=_TABLE,
    operation=Operation.MERGE,
    cache_operation=CacheOperation.MERGE,
    parameters=("merge_builder",),
    needs=(_BUILD,),
)
"""The method that commits the merge of a builder."""

MERGE_SOURCE = Seam(name="RecordBatchReader", module="deltalake.table", members=("from_arrow",))
"""The class with which `DeltaTable.merge` turns its source into a stream, right before it passes the
stream to :data:`MERGE_BUILD` as `source`."""

OPEN_SEAM = Seam(
    name="try_get_table_and_table_uri",
    module=_WRITER,
    parameters=("table_or_uri", STORAGE_OPTIONS),
)
"""The function that `write_deltalake` calls first, to open the table."""

CONVERT_OPEN_SEAM = Seam(
    name="try_get_deltatable", module=_CONVERTER, parameters=("table_uri", STORAGE_OPTIONS)
)
"""The function that `convert_to_deltalake` calls in mode `ignore`: without a table it converts."""

READ_SEAMS = (
    Seam(name="dataset_partitions", owner=_TABLE),
    Seam(name="file_uris", owner=_TABLE),
)
"""Methods of `RawDeltaTable` with which Python code lists the files to read: `to_pyarrow_dataset`, the
methods built on it, and polars."""

QUERY_SEAM = Seam(name="register", owner="PyQueryBuilder", parameters=("delta_table",))
"""The method that registers a table with a `QueryBuilder`."""

WHOLE_WRITE = Seam(
    name="write_deltalake",
    module=_WRITER,
    parameters=("table_or_uri", "data", "mode"),
    needs=("write", "write_deltalake_rust"),
    is_plain_function=True,
)
"""The public function that returns without a write in mode `ignore`, and that turns its source into a
stream before it calls the engine. It is a plain function whose code can be replaced: it issues no
warning with a `stacklevel`."""

READING_ROWS = frozenset({"write", "write_deltalake_rust", _BUILD, _EXECUTE})
"""Names of seams that read the rows of a source, on threads of delta-rs."""

SEAMS: tuple[Seam, ...] = (
    *FUNCTION_SEAMS,
    *METHOD_SEAMS,
    MERGE_BUILD,
    MERGE_EXECUTE,
    OPEN_SEAM,
    CONVERT_OPEN_SEAM,
    *READ_SEAMS,
    QUERY_SEAM,
    MERGE_SOURCE,
    WHOLE_WRITE,
)
"""Every seam."""

READING_METHODS = frozenset(
    {
        "dataset_partitions",
        "deletion_vectors",
        "file_uris",
        "files",
        "get_active_partitions",
        "get_add_actions",
        "get_add_file_sizes",
        "get_earliest_version",
        "get_latest_version",
        "get_num_index_cols",
        "get_stats_columns",
        "has_files",
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
"""Methods of `RawDeltaTable` that write nothing; a test fails for a method that is in no list. No release
has all of them."""
