"""Every name deltawitness gives to anything: attributes, instruments, events, variables, commit keys.

No other module spells one of these strings. Where a name comes from a specification, the line
above it says which.

* `db.*`, `error.*`, `exception.*`: OpenTelemetry semantic conventions 1.44, database client
  spans, metrics and exceptions (https://opentelemetry.io/docs/specs/semconv/database/).
* `cicd.*`: the CI/CD registry of the same conventions (release candidate).
* `delta.*`, `cache.*`, `deltawitness.*`: ours, for what the conventions have no name for.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

WITNESS_VERSION: Final = "0.1.0"
"""The version of this library, also stamped on each commit as `witness_version`."""

SCOPE_NAME: Final = "deltawitness"
"""Instrumentation scope of the tracer, meter and logger."""

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""Schema URL of the conventions that our telemetry follows."""

DB_SYSTEM_DELTALAKE: Final = "deltalake"
"""`db.system.name` of a commit: a custom value, lowercase and without version, as the spec asks."""

DB_SYSTEM_DATAFUSION: Final = "datafusion"
"""`db.system.name` of a query, and of files that DataFusion writes."""


# --- closed sets ---------------------------------------------------------------------------------


class CacheScope(StrEnum):
    """What kind of thing a write keeps (`cache.scope`)."""

    VIEW = "view"
    DATASET = "dataset"
    ARTIFACT = "artifact"
    METADATA = "metadata"
    LEDGER = "ledger"


class CacheOperation(StrEnum):
    """What is done to a cached thing (`cache.operation`)."""

    WRITE = "write"
    MERGE = "merge"
    UPDATE = "update"
    DELETE = "delete"
    OPTIMIZE = "optimize"
    VACUUM = "vacuum"
    RESTORE = "restore"
    REPAIR = "repair"
    CREATE = "create"
    ALTER = "alter"
    CONVERT = "convert"
    CHECKPOINT = "checkpoint"
    CLEANUP = "cleanup"
    READ = "read"
    SNAPSHOT = "snapshot"
    INVALIDATE = "invalidate"
    PRUNE = "prune"
    VERIFY = "verify"
    REGISTER = "register"


UNCOMMITTED_OPERATIONS: Final = frozenset(
    {
        CacheOperation.READ,
        CacheOperation.SNAPSHOT,
        CacheOperation.VERIFY,
        CacheOperation.REGISTER,
    }
)
"""Operations that make no commit of their own: their rows name a version that another write made."""

OPERATION_REGISTER: Final = CacheOperation.REGISTER.value.upper()
"""The `operation` of the ledger's row of a table that was registered in a session."""


class CacheResult(StrEnum):
    """How it ended (`cache.result`)."""

    WRITE = "write"
    HIT = "hit"
    MISS = "miss"
    NOOP = "noop"
    ERROR = "error"


class Operation(StrEnum):
    """The engine's operation (`db.operation.name`), spelled as the Delta log spells it where it does."""

    WRITE = "WRITE"
    MERGE = "MERGE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    OPTIMIZE = "OPTIMIZE"
    VACUUM = "VACUUM"
    RESTORE = "RESTORE"
    REPAIR = "FSCK"
    CREATE_TABLE = "CREATE TABLE"
    CONVERT = "CONVERT"
    ADD_COLUMNS = "ADD COLUMN"
    ADD_CONSTRAINT = "ADD CONSTRAINT"
    DROP_CONSTRAINT = "DROP CONSTRAINT"
    ADD_FEATURE = "ADD FEATURE"
    DROP_NOT_NULL = "CHANGE COLUMN"
    SET_TABLE_PROPERTIES = "SET TBLPROPERTIES"
    UPDATE_TABLE_METADATA = "UPDATE TABLE METADATA"
    """A new name or description."""
    SET_COLUMN_METADATA = "UPDATE FIELD METADATA"
    CHECKPOINT = "CHECKPOINT"
    CLEANUP = "CLEANUP METADATA"
    COMPACT_LOGS = "COMPACT LOGS"
    GENERATE = "GENERATE"
    COPY = "COPY"
    """DataFusion wrote files that are no Delta table: `COPY TO`, `write_parquet` and its kin."""
    SELECT = "SELECT"
    """A query whose rows went to the program."""


def system_of(operation: Operation) -> str:
    """Return the `db.system.name` of an operation: which engine carries it out.

    >>> system_of(Operation.MERGE), system_of(Operation.SELECT)
    ('deltalake', 'datafusion')
    """
    is_datafusions = operation in {Operation.COPY, Operation.SELECT}
    return DB_SYSTEM_DATAFUSION if is_datafusions else DB_SYSTEM_DELTALAKE


class ErrorType(StrEnum):
    """The closed taxonomy of `error.type`, derived from the engine's class and text."""

    COMMIT_CONFLICT = "commit_conflict"
    CONCURRENT_TRANSACTION = "concurrent_transaction"
    TABLE_EXISTS = "table_exists"
    TABLE_NOT_FOUND = "table_not_found"
    VERSION_NOT_FOUND = "version_not_found"
    SCHEMA_MISMATCH = "schema_mismatch"
    PARTITION_MISMATCH = "partition_mismatch"
    CONSTRAINT_VIOLATION = "constraint_violation"
    APPEND_ONLY = "append_only"
    PROTOCOL_UNSUPPORTED = "protocol_unsupported"
    LOG_CORRUPT = "log_corrupt"
    METADATA_REJECTED = "metadata_rejected"
    INVALID_SQL = "invalid_sql"
    INVALID_ARGUMENT = "invalid_argument"
    CAST_FAILED = "cast_failed"
    EMPTY_INPUT = "empty_input"
    SOURCE_FAILED = "source_failed"
    PERMISSION_DENIED = "permission_denied"
    STORAGE_FULL = "storage_full"
    STORAGE_UNREACHABLE = "storage_unreachable"
    STORAGE_FAILED = "storage_failed"
    OUT_OF_MEMORY = "out_of_memory"
    INTERRUPTED = "interrupted"
    ENGINE_PANIC = "engine_panic"
    OTHER = "_OTHER"
    """Fallback of the OpenTelemetry conventions for an error outside the known set."""


POLICY_UNMANAGED: Final = "unmanaged"
"""`cache.policy` of a plain write that no policy was named for."""

POLICY_OVERFLOW: Final = "_other"
"""`cache.policy` on metrics once the cap of distinct policies is reached."""

POLICY_CAP: Final = 64
"""How many distinct policies metrics tell apart before :data:`POLICY_OVERFLOW`."""


# --- commit keys (design decision 7) ---------------------------------------------------------------


class CommitKey(StrEnum):
    """The flat keys that a witnessed commit carries in its `commitInfo`."""

    RUN_ID = "run_id"
    WRITE_ID = "write_id"
    TRACEPARENT = "traceparent"
    CACHE_POLICY = "cache_policy"
    CACHE_SCOPE = "cache_scope"
    CACHE_OPERATION = "cache_operation"
    CACHE_KEY = "cache_key"
    CACHE_RESULT = "cache_result"
    SCHEMA_HASH = "schema_hash"
    PLAN_HASH = "plan_hash"
    PLAN_SHAPE_HASH = "plan_shape_hash"
    INPUTS = "inputs"
    RUN_INPUTS = "run_inputs"
    WITNESS_VERSION = "witness_version"


CACHE_ENTRY: Final = "cache_entry"
"""The commit key under which a cache keeps what an entry was made from, as JSON."""

RECEIPT_ID: Final = "receipt_id"
"""The commit key by which a write that creates a table finds its own commit: delta-rs names no version."""

USER_METADATA: Final = "userMetadata"
"""The one commit key that Spark, Databricks and Trino show in DESCRIBE HISTORY."""

RESERVED_COMMIT_KEYS: Final = frozenset(
    {
        "operation",
        "timestamp",
        "engineInfo",
        "operationMetrics",
        "version",
        "inCommitTimestamp",
        "tags",
        "txnId",
        "job",
        "notebook",
        "dataChange",
        "clusterId",
        "lastManifestCommit",
        "operationParameters",
        "readVersion",
        "isolationLevel",
        "isBlindAppend",
        "userId",
        "userName",
        "clientVersion",
        USER_METADATA,
    }
)
"""Keys that we never emit of our own accord: delta-rs rejects or replaces them, or Spark's typed
`CommitInfo` reader fails on a value of another type. The caller's own are passed through."""


BREAKING_COMMIT_KEYS: Final = frozenset(
    {"dataChange", "inCommitTimestamp", "job", "lastManifestCommit", "notebook", "tags", "txnId"}
)
"""Those of the reserved keys that delta-rs writes as a caller gives them, although other readers
expect a number, a boolean, a map, a structure or a transaction's id there: a warning, or refused."""


# --- span and log attributes ------------------------------------------------------------------------

# OpenTelemetry database conventions, stable
DB_SYSTEM_NAME: Final = "db.system.name"
DB_OPERATION_NAME: Final = "db.operation.name"
DB_COLLECTION_NAME: Final = "db.collection.name"
DB_NAMESPACE: Final = "db.namespace"
DB_QUERY_SUMMARY: Final = "db.query.summary"
# OpenTelemetry database conventions, development
DB_RESPONSE_RETURNED_ROWS: Final = "db.response.returned_rows"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"

# OpenTelemetry process registry, development; on the span of a run
PROCESS_EXIT_CODE: Final = "process.exit.code"
"""Exit code that a run gave its process; -N where signal N ended it."""

# OpenTelemetry CI/CD registry, release candidate; spans and logs only
CICD_PIPELINE_NAME: Final = "cicd.pipeline.name"
CICD_PIPELINE_RUN_ID: Final = "cicd.pipeline.run.id"
CICD_PIPELINE_TASK_NAME: Final = "cicd.pipeline.task.name"
CICD_PIPELINE_TASK_RUN_ID: Final = "cicd.pipeline.task.run.id"

CACHE_POLICY: Final = "cache.policy"
CACHE_SCOPE: Final = "cache.scope"
CACHE_OPERATION: Final = "cache.operation"
CACHE_RESULT: Final = "cache.result"
CACHE_KEY: Final = "cache.key"
CACHE_NAME: Final = "cache.name"
"""Name of the entry, as far as tables may be named in telemetry."""
CACHE_MISS_REASON: Final = "cache.miss.reason"
"""Why an entry was not served: members of the closed set `deltawitness.cache.reasons.Miss`."""
CACHE_VERDICT: Final = "cache.verdict"
"""What a verification found: a member of the closed set `deltawitness.cache.verification.Verdict`."""
CACHE_SCHEMA_HASH: Final = "cache.schema.hash"
CACHE_PLAN_HASH: Final = "cache.plan.hash"
CACHE_PLAN_SHAPE_HASH: Final = "cache.plan.shape.hash"

RUN_ID: Final = "deltawitness.run.id"
RUN_PARENT_ID: Final = "deltawitness.run.parent.id"
RUN_ATTRIBUTE_PREFIX: Final = "deltawitness.run.attribute."
FORCE_SAMPLE: Final = "deltawitness.sample.force"
"""True on every span of a run whose traces a tail sampler shall keep whole."""
RUN_HAMILTON_ID: Final = "hamilton.run.id"
"""The run attribute that holds the id which Apache Hamilton gives to an execution."""
WRITE_ID: Final = "deltawitness.write.id"
COMPONENT: Final = "deltawitness.component"
"""Which part of ours an internal error or a drop came from: a closed set of component names."""
EVENT_KIND: Final = "deltawitness.event.kind"
PAYLOAD: Final = "deltawitness.payload"
PAYLOAD_TRUNCATED: Final = "deltawitness.payload.truncated"
LANDED: Final = "deltawitness.landed"
"""After a failure: did the commit land all the same (`yes`, `no`, `unknown`)?"""

DELTA_TABLE_ID: Final = "delta.table.id"
DELTA_TABLE_VERSION: Final = "delta.table.version"
DELTA_WRITE_MODE: Final = "delta.write.mode"
DELTA_CHANGE: Final = "delta.change"
"""What a row, file or byte count counts: `added`, `updated`, `deleted`, `copied`, `removed`."""
DELTA_COMMIT_ROWS_ADDED: Final = "delta.commit.rows.added"
DELTA_COMMIT_ROWS_UPDATED: Final = "delta.commit.rows.updated"
DELTA_COMMIT_ROWS_DELETED: Final = "delta.commit.rows.deleted"
DELTA_COMMIT_ROWS_COPIED: Final = "delta.commit.rows.copied"
DELTA_COMMIT_FILES_ADDED: Final = "delta.commit.files.added"
DELTA_COMMIT_FILES_REMOVED: Final = "delta.commit.files.removed"
DELTA_COMMIT_BYTES_ADDED: Final = "delta.commit.size.added"
DELTA_COMMIT_BYTES_REMOVED: Final = "delta.commit.size.removed"
DELTA_COMMIT_FILES_DELETED: Final = "delta.commit.files.deleted"
DELTA_COMMIT_BYTES_DELETED: Final = "delta.commit.size.deleted"
DELTA_COMMIT_RETRIES: Final = "delta.commit.retries"
DELTA_INPUTS: Final = "delta.inputs"
"""The Delta tables a write was made from, each as `table_id@version`."""
DELTA_RUN_INPUTS: Final = "delta.run_inputs"
"""The Delta tables that the run had read before a write whose own inputs are not known, each as
`table_id@version`: inferred, the write need not be made from all of them."""

EXPORT_ROWS: Final = "deltawitness.export.rows"
EXPORT_FILES: Final = "deltawitness.export.files"
EXPORT_SIZE: Final = "deltawitness.export.size"
"""Bytes of the files that were written outside Delta."""


# --- instruments -------------------------------------------------------------------------------------

# OpenTelemetry database conventions, stable
METRIC_DB_CLIENT_OPERATION_DURATION: Final = "db.client.operation.duration"
# OpenTelemetry database conventions, development
METRIC_DB_CLIENT_RETURNED_ROWS: Final = "db.client.response.returned_rows"
METRIC_CACHE_OPERATION_COUNT: Final = "cache.operation.count"
METRIC_CACHE_OPERATION_DURATION: Final = "cache.operation.duration"
METRIC_COMMIT_ROWS: Final = "delta.commit.rows"
METRIC_COMMIT_FILES: Final = "delta.commit.files"
METRIC_COMMIT_SIZE: Final = "delta.commit.size"
METRIC_COMMIT_RETRIES: Final = "delta.commit.retries"
METRIC_EXPORT_ROWS: Final = "deltawitness.export.rows"
METRIC_EXPORT_FILES: Final = "deltawitness.export.files"
METRIC_EXPORT_SIZE: Final = "deltawitness.export.size"
METRIC_STATEMENT_REPEATS: Final = "deltawitness.statement.repeats"
METRIC_INTERNAL_ERRORS: Final = "deltawitness.internal.errors"
METRIC_EVENTS_DROPPED: Final = "deltawitness.events.dropped"
METRIC_SPOOL_PENDING: Final = "deltawitness.spool.pending"
METRIC_DRAIN_DURATION: Final = "deltawitness.drain.duration"

DB_DURATION_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Seconds; the boundaries that the conventions prescribe for `db.client.operation.duration`."""

RETURNED_ROWS_BUCKETS: Final = (
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0,
)  # fmt: skip
"""Rows; the boundaries that the conventions prescribe for `db.client.response.returned_rows`."""

CACHE_DURATION_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Seconds; a longer scale, because merges and optimizes take minutes."""


# --- events (OpenTelemetry log records with an event name) --------------------------------------------

EVENT_WRITE: Final = "deltawitness.write"
"""One per write, inside the write's span context."""
EVENT_CACHE: Final = "deltawitness.cache"
"""One per operation of a cache, inside the operation's span context."""
EVENT_TABLE_REGISTERED: Final = "deltawitness.table.registered"
"""An event of the current span: a session has registered a Delta table."""
# OpenTelemetry database conventions, development
EVENT_EXCEPTION: Final = "db.client.operation.exception"
EVENT_ARTIFACT: Final = "deltawitness.artifact"
EVENT_DIAGNOSTIC: Final = "deltawitness.diagnostic"
DIAGNOSTIC_CACHE_DAMAGED: Final = "cache.damaged"
"""Name of the diagnostic event of an entry that cannot be read."""
DIAGNOSTIC_CACHE_FALLBACK: Final = "cache.fallback"
"""Name of the diagnostic event of a result that was computed and could not be kept."""
DIAGNOSTIC_CACHE_UNCACHEABLE: Final = "cache.uncacheable"
"""Name of the diagnostic event of a result that cannot be kept, with the reason."""
ARTIFACT_PLAN_METRICS: Final = "plan_metrics"
"""Name of the artifact that holds the operator metrics of the plan that fed a write."""


# --- span names of the cache layer -----------------------------------------------------------------

SPAN_CACHE_READ: Final = "cache.read"
SPAN_CACHE_WRITE: Final = "cache.write"
SPAN_CACHE_SNAPSHOT: Final = "cache.snapshot"
SPAN_CACHE_INVALIDATE: Final = "cache.invalidate"
SPAN_CACHE_PRUNE: Final = "cache.prune"
SPAN_CACHE_VERIFY: Final = "cache.verify"


# --- the ledger -----------------------------------------------------------------------------------------

LEDGER_DIRECTORY: Final = "cache_ledgers"
"""Folder under the cache root that holds the ledger's tables."""

SPOOL_DIRECTORY: Final = "cache_spool"
"""Folder under a local cache root that holds what is not in the ledger yet."""

PLAN_DIRECTORY: Final = "_plans"
"""Folder of a cache's entry that holds its plans; Delta's readers and VACUUM leave it alone."""

LOCK_DIRECTORY: Final = "cache_locks"
"""Folder under a local cache root that holds the locks of entries that are being computed."""

SPOOL_APP_ID_PREFIX: Final = "deltawitness/spool/"
"""Application id, before the spool's name: the number of its last segment that is in a table."""

RECONCILE_APP_ID_PREFIX: Final = "deltawitness/reconcile/"
"""Application id, before the table's ids: the number of its commits that have been reconciled."""

LATE_APP_ID: Final = "deltawitness/late"
"""Application id of what must not be appended by two at a time: late segments, what a reconcile adds."""

LEASE_APP_ID: Final = "deltawitness/lease"
"""Application id of the right to maintain a table: odd is held, even is free."""

LEDGER_SCHEMA: Final = "cache_ledger"
"""Schema of a session that the ledger's tables are registered in."""

DEFAULT_CACHE_ROOT: Final = ".deltawitness"
"""Cache root of `deltawitness run` and of the other commands, in the working directory."""


# --- environment variables ----------------------------------------------------------------------------


TRUE_WORDS: Final = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS: Final = frozenset({"0", "false", "no", "off"})
"""What a variable that is a flag may say, in any case."""


ACTIVATE_TOP: Final = "top"
"""Value of the activation variable for the process that `deltawitness run` itself starts."""

ACTIVATE_CHILD: Final = "child"
"""Its value for the processes which that one starts."""


class Env(StrEnum):
    """Every environment variable of ours; `Settings.from_env` and the run context read them."""

    RUN_ID = "DELTAWITNESS_RUN_ID"
    """Run that this process belongs to; set for child processes."""
    JOB = "DELTAWITNESS_JOB"
    """Job name of that run."""
    CACHE_POLICY = "DELTAWITNESS_CACHE_POLICY"
    """Policy of the writes of this process that name none; set for child processes."""
    CACHE_SCOPE = "DELTAWITNESS_CACHE_SCOPE"
    """Scope of the same writes: `view`, `dataset`, `artifact`, `metadata` or `ledger`."""
    CACHE_KEY = "DELTAWITNESS_CACHE_KEY"
    """Cache key of the same writes; only its hash leaves the process."""
    FORCE_SAMPLE = "DELTAWITNESS_FORCE_SAMPLE"
    """Mark the spans of this process's runs, so that a tail sampler keeps their traces (`true`, `false`)."""
    TRACEPARENT = "TRACEPARENT"
    """W3C trace context of the parent process."""
    ACTIVATE = "DELTAWITNESS_ACTIVATE"
    """Set by `deltawitness run`: instrument this process and its children at start."""
    EVENTS_FILE = "DELTAWITNESS_EVENTS_FILE"
    """Set by `deltawitness run`: where each process appends a line per write, for the summary."""
    SUPERVISOR = "DELTAWITNESS_SUPERVISOR"
    """Set by `deltawitness run`: its process id and the lock that it holds while it waits for the program."""
    REPLACED_PID = "DELTAWITNESS_REPLACED_PID"
    """Set at `os.exec*`: the process id, by which the new program continues the run of the process."""
    DIAGNOSTICS_SINK = "DELTAWITNESS_DIAGNOSTICS_SINK"
    """`otel`, `memory`, `both` or `none`."""
    TABLE_ID_KEY = "DELTAWITNESS_TABLE_ID_KEY"
    """Secret that keys the hash of table ids in telemetry."""
    USER_METADATA = "DELTAWITNESS_USER_METADATA"
    """Mirror our keys to `userMetadata` (`true`, `false`)."""
    RESERVED_KEYS = "DELTAWITNESS_RESERVED_KEYS"
    """What is done about a caller's commit key that breaks readers of the log: `warn`, `refuse` or `ignore`."""
    REUSE_HANDLES = "DELTAWITNESS_REUSE_HANDLES"
    """Reuse open table handles for writes by URI in zero-touch mode (`true`, `false`)."""
    DELIVERY_INTERVAL = "DELTAWITNESS_DELIVERY_INTERVAL"
    """Seconds that finished writes may wait before their telemetry is made."""
    QUEUE_SIZE = "DELTAWITNESS_QUEUE_SIZE"
    """Finished writes that may wait for delivery; beyond it they are counted as dropped."""
    SINK_TIMEOUT = "DELTAWITNESS_SINK_TIMEOUT"
    """Seconds after which a sink that does not return is given up."""
    LANDED_TAIL = "DELTAWITNESS_LANDED_TAIL"
    """Versions to look through for a failed write's commit."""
    TABLE_NAMES = "DELTAWITNESS_TABLE_NAMES"
    """Where a table's name in telemetry comes from: `path`, `metadata` or `none`."""
    CAPTURE_QUERIES = "DELTAWITNESS_CAPTURE_QUERIES"
    """Make a span for each query over Delta tables whose rows go to the program (`true`, `false`)."""
    CAPTURE_REGISTRATIONS = "DELTAWITNESS_CAPTURE_REGISTRATIONS"
    """Keep a row in the ledger for each Delta table that a session registers (`true`, `false`)."""
    CAPTURE_PLAN_METRICS = "DELTAWITNESS_CAPTURE_PLAN_METRICS"
    """Leave the operator metrics of the plan that fed a write as a diagnostics artifact (`true`, `false`)."""
    ROOT = "DELTAWITNESS_ROOT"
    """Another name of `DELTAWITNESS_CACHE_ROOT`."""
    CACHE_ROOT = "DELTAWITNESS_CACHE_ROOT"
    """Where the ledger lies, a path or a URI; without it none is kept, but for `deltawitness run`."""
    LEDGER = "DELTAWITNESS_LEDGER"
    """Keep a ledger under the cache root (`true`, `false`)."""
    LEDGER_MAINTENANCE = "DELTAWITNESS_LEDGER_MAINTENANCE"
    """Compact and vacuum the ledger's tables from time to time while draining (`true`, `false`)."""
    LEDGER_MESSAGES = "DELTAWITNESS_LEDGER_MESSAGES"
    """What the ledger keeps of an error's text: `full`, `safe` (no rows, no secrets) or `type` (nothing)."""
    STORAGE_OPTIONS = "DELTAWITNESS_STORAGE_OPTIONS"
    """Storage options of the cache root as a JSON object, beside what the engine reads itself (`AWS_...`)."""
    SPOOL_DIR = "DELTAWITNESS_SPOOL_DIR"
    """Local folder for what is not in the ledger yet; under a local cache root by default."""
    SPOOL_LIMIT = "DELTAWITNESS_SPOOL_LIMIT"
    """Bytes that a process may have waiting for the ledger; beyond it new events are counted as dropped."""
    DRAIN_INTERVAL = "DELTAWITNESS_DRAIN_INTERVAL"
    """Seconds between two drains of a process into the ledger."""
    DRAIN_EVENTS = "DELTAWITNESS_DRAIN_EVENTS"
    """Events after which a process drains before its interval is over."""
    KEEP_PLANS = "DELTAWITNESS_KEEP_PLANS"
    """Keep the plan of each cache entry beside it, for `verify`; it holds literals (`true`, `false`)."""
    REPR_RUNS_DML = "DELTAWITNESS_REPR_RUNS_DML"
    """Let `repr()` of an un-run DML frame run it, as plain DataFusion does (`true`, `false`)."""
