"""A result written as an entry: rows, what they were made from and the standard metadata in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from deltawitness.cache.entries.definitions import EntryDefinition
from deltawitness.cache.entries.policy import CachePolicy
from deltawitness.cache.entries.store import RETENTION, Entry, entry_metadata
from deltawitness.cache.fingerprint.model import Fingerprint
from deltawitness.exceptions import ConfigurationError
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.observe.write_context import NO_ATTRIBUTES
from deltawitness.run import suppressed
from deltawitness.session.core.frames import derive
from deltawitness.session.core.private_api import ENGINE_ERROR, FAILED_SOURCE
from deltawitness.session.proxies import plain
from deltawitness.session.sql.frame_writer import write_delta
from deltawitness.session.sql.write_facts import observe_write

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

_NEVER_AGAIN = 0
"""Retries of the commit that makes a table: one that lost its first version to another's is committed
again by delta-rs as the second, beside the other's files and not in place of them (seen with 1.6.6)."""

__all__ = ["check_columns", "invalidate", "is_error_of_query", "is_race_lost", "write_entry"]


def check_columns(policy: CachePolicy, names: Sequence[str]) -> None:
    """See that a result has the columns that a policy names.

    Args:
        policy: the policy.
        names: the result's columns.

    Raises:
        ConfigurationError: it has not, or nothing would be left beside its partitions.
    """
    for field in ("partition_by", "zorder_by"):
        if missing := [name for name in getattr(policy, field) if name not in names]:
            msg = f"CachePolicy: {field} names columns that the result does not have: {missing}"
            raise ConfigurationError(msg)
    if set(names) <= set(policy.partition_by):
        msg = "CachePolicy: partition_by leaves no column that is no partition"
        raise ConfigurationError(msg)
    if set(policy.partition_by) & set(policy.zorder_by):
        msg = "CachePolicy: a column of zorder_by is one of partition_by"
        raise ConfigurationError(msg)


def is_race_lost(error: Exception) -> bool:
    """Tell whether a write failed because another machine wrote the same entry at the same moment."""
    from deltalake.exceptions import CommitFailedError  # noqa: PLC0415 - heavy

    return isinstance(error, CommitFailedError)


def is_error_of_query(error: Exception) -> bool:
    """Tell whether a write failed because its rows cannot be computed: whoever asks for them is told."""
    text = str(error)
    is_planned = type(error) is Exception and text.startswith(ENGINE_ERROR)
    return is_planned or FAILED_SOURCE in text


def write_entry(  # noqa: PLR0913 - what an entry is written by, by keyword
    frame: DataFrame,
    uri: str,
    recipe: EntryDefinition,
    fingerprint: Fingerprint,
    storage_options: dict[str, str] | None,
    *,
    kept: Entry | None = None,
) -> int:
    """Write the rows of a frame as an entry, in place of what is there.

    Args:
        frame: the rows.
        uri: where the entry lies.
        recipe: how it is kept.
        fingerprint: what it was made from.
        storage_options: how the table is opened.
        kept: what is there.

    Returns:
        The version that holds it.
    """
    from deltalake import CommitProperties, DeltaTable, WriterProperties  # noqa: PLC0415 - heavy

    policy = recipe.policy
    # Its age begins before its inputs are read.
    made_at = now_ns() // 1_000_000
    facts = dict(recipe.facts)
    if policy.retention is not None:
        facts[RETENTION] = policy.retention.total_seconds()
    said = entry_metadata(fingerprint, policy.name, facts, made_at=made_at)
    if kept is not None and _is_laid_out_otherwise(kept, recipe, fingerprint):
        _repartition(kept, recipe, fingerprint, storage_options)
    result = write_delta(
        _signed(frame),
        uri,
        mode="overwrite",
        schema_mode="overwrite",
        partition_by=policy.partition_by,
        storage_options=storage_options,
        target_file_size=policy.target_file_size,
        name=recipe.name,
        writer_properties=WriterProperties(compression=_COMPRESSIONS[policy.compress]),
        commit_properties=CommitProperties(
            custom_metadata=said, max_commit_retries=_NEVER_AGAIN if kept is None else None
        ),
    )
    if result.version is None:
        msg = "the commit of the entry cannot be found in its table's log"
        raise OSError(msg)
    version = result.version
    if not policy.zorder_by:
        return version
    return _ordered(DeltaTable(uri, version, storage_options), recipe)


def _signed(frame: DataFrame) -> DataFrame:
    """Return a frame without unsigned columns: Delta has none, and as wide as they are they do not fit."""
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


def _is_laid_out_otherwise(kept: Entry, recipe: EntryDefinition, fingerprint: Fingerprint) -> bool:
    partitions: list[str] = kept.table.metadata().partition_columns
    if partitions != list(recipe.policy.partition_by):
        return True
    if kept.fingerprint is not None:
        return kept.fingerprint.schema_hash != fingerprint.schema_hash
    names = [field.name for field in kept.table.schema().fields]
    is_nested = any("struct<" in column.type for column in fingerprint.columns)
    return is_nested or names != [column.name for column in fingerprint.columns]


def _repartition(
    kept: Entry,
    recipe: EntryDefinition,
    fingerprint: Fingerprint,
    storage_options: dict[str, str] | None,
) -> None:
    """Replace an entry's table by an empty one that is not served.

    To overwrite a schema changes neither the order of columns nor, back to none, the partitions.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy
    from deltalake import CommitProperties, DeltaTable, Schema  # noqa: PLC0415 - heavy

    # The types are those of the rows, which are written next.
    schema = pa.schema([(column.name, pa.string()) for column in fingerprint.columns])
    with observe_write(NO_ATTRIBUTES):
        DeltaTable.create(
            kept.uri,
            Schema.from_arrow(schema),
            mode="overwrite",
            partition_by=list(recipe.policy.partition_by),
            name=recipe.name,
            storage_options=storage_options,
            commit_properties=CommitProperties(
                custom_metadata=entry_metadata(None, recipe.policy.name)
            ),
        )


def _ordered(table: DeltaTable, recipe: EntryDefinition) -> int:
    """Order the files of what was just written; unordered they are as true."""
    try:
        with observe_write(NO_ATTRIBUTES):
            table.optimize.z_order(list(recipe.policy.zorder_by))
    except Exception as error:  # noqa: BLE001 - somebody wrote it anew meanwhile, or no such column
        report("cache", error)
    return int(table.version())


def invalidate(uri: str, policy: str, storage_options: dict[str, str] | None) -> int:
    """Commit that an entry is not to be served any more, and return the version of that commit.

    Args:
        uri: where it lies.
        policy: name of its policy.
        storage_options: how the table is opened.
    """
    from deltalake import CommitProperties, DeltaTable, write_deltalake  # noqa: PLC0415 - heavy

    table = DeltaTable(uri, storage_options=storage_options)
    with suppressed():  # its schema is all that is wanted
        nothing: Any = table.to_pyarrow_dataset().schema.empty_table()
    said = entry_metadata(None, policy)
    with observe_write(NO_ATTRIBUTES):
        write_deltalake(
            table,
            nothing,
            mode="append",
            commit_properties=CommitProperties(custom_metadata=said),
        )
    return int(table.version())
