"""The three tables of the ledger: what they hold, where they lie, how they are opened and appended to.

They are append-only, and their schemas only ever gain columns. A release that knows fewer columns
than a table has leaves them null; one that knows more adds them with its first row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import pyarrow as pa

from deltawitness.hashing import canonical_uri
from deltawitness.semconv import LEDGER_DIRECTORY, CacheOperation, CacheScope, CommitKey
from deltawitness.semconv import WITNESS_VERSION as VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltalake import CommitProperties, DeltaTable, Transaction

__all__ = [
    "INVENTORY",
    "RUNS",
    "SNAPSHOTS",
    "TABLES",
    "LedgerRoot",
    "LedgerTable",
    "Source",
    "commit_properties",
]


class Source(StrEnum):
    """How a row came into the inventory."""

    OBSERVED = "observed"
    """The process that wrote told it."""
    RECONCILED = "reconciled"
    """It was read from the table's log later."""


PARTITION = "event_date"

_TIME = pa.timestamp("us", tz="UTC")
_COUNT = pa.int64()
_TEXT = pa.string()

CONFIGURATION = {
    "delta.appendOnly": "true",
    "delta.checkpointInterval": "20",
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
    "delta.setTransactionRetentionDuration": "interval 30 days",
}
"""Checkpoints are close together, because every drain opens the table anew; the marks of drained
spools are kept far longer than any spool waits."""


@dataclass(frozen=True, slots=True)
class LedgerTable:
    """One table of the ledger.

    Attributes:
        name: its folder and its name in the metadata.
        alias: its name in the schema `cache_ledger` of a session.
        description: what a row of it is.
        schema: its columns, each with a comment; the partition column is the first.
    """

    name: str
    alias: str
    description: str
    schema: pa.Schema


def _schema(*columns: tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, metadata={"comment": comment}) for name, kind, comment in columns]
    )


INVENTORY = LedgerTable(
    "cache_inventory_v1",
    "inventory",
    "A row per observed operation",
    _schema(
        (PARTITION, pa.date32(), "day of event_time in UTC"),
        ("event_time", _TIME, "when the operation began"),
        ("run_id", _TEXT, "the run that it belongs to"),
        ("write_id", _TEXT, "its id, also in the commit; unique in this table"),
        ("trace_id", _TEXT, "W3C trace id, 32 hex digits"),
        ("span_id", _TEXT, "W3C span id, 16 hex digits"),
        ("job", _TEXT, "name of the job"),
        ("operation", _TEXT, "the engine's operation, as the Delta log spells it"),
        ("cache_operation", _TEXT, "the same in the cache layer's words"),
        ("scope", _TEXT, "view, dataset, artifact, metadata or ledger"),
        ("policy", _TEXT, "name of the cache policy"),
        ("key", _TEXT, "hash of the cache key"),
        ("result", _TEXT, "write, hit, miss, noop or error"),
        ("reason", _TEXT, "why a noop made no commit"),
        ("table_uri", _TEXT, "where the table lies, without credentials"),
        ("table_id", _TEXT, "hash of where it lies, as on the span"),
        ("table_name", _TEXT, "the table's logical name"),
        ("version", _COUNT, "the last version that it committed"),
        ("versions", pa.list_(_COUNT), "every version that it committed"),
        ("mode", _TEXT, "save mode of a WRITE"),
        ("schema_hash", _TEXT, "hash of the written schema"),
        ("plan_hash", _TEXT, "hash of the plan that made the rows"),
        ("plan_shape_hash", _TEXT, "the same without literals"),
        (
            "inputs",
            pa.list_(pa.struct([("table_id", _TEXT), ("uri", _TEXT), ("version", _COUNT)])),
            "the Delta tables that it was made from, at the versions that were read",
        ),
        ("rows_added", _COUNT, "rows"),
        ("rows_updated", _COUNT, "rows"),
        ("rows_deleted", _COUNT, "rows"),
        ("rows_copied", _COUNT, "rows"),
        ("files_added", _COUNT, "files"),
        ("files_removed", _COUNT, "files"),
        ("bytes_added", _COUNT, "bytes"),
        ("bytes_removed", _COUNT, "bytes"),
        ("retries", _COUNT, "attempts to commit beyond the first"),
        ("execution_ms", _COUNT, "milliseconds, as the engine says"),
        ("duration_ms", pa.float64(), "milliseconds that the engine's call took"),
        ("error_type", _TEXT, "why it failed, of a closed set"),
        ("exception_type", _TEXT, "class of what the engine raised"),
        ("error_message", _TEXT, "its text, redacted"),
        ("landed", _TEXT, "after a failure, whether the commit is in the log: yes, no or unknown"),
        ("host", _TEXT, "name of the machine"),
        ("pid", _COUNT, "process id"),
        ("thread", _TEXT, "name of the thread"),
        ("engine", _TEXT, "the engine that made the commit, as it calls itself"),
        ("deltalake_version", _TEXT, "version of the library delta-rs"),
        ("datafusion_version", _TEXT, "version of the library DataFusion"),
        ("witness_version", _TEXT, "version of deltawitness that told it"),
        ("source", _TEXT, "observed or reconciled"),
    ),
)

_COUNTS = ("reads", "hits", "misses", "writes", "snapshots", "noops", "errors")

RUNS = LedgerTable(
    "cache_run_summary_v1",
    "runs",
    "A row per finished run, and one for each further process that took part in it",
    _schema(
        (PARTITION, pa.date32(), "day of start_time in UTC"),
        ("run_id", _TEXT, "the run"),
        ("parent_run_id", _TEXT, "the run that it was opened in"),
        ("job", _TEXT, "name of the job"),
        ("is_part", pa.bool_(), "whether the process only took part in a run opened elsewhere"),
        ("start_time", _TIME, "when it was opened"),
        ("end_time", _TIME, "when it ended; of an abandoned run, when that was found"),
        ("status", _TEXT, "ok, error or abandoned"),
        ("error_type", _TEXT, "class of what ended it"),
        *((name, _COUNT, f"operations counted as {name}") for name in _COUNTS),
        (
            "operations",
            pa.list_(pa.struct([("operation", _TEXT), ("result", _TEXT), ("count", _COUNT)])),
            "how many operations ended how",
        ),
        ("rows_added", _COUNT, "rows"),
        ("rows_updated", _COUNT, "rows"),
        ("rows_deleted", _COUNT, "rows"),
        ("files_added", _COUNT, "files"),
        ("files_removed", _COUNT, "files"),
        ("bytes_added", _COUNT, "bytes"),
        ("bytes_removed", _COUNT, "bytes"),
        ("retries", _COUNT, "attempts to commit beyond the first"),
        ("tables_touched", _COUNT, "tables that were written"),
        ("table_ids", pa.list_(_TEXT), "their ids"),
        ("dropped", _COUNT, "operations of the process that could not be told"),
        ("cache_root", _TEXT, "where the ledger lies, without credentials"),
        ("host", _TEXT, "name of the machine"),
        ("pid", _COUNT, "process id"),
        ("python_version", _TEXT, "version of Python"),
        ("deltalake_version", _TEXT, "version of the library delta-rs"),
        ("datafusion_version", _TEXT, "version of the library DataFusion"),
        ("witness_version", _TEXT, "version of deltawitness"),
        (
            "attributes",
            pa.list_(pa.struct([("name", _TEXT), ("value", _TEXT)])),
            "the caller's own facts about the run",
        ),
    ),
)

SNAPSHOTS = LedgerTable(
    "cache_snapshot_registry_v1",
    "snapshots",
    "A row per metadata snapshot",
    _schema(
        (PARTITION, pa.date32(), "day of event_time in UTC"),
        ("event_time", _TIME, "when it was taken"),
        ("snapshot", _TEXT, "its name"),
        ("run_id", _TEXT, "the run that took it"),
        ("path", _TEXT, "where it lies, without credentials"),
        ("version", _COUNT, "the version of the table that holds it"),
        ("rows", _COUNT, "rows"),
        ("files", _COUNT, "files"),
        ("schema_hash", _TEXT, "hash of its schema"),
        ("content_hash", _TEXT, "hash of its rows, in any order"),
        ("result", _TEXT, "write, noop or error"),
        ("witness_version", _TEXT, "version of deltawitness that told it"),
    ),
)

TABLES = (INVENTORY, RUNS, SNAPSHOTS)


@dataclass(frozen=True, slots=True)
class LedgerRoot:
    """Where a ledger lies, and how to get there.

    Attributes:
        uri: the cache root.
        storage_options: as for `DeltaTable`.

    >>> LedgerRoot("/data/cache").uri_of(RUNS)
    '/data/cache/cache_ledgers/cache_run_summary_v1'
    """

    uri: str
    storage_options: dict[str, str] | None = field(default=None, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk of this machine."""
        return canonical_uri(self.uri).startswith("file://")

    def uri_of(self, table: LedgerTable) -> str:
        """Return where a table lies."""
        return f"{self.uri.rstrip('/')}/{LEDGER_DIRECTORY}/{table.name}"

    def opened(self, table: LedgerTable) -> DeltaTable | None:
        """Return the table at its newest version, or None when there is none yet.

        Raises:
            OSError: the storage cannot be read.
            DeltaError: the table is damaged.
        """
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy
        from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415 - heavy

        try:
            return DeltaTable(self.uri_of(table), storage_options=self.storage_options)
        except TableNotFoundError:
            return None

    def made(self, table: LedgerTable) -> DeltaTable:
        """Return the table at its newest version; make it when there is none yet."""
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy

        return self.opened(table) or DeltaTable.create(
            self.uri_of(table),
            schema=table.schema,
            mode="ignore",
            partition_by=[PARTITION],
            name=table.name,
            description=table.description,
            configuration=CONFIGURATION,
            storage_options=self.storage_options,
            commit_properties=commit_properties(CacheOperation.CREATE),
        )


def commit_properties(
    operation: CacheOperation, transactions: Sequence[Transaction] = ()
) -> CommitProperties:
    """Return what a commit to the ledger's own tables says of itself.

    Args:
        operation: what is done.
        transactions: the marks of what is thereby drained.
    """
    from deltalake import CommitProperties  # noqa: PLC0415 - heavy

    return CommitProperties(
        custom_metadata={
            CommitKey.CACHE_SCOPE.value: CacheScope.LEDGER.value,
            CommitKey.CACHE_OPERATION.value: operation.value,
            CommitKey.CACHE_POLICY.value: CacheScope.LEDGER.value,
            CommitKey.WITNESS_VERSION.value: VERSION,
        },
        app_transactions=list(transactions) or None,
        max_commit_retries=COMMIT_RETRIES,
    )


COMMIT_RETRIES = 3
"""Attempts that the engine makes at once, before a drain waits and looks anew."""
