"""The ledger's three tables: their schemas and locations, and functions to open and create them.

The tables are append-only and their schemas only gain columns. A release that does not know a
column leaves it null; one that has a new column adds it with its first row.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from deltawitness.events import METRIC_MEANINGS
from deltawitness.locations import canonical_uri, local_path
from deltawitness.semconv import (
    LEDGER_DIRECTORY,
    SHARD_DIRECTORY,
    CacheOperation,
    CacheScope,
    CommitKey,
)
from deltawitness.semconv import WITNESS_VERSION as VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable, Transaction

__all__ = [
    "COUNT_MEANINGS",
    "INVENTORY",
    "OPENER_COLUMNS",
    "ORIGIN_COLUMNS",
    "RUNS",
    "SNAPSHOTS",
    "TABLES",
    "UNSUMMED_COUNTS",
    "Column",
    "ColumnKind",
    "LedgerRoot",
    "LedgerTable",
    "Source",
    "commit_properties",
]


class Source(StrEnum):
    """How a row came into the inventory."""

    OBSERVED = "observed"
    """Recorded by the process that made the write."""
    RECONCILED = "reconciled"
    """Added by a reconcile from the table's log."""
    RECONSTRUCTED = "reconstructed"
    """Added by an adopt from the table's log, of a commit without our metadata; its run is inferred."""
    SPARK = "spark"
    """Added by a reconcile or an adopt from the table's log, of a commit of an observed Spark session."""


PARTITION = "event_date"


class ColumnKind(StrEnum):
    """The type of a column; its Arrow type is built on demand, as importing pyarrow is slow."""

    DAY = "day"
    TIME = "time"
    """A timestamp in microseconds, UTC."""
    TEXT = "text"
    TEXTS = "texts"
    COUNT = "count"
    COUNTS = "counts"
    NUMBER = "number"
    FLAG = "flag"
    INPUTS = "inputs"
    """Tables with the versions that were read."""
    TALLIES = "tallies"
    """Counts by operation and result."""
    PAIRS = "pairs"
    """Name-value pairs."""


@cache
def _arrow_type(kind: ColumnKind) -> pa.DataType:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    text, count = pa.string(), pa.int64()
    return {
        ColumnKind.DAY: pa.date32(),
        ColumnKind.TIME: pa.timestamp("us", tz="UTC"),
        ColumnKind.TEXT: text,
        ColumnKind.TEXTS: pa.list_(text),
        ColumnKind.COUNT: count,
        ColumnKind.COUNTS: pa.list_(count),
        ColumnKind.NUMBER: pa.float64(),
        ColumnKind.FLAG: pa.bool_(),
        ColumnKind.INPUTS: pa.list_(
            pa.struct([("table_id", text), ("uri", text), ("version", count)])
        ),
        ColumnKind.TALLIES: pa.list_(
            pa.struct([("operation", text), ("result", text), ("count", count)])
        ),
        ColumnKind.PAIRS: pa.list_(pa.struct([("name", text), ("value", text)])),
    }[kind]


CONFIGURATION = {
    "delta.appendOnly": "true",
    "delta.checkpointInterval": "20",
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
    "delta.setTransactionRetentionDuration": "interval 30 days",
}
"""Checkpoints are frequent because every drain opens the table. Application transactions of drained
spools are retained far longer than a spool waits."""

SHARD_CONFIGURATION = {**CONFIGURATION, "delta.appendOnly": "false"}
"""A fold deletes rows of a shard once they are in the main table."""


Column: TypeAlias = tuple[str, ColumnKind, str]
"""Name, type and comment of a column; none may change once released."""


@dataclass(frozen=True, slots=True)
class LedgerTable:
    """One table of the ledger.

    Attributes:
        name: its folder and its name in the Delta metadata.
        alias: its name in the schema `cache_ledger` of a session.
        description: the meaning of a row.
        columns: its columns; the partition column is the first.
    """

    name: str
    alias: str
    description: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of its columns, with their comments."""
        return _schema(self.columns)


@cache
def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415 - heavy

    return pa.schema(
        [
            pa.field(name, _arrow_type(kind), metadata={"comment": comment})
            for name, kind, comment in columns
        ]
    )


INVENTORY = LedgerTable(
    "cache_inventory_v1",
    "inventory",
    "A row per observed operation",
    (
        (PARTITION, ColumnKind.DAY, "day of event_time in UTC"),
        ("event_time", ColumnKind.TIME, "when the operation began"),
        ("run_id", ColumnKind.TEXT, "the run that it belongs to"),
        ("write_id", ColumnKind.TEXT, "its id, also in the commit; unique in this table"),
        ("trace_id", ColumnKind.TEXT, "W3C trace id, 32 hex digits"),
        ("span_id", ColumnKind.TEXT, "W3C span id, 16 hex digits"),
        ("job", ColumnKind.TEXT, "name of the job"),
        ("operation", ColumnKind.TEXT, "the engine's operation, as the Delta log spells it"),
        ("cache_operation", ColumnKind.TEXT, "the same in the cache layer's words"),
        ("scope", ColumnKind.TEXT, "view, dataset, artifact, metadata or ledger"),
        ("policy", ColumnKind.TEXT, "name of the cache policy"),
        ("key", ColumnKind.TEXT, "hash of the cache key"),
        ("result", ColumnKind.TEXT, "write, hit, miss, noop or error"),
        ("reason", ColumnKind.TEXT, "why a noop made no commit, or a read was a miss"),
        ("table_uri", ColumnKind.TEXT, "where the table lies, without credentials"),
        ("table_id", ColumnKind.TEXT, "hash of where it lies, as on the span"),
        ("table_name", ColumnKind.TEXT, "the table's logical name"),
        ("version", ColumnKind.COUNT, "the last version that it committed"),
        ("versions", ColumnKind.COUNTS, "every version that it committed"),
        ("mode", ColumnKind.TEXT, "save mode of a WRITE"),
        ("schema_hash", ColumnKind.TEXT, "hash of the written schema"),
        ("plan_hash", ColumnKind.TEXT, "hash of the plan that made the rows"),
        ("plan_shape_hash", ColumnKind.TEXT, "the same without literals"),
        (
            "inputs",
            ColumnKind.INPUTS,
            "the Delta tables that it was made from, at the versions that were read",
        ),
        ("rows_added", ColumnKind.COUNT, "rows"),
        ("rows_updated", ColumnKind.COUNT, "rows"),
        ("rows_deleted", ColumnKind.COUNT, "rows"),
        ("rows_copied", ColumnKind.COUNT, "rows"),
        ("files_added", ColumnKind.COUNT, "files"),
        ("files_removed", ColumnKind.COUNT, "files"),
        ("bytes_added", ColumnKind.COUNT, "bytes"),
        ("bytes_removed", ColumnKind.COUNT, "bytes"),
        ("retries", ColumnKind.COUNT, "attempts to commit beyond the first"),
        ("execution_ms", ColumnKind.COUNT, "milliseconds, as the engine says"),
        ("duration_ms", ColumnKind.NUMBER, "milliseconds that the engine's call took"),
        ("error_type", ColumnKind.TEXT, "why it failed, of a closed set"),
        ("exception_type", ColumnKind.TEXT, "class of what the engine raised"),
        ("error_message", ColumnKind.TEXT, "its text, redacted"),
        (
            "landed",
            ColumnKind.TEXT,
            "after a failure, whether the commit is in the log: yes, no or unknown",
        ),
        ("host", ColumnKind.TEXT, "name of the machine"),
        ("pid", ColumnKind.COUNT, "process id"),
        ("thread", ColumnKind.TEXT, "name of the thread"),
        ("engine", ColumnKind.TEXT, "the engine that made the commit, as it calls itself"),
        ("deltalake_version", ColumnKind.TEXT, "version of the library delta-rs"),
        ("datafusion_version", ColumnKind.TEXT, "version of the library DataFusion"),
        ("witness_version", ColumnKind.TEXT, "version of deltawitness that told it"),
        ("source", ColumnKind.TEXT, "observed or reconciled"),
        (
            "run_inputs",
            ColumnKind.INPUTS,
            "where no plan says what was read: the Delta tables that the run had read before; inferred",
        ),
        ("files_deleted", ColumnKind.COUNT, "files that a VACUUM deleted"),
        ("bytes_deleted", ColumnKind.COUNT, "bytes that a VACUUM deleted"),
        ("rows_served", ColumnKind.COUNT, "rows that a cache hit served"),
        ("message", ColumnKind.TEXT, "why the program made the write, in its words"),
        (
            "code_file",
            ColumnKind.TEXT,
            "file of the program's call, relative to its project or to site-packages",
        ),
        ("code_line", ColumnKind.COUNT, "line of the program's call"),
        ("code_function", ColumnKind.TEXT, "function of the program's call, with its module"),
        ("parts", ColumnKind.COUNT, "parts of a distributed write"),
        (
            "overhead_ms",
            ColumnKind.NUMBER,
            "milliseconds that the observation took on the calling thread",
        ),
        (
            "expectation_result",
            ColumnKind.TEXT,
            "of a write with expectations: passed, warned, failed or quarantined",
        ),
        ("expectations", ColumnKind.TEXT, "rules that were checked, separated by commas"),
        ("expectations_unmet", ColumnKind.TEXT, "rules that the rows do not meet"),
        (
            "column_lineage",
            ColumnKind.TEXT,
            "from which columns the plan made the written columns, as JSON",
        ),
    ),
)

_COUNTS = ("reads", "hits", "misses", "writes", "snapshots", "noops", "errors")

ORIGIN_COLUMNS: tuple[Column, ...] = (
    ("message", ColumnKind.TEXT, "why the run writes, in the words of the program"),
    ("author", ColumnKind.TEXT, "who the run writes for"),
    ("system", ColumnKind.TEXT, "scheduler or CI system that the run was detected in"),
    ("pipeline", ColumnKind.TEXT, "name of the DAG, flow, workflow or pipeline in the system"),
    ("pipeline_run_id", ColumnKind.TEXT, "id of the run in the system"),
    ("task", ColumnKind.TEXT, "name of the task in the system"),
    ("attempt", ColumnKind.COUNT, "number of the attempt in the system"),
    ("code_version", ColumnKind.TEXT, "commit or version of the program"),
    ("image", ColumnKind.TEXT, "image of the container"),
    ("pod", ColumnKind.TEXT, "name of the Kubernetes pod"),
    ("link", ColumnKind.TEXT, "URL of the run in the system"),
)
"""Columns with the purpose of a run and where it runs."""

OPENER_COLUMNS = (
    *("parent_run_id", "job", "status", "error_type", "cache_root", "host", "pid", "exit_code"),
    *(name for name, *_ in ORIGIN_COLUMNS),
    *("python_version", "deltalake_version", "datafusion_version", "witness_version"),
)
"""Columns of a run whose value is that of the process that opened it."""

UNSUMMED_COUNTS = frozenset({"pid", "tables_touched", "exit_code", "attempt"})
"""Columns of a run that are integers, and that are not summed over its processes."""

RUNS = LedgerTable(
    "cache_run_summary_v1",
    "runs",
    "A row per finished run, and one for each further process that took part in it",
    (
        (PARTITION, ColumnKind.DAY, "day of start_time in UTC"),
        ("run_id", ColumnKind.TEXT, "the run"),
        ("parent_run_id", ColumnKind.TEXT, "the run that it was opened in"),
        ("job", ColumnKind.TEXT, "name of the job"),
        (
            "is_part",
            ColumnKind.FLAG,
            "whether the process only took part in a run opened elsewhere",
        ),
        ("start_time", ColumnKind.TIME, "when it was opened"),
        ("end_time", ColumnKind.TIME, "when it ended; of an abandoned run, when that was found"),
        # The comment is that of the first release and must not change: a schema with another column
        # comment does not merge with an existing table's. The status may also be `reconstructed`.
        ("status", ColumnKind.TEXT, "ok, error or abandoned"),
        ("error_type", ColumnKind.TEXT, "class of what ended it"),
        *((name, ColumnKind.COUNT, f"operations counted as {name}") for name in _COUNTS),
        (
            "operations",
            ColumnKind.TALLIES,
            "how many operations ended how",
        ),
        ("rows_added", ColumnKind.COUNT, "rows"),
        ("rows_updated", ColumnKind.COUNT, "rows"),
        ("rows_deleted", ColumnKind.COUNT, "rows"),
        ("files_added", ColumnKind.COUNT, "files"),
        ("files_removed", ColumnKind.COUNT, "files"),
        ("bytes_added", ColumnKind.COUNT, "bytes"),
        ("bytes_removed", ColumnKind.COUNT, "bytes"),
        ("retries", ColumnKind.COUNT, "attempts to commit beyond the first"),
        ("tables_touched", ColumnKind.COUNT, "tables that were written"),
        ("table_ids", ColumnKind.TEXTS, "their ids"),
        ("dropped", ColumnKind.COUNT, "operations of the process that could not be told"),
        ("cache_root", ColumnKind.TEXT, "where the ledger lies, without credentials"),
        ("host", ColumnKind.TEXT, "name of the machine"),
        ("pid", ColumnKind.COUNT, "process id"),
        ("python_version", ColumnKind.TEXT, "version of Python"),
        ("deltalake_version", ColumnKind.TEXT, "version of the library delta-rs"),
        ("datafusion_version", ColumnKind.TEXT, "version of the library DataFusion"),
        ("witness_version", ColumnKind.TEXT, "version of deltawitness"),
        (
            "attributes",
            ColumnKind.PAIRS,
            "the caller's own facts about the run",
        ),
        ("files_deleted", ColumnKind.COUNT, "files that VACUUMs deleted"),
        ("bytes_deleted", ColumnKind.COUNT, "bytes that VACUUMs deleted"),
        ("rows_served", ColumnKind.COUNT, "rows that cache hits served"),
        (
            "exit_code",
            ColumnKind.COUNT,
            "exit code of the process that the run ended, -N when signal N ended it; null when nobody saw it",
        ),
        *ORIGIN_COLUMNS,
    ),
)

SNAPSHOTS = LedgerTable(
    "cache_snapshot_registry_v1",
    "snapshots",
    "A row per metadata snapshot",
    (
        (PARTITION, ColumnKind.DAY, "day of event_time in UTC"),
        ("event_time", ColumnKind.TIME, "when it was taken"),
        ("snapshot", ColumnKind.TEXT, "its name"),
        ("run_id", ColumnKind.TEXT, "the run that took it"),
        ("path", ColumnKind.TEXT, "where it lies, without credentials"),
        ("version", ColumnKind.COUNT, "the version of the table that holds it"),
        ("rows", ColumnKind.COUNT, "rows"),
        ("files", ColumnKind.COUNT, "files"),
        ("schema_hash", ColumnKind.TEXT, "hash of its schema"),
        ("content_hash", ColumnKind.TEXT, "hash of its rows, in any order"),
        ("result", ColumnKind.TEXT, "write, noop or error"),
        ("witness_version", ColumnKind.TEXT, "version of deltawitness that told it"),
    ),
)

TABLES = (INVENTORY, RUNS, SNAPSHOTS)

COUNT_MEANINGS: Mapping[str, str] = {
    **METRIC_MEANINGS,
    "rows_served": "rows of the entry that a cache hit served",
    "reads": "reads of cache entries, with any result",
    "hits": "reads that were served from the cache",
    "misses": "reads that were computed",
    "writes": "operations that committed or exported; a snapshot counts by the write in it",
    "snapshots": "parts of metadata snapshots, with any result",
    "noops": "operations that succeeded without a commit",
    "errors": "operations that failed, including those whose commit landed",
    "tables_touched": "tables with a commit by the run, including failed writes that landed",
}
"""The meaning of the count columns, in more words than their comments. Comments of released columns
must not change: delta-rs refuses rows whose column comment differs from the table's."""


@dataclass(frozen=True, slots=True)
class LedgerRoot:
    """The location of a ledger's main tables, or of a shard's, and the storage options to open them.

    Attributes:
        uri: the cache root.
        storage_options: as for `DeltaTable`.
        shard: name of the shard; None for the main tables.

    >>> LedgerRoot("/data/cache").uri_of(RUNS)
    '/data/cache/cache_ledgers/cache_run_summary_v1'
    >>> LedgerRoot("/data/cache").of_shard("team-a").uri_of(RUNS)
    '/data/cache/cache_ledgers/shards/team-a/cache_run_summary_v1'
    """

    uri: str
    storage_options: dict[str, str] | None = field(default=None, repr=False)
    shard: str | None = None

    def of_shard(self, shard: str | None) -> LedgerRoot:
        """Return the location of the tables of a shard of this ledger; of the main ones when None."""
        return self if shard == self.shard else replace(self, shard=shard)

    @property
    def is_local(self) -> bool:
        """Whether it is on a local file system."""
        return canonical_uri(self.uri).startswith("file://")

    @property
    def shards_uri(self) -> str:
        """The location of the folder with a folder for each shard."""
        return f"{self.uri.rstrip('/')}/{LEDGER_DIRECTORY}/{SHARD_DIRECTORY}"

    def uri_of(self, table: LedgerTable) -> str:
        """Return the location of a table."""
        if self.shard is not None:
            return f"{self.shards_uri}/{self.shard}/{table.name}"
        return f"{self.uri.rstrip('/')}/{LEDGER_DIRECTORY}/{table.name}"

    def open_table(self, table: LedgerTable) -> DeltaTable | None:
        """Open a table at its newest version; return None if it does not exist.

        Raises:
            OSError: the storage cannot be read.
            DeltaError: the table is damaged.
        """
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy
        from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415 - heavy

        uri = self.uri_of(table)
        path = local_path(uri)
        if path is not None and not Path(path).exists():
            return None  # delta-rs before 1.2.0 would create the folder
        try:
            return DeltaTable(uri, storage_options=self.storage_options)
        except TableNotFoundError:
            return None

    def open_or_create(self, table: LedgerTable) -> DeltaTable:
        """Open a table at its newest version; create it if it does not exist.

        Raises:
            OSError: the storage cannot be read or written.
            DeltaError: the table is damaged, or cannot be created.
        """
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy
        from deltalake.exceptions import DeltaError  # noqa: PLC0415 - heavy

        opened = self.open_table(table)
        if opened is not None:
            return opened
        try:
            return DeltaTable.create(
                self.uri_of(table),
                schema=table.schema,
                mode="ignore",
                partition_by=[PARTITION],
                name=table.name,
                description=table.description,
                configuration=CONFIGURATION if self.shard is None else SHARD_CONFIGURATION,
                storage_options=self.storage_options,
                commit_properties=commit_properties(CacheOperation.CREATE),
            )
        except DeltaError:
            # Two creations at the same time conflict, despite `mode="ignore"`.
            opened = self.open_table(table)
            if opened is None:
                raise
            return opened


def commit_properties(
    operation: CacheOperation,
    transactions: Sequence[Transaction] = (),
    *,
    retries: int | None = None,
) -> CommitProperties:
    """Return the properties of a commit to one of the ledger's tables.

    Args:
        operation: recorded in the commit's metadata.
        transactions: application transactions to commit with it.
        retries: commit retries inside delta-rs; `COMMIT_RETRIES` when None.
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
        max_commit_retries=COMMIT_RETRIES if retries is None else retries,
    )


COMMIT_RETRIES = 3
"""Commit retries inside delta-rs, without a wait; afterwards a drain waits and reads the table
again."""
