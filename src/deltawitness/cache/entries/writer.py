"""Writes entries: rows, fingerprint and standard metadata in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from deltawitness.app_transactions import outside_block
from deltawitness.cache.entries.definitions import EntryDefinition
from deltawitness.cache.entries.entry import RETENTION, Entry, entry_metadata
from deltawitness.cache.entries.policy import CachePolicy
from deltawitness.exceptions import ConfigurationError
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.observe.write_context import NO_ATTRIBUTES
from deltawitness.run import suppressed
from deltawitness.session.core.frames import derive
from deltawitness.session.core.private_api import ENGINE_ERROR, FAILED_SOURCE
from deltawitness.session.fingerprint.model import Fingerprint
from deltawitness.session.proxies import plain
from deltawitness.session.sql.frame_writer import write_delta
from deltawitness.session.sql.observe_writes import observe_write

if TYPE_CHECKING:
    from datafusion import DataFrame
    from deltalake import DeltaTable

Compression: TypeAlias = Literal["UNCOMPRESSED", "SNAPPY", "GZIP", "LZ4_RAW", "ZSTD"]

_COMPRESSIONS: dict[str, Compression] = {
    "uncompressed": "UNCOMPRESSED",
    "snappy": "SNAPPY",
    "gzip": "GZIP",
    "lz4": "LZ4_RAW",
    "zstd": "ZSTD",
}

_NO_RETRIES = 0
"""Commit retries for the first version of an entry: none. If another process commits version 0 first,
a retry of delta-rs (seen with 1.6.6) commits our files as version 1 in addition to the other files.
"""

COMMITS_PER_CLEANUP = 10
"""Expired log files of an entry are deleted after one write in so many: finding them takes a listing."""

__all__ = ["check_columns", "invalidate", "is_error_of_query", "is_race_lost", "write_entry"]


def check_columns(policy: CachePolicy, names: Sequence[str]) -> None:
    """Check that a result has the columns that a policy names.

    Args:
        policy: the policy.
        names: column names of the result.

    Raises:
        ConfigurationError: a column is missing, or all columns are partition columns, or a column
            is in both `partition_by` and `zorder_by`.
    """
    for field in ("partition_by", "zorder_by"):
        if missing := [name for name in getattr(policy, field) if name not in names]:
            msg = f"CachePolicy: {field} names columns that the result does not have: {missing}"
            raise ConfigurationError(msg)
    if set(names) <= set(policy.partition_by):
        msg = "CachePolicy: partition_by must leave at least one column that is not a partition"
        raise ConfigurationError(msg)
    if set(policy.partition_by) & set(policy.zorder_by):
        msg = "CachePolicy: a column cannot be in both zorder_by and partition_by"
        raise ConfigurationError(msg)


def is_race_lost(error: Exception) -> bool:
    """Return whether a write failed because of a concurrent commit to the same entry."""
    from deltalake.exceptions import CommitFailedError  # noqa: PLC0415 - heavy

    return isinstance(error, CommitFailedError)


def is_error_of_query(error: Exception) -> bool:
    """Return whether a write failed because the query itself fails; the caller gets that error."""
    text = str(error)
    is_planned = type(error) is Exception and text.startswith(ENGINE_ERROR)
    return is_planned or FAILED_SOURCE in text


@outside_block()
def write_entry(  # noqa: PLR0913 - the parts of one write
    frame: DataFrame,
    uri: str,
    definition: EntryDefinition,
    fingerprint: Fingerprint,
    storage_options: dict[str, str] | None,
    *,
    existing: Entry | None = None,
    is_new: bool = False,
) -> int:
    """Write the rows of a frame as an entry, and replace the previous content.

    Args:
        frame: the rows.
        uri: location of the entry's table.
        definition: the definition of the entry, with its policy.
        fingerprint: fingerprint of the inputs.
        storage_options: options to open the table.
        existing: the entry that is stored now; None without one.
        is_new: whether there is no table at the location, as the caller has just seen.

    Returns:
        The table version that holds the entry.

    Raises:
        OSError: the commit is not in the table's log.
    """
    from deltalake import (  # noqa: PLC0415 - heavy
        CommitProperties,
        DeltaTable,
        PostCommitHookProperties,
        WriterProperties,
    )

    policy = definition.policy
    # Taken before the inputs are read, so that max_age counts from then.
    made_at = now_ns() // 1_000_000
    properties = dict(definition.properties)
    if policy.retention is not None:
        properties[RETENTION] = policy.retention.total_seconds()
    metadata = entry_metadata(fingerprint, policy.name, properties, made_at=made_at)
    if existing is not None and _needs_new_layout(existing, definition, fingerprint):
        _repartition(existing, definition, fingerprint, storage_options)
    newest = 0 if existing is None else existing.newest
    is_cleanup_due = newest > 0 and newest % COMMITS_PER_CLEANUP == 0
    result = write_delta(
        _without_unsigned(frame),
        uri,
        mode="overwrite",
        schema_mode="overwrite",
        partition_by=policy.partition_by,
        storage_options=storage_options,
        target_file_size=policy.target_file_size,
        name=definition.name,
        writer_properties=WriterProperties(compression=_COMPRESSIONS[policy.compress]),
        commit_properties=CommitProperties(
            custom_metadata=metadata, max_commit_retries=_NO_RETRIES if existing is None else None
        ),
        post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=is_cleanup_due),
        is_new=is_new,
    )
    if result.version is None:
        msg = "the commit of the entry is not in its table's log"
        raise OSError(msg)
    version = result.version
    if not policy.zorder_by:
        return version
    return _zorder(DeltaTable(uri, version, storage_options), definition)


def _without_unsigned(frame: DataFrame) -> DataFrame:
    """Cast unsigned columns to the next wider signed type: Delta has no unsigned types."""
    wider = {"uint8": "int16", "uint16": "int32", "uint32": "int64"}
    fields = [(field.name, wider.get(str(field.type))) for field in frame.schema()]
    if not any(kind for _, kind in fields):
        return frame
    import pyarrow as pa  # noqa: PLC0415 - heavy

    columns = [
        frame.col(name)
        if kind is None
        else frame.col(name).cast(pa.type_for_alias(kind)).alias(name)
        for name, kind in fields
    ]
    signed: DataFrame = derive("select", plain(frame), tuple(columns), {})
    return signed


def _needs_new_layout(
    existing: Entry, definition: EntryDefinition, fingerprint: Fingerprint
) -> bool:
    partitions = existing.partition_by
    if partitions is None:
        partitions = tuple(existing.table.metadata().partition_columns)
    if partitions != tuple(definition.policy.partition_by):
        return True
    if existing.fingerprint is not None:
        return existing.fingerprint.schema_hash != fingerprint.schema_hash
    names = [field.name for field in existing.table.schema().fields]
    is_nested = any("struct<" in column.type for column in fingerprint.columns)
    return is_nested or names != [column.name for column in fingerprint.columns]


def _repartition(
    existing: Entry,
    definition: EntryDefinition,
    fingerprint: Fingerprint,
    storage_options: dict[str, str] | None,
) -> None:
    """Replace the table of an entry by an empty one that is not served.

    An overwrite with `schema_mode="overwrite"` changes neither the order of the columns nor a
    partitioned table back to an unpartitioned one.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy
    from deltalake import CommitProperties, DeltaTable, Schema  # noqa: PLC0415 - heavy

    # Placeholder types: the write that follows overwrites the schema.
    schema = pa.schema([(column.name, pa.string()) for column in fingerprint.columns])
    with observe_write(NO_ATTRIBUTES):
        DeltaTable.create(
            existing.uri,
            Schema.from_arrow(schema),
            mode="overwrite",
            partition_by=list(definition.policy.partition_by),
            name=definition.name,
            storage_options=storage_options,
            commit_properties=CommitProperties(
                custom_metadata=entry_metadata(None, definition.policy.name)
            ),
        )


def _zorder(table: DeltaTable, definition: EntryDefinition) -> int:
    """Z-order the files of the entry just written; a failure is reported, the entry is valid without it."""
    try:
        with observe_write(NO_ATTRIBUTES):
            table.optimize.z_order(list(definition.policy.zorder_by))
    except Exception as error:  # noqa: BLE001 - a concurrent write, or no such column
        report("cache", error)
    return int(table.version())


@outside_block()
def invalidate(uri: str, policy: str, storage_options: dict[str, str] | None) -> int:
    """Commit that an entry must not be served any more.

    Args:
        uri: location of the entry's table.
        policy: name of its policy.
        storage_options: options to open the table.

    Returns:
        The version of that commit.
    """
    from deltalake import CommitProperties, DeltaTable, write_deltalake  # noqa: PLC0415 - heavy

    table = DeltaTable(uri, storage_options=storage_options)
    with suppressed():  # only its schema is read
        no_rows: Any = table.to_pyarrow_dataset().schema.empty_table()
    metadata = entry_metadata(None, policy)
    with observe_write(NO_ATTRIBUTES):
        write_deltalake(
            table,
            no_rows,
            mode="append",
            commit_properties=CommitProperties(custom_metadata=metadata),
        )
    return int(table.version())
