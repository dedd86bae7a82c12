"""All names that deltawitness emits or reads: attributes, instruments, events, variables, commit keys.

No other module repeats these strings. Where a name is from a specification, the comment above it names
the specification.

* `db.*`, `error.*`, `exception.*`: OpenTelemetry semantic conventions 1.44, database client
  spans, metrics and exceptions (https://opentelemetry.io/docs/specs/semconv/database/).
* `cicd.*`, `vcs.*`: the CI/CD registry of the same conventions (release candidate).
* `code.*`, `container.*`, `k8s.*`: registries of the same conventions.
* `delta.*`, `cache.*`, `deltawitness.*`: names of deltawitness, where the conventions have none.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

WITNESS_VERSION: Final = "0.2.0rc1"
"""The version of this library; also the commit key `witness_version` of each observed commit."""

SCOPE_NAME: Final = "deltawitness"
"""Instrumentation scope of the tracer, meter and logger."""

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""Schema URL of the semantic conventions that the telemetry follows."""

DB_SYSTEM_DELTALAKE: Final = "deltalake"
"""`db.system.name` of a commit: a custom value, lowercase and without version, as specified."""

DB_SYSTEM_DATAFUSION: Final = "datafusion"
"""`db.system.name` of a query, and of files that DataFusion writes."""


# --- closed sets ---------------------------------------------------------------------------------


class CacheScope(StrEnum):
    """Kind of the object that a write stores (`cache.scope`)."""

    VIEW = "view"
    DATASET = "dataset"
    ARTIFACT = "artifact"
    METADATA = "metadata"
    LEDGER = "ledger"


class CacheOperation(StrEnum):
    """Operation on a stored object (`cache.operation`)."""

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
"""Operations that make no commit: their ledger rows have a version that another write committed."""

OPERATION_REGISTER: Final = CacheOperation.REGISTER.value.upper()
"""The `operation` of a ledger row about a table that was registered in a session."""


class CacheResult(StrEnum):
    """Result of an operation (`cache.result`)."""

    WRITE = "write"
    HIT = "hit"
    MISS = "miss"
    NOOP = "noop"
    ERROR = "error"


class ExpectationAction(StrEnum):
    """What happens to a write whose rows do not meet an expectation."""

    FAIL = "fail"
    """The write raises `ExpectationError` and commits nothing."""
    WARN = "warn"
    """The write commits; a warning is logged."""
    QUARANTINE = "quarantine"
    """The rows are written to another table, and nothing is committed to this one."""


class ExpectationResult(StrEnum):
    """Result of the expectations of a write (`deltawitness.expectation.result`)."""

    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    QUARANTINED = "quarantined"


class ExpectationRule(StrEnum):
    """Kind of a rule of an expectation (`deltawitness.expectation.rule`)."""

    ROWS_ADDED = "rows_added"
    SCHEMA = "schema"
    NULLS = "nulls"
    UNIQUE = "unique"
    VALUES = "values"


class Operation(StrEnum):
    """The engine's operation (`db.operation.name`), spelled as in the Delta log if it is recorded there."""

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
    """DataFusion wrote files outside any Delta table: `COPY TO`, `write_parquet`, `write_csv`, ..."""
    SELECT = "SELECT"
    """A query that returned rows to the program."""


def system_of(operation: Operation) -> str:
    """Return the `db.system.name` of an operation: the engine that runs it.

    >>> system_of(Operation.MERGE), system_of(Operation.SELECT)
    ('deltalake', 'datafusion')
    """
    is_datafusions = operation in {Operation.COPY, Operation.SELECT}
    return DB_SYSTEM_DATAFUSION if is_datafusions else DB_SYSTEM_DELTALAKE


class ErrorType(StrEnum):
    """The closed set of values of `error.type`, derived from an exception's class and text."""

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
    REQUIREMENT_MISSING = "requirement_missing"
    """The settings require a run, a job or a message, and the write has none."""
    EXPECTATION_FAILED = "expectation_failed"
    """The rows of the write do not meet an expectation of the program."""
    OTHER = "_OTHER"
    """Fallback of the OpenTelemetry conventions for an error outside the set."""


CONFLICT_TYPES: Final = (ErrorType.COMMIT_CONFLICT, ErrorType.CONCURRENT_TRANSACTION)
"""Types of the errors of a write that lost against a concurrent commit."""

POLICY_UNMANAGED: Final = "unmanaged"
"""`cache.policy` of a write without a policy."""

POLICY_OVERFLOW: Final = "_other"
"""`cache.policy` on metrics for further policies after :data:`POLICY_CAP` distinct ones."""

POLICY_CAP: Final = 64
"""Maximum number of distinct policies on metrics, before :data:`POLICY_OVERFLOW`."""


# --- commit keys -----------------------------------------------------------------------------------


class CommitKey(StrEnum):
    """The flat keys in the `commitInfo` of an observed commit."""

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
    PARTS = "parts"
    JOB_NAME = "job_name"
    MESSAGE = "message"
    AUTHOR = "author"
    CODE_VERSION = "code_version"
    EXPECTATION_RESULT = "expectation_result"
    EXPECTATIONS = "expectations"
    EXPECTATIONS_UNMET = "expectations_unmet"
    WITNESS_VERSION = "witness_version"


QUARANTINED_WRITE: Final = "quarantined_write"
"""The commit key of a quarantine table: the id of the write whose rows were written there instead."""

QUARANTINE_REASON: Final = "quarantine_reason"
"""The commit key of the same commit: the rules that the rows do not meet."""

CACHE_ENTRY: Final = "cache_entry"
"""The commit key in which a cache stores the inputs of an entry, as JSON."""

RECEIPT_ID: Final = "receipt_id"
"""The commit key by which a write that creates a table finds its commit: delta-rs returns no version."""

UNDONE_RUN: Final = "undone_run"
"""The commit key of a restore by `undo`: the id of the run that it undoes."""

RESTORED_RELEASE: Final = "restored_release"
"""The commit key of a restore by `release restore`: the name of the release."""

RELEASE_JOB: Final = "release"
"""Job of the run in which `release restore` restores tables."""

UNDO_JOB: Final = "undo"
"""Job of the run in which `undo` restores tables."""

USER_METADATA: Final = "userMetadata"
"""The only commit key that Spark, Databricks and Trino show in DESCRIBE HISTORY."""

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
"""Keys that deltawitness never adds: delta-rs rejects or replaces them, or Spark's typed `CommitInfo`
reader fails on a value of another type. Those of the caller are passed through."""


BREAKING_COMMIT_KEYS: Final = frozenset(
    {"dataChange", "inCommitTimestamp", "job", "lastManifestCommit", "notebook", "tags", "txnId"}
)
"""The reserved keys that delta-rs writes unchanged although other readers expect a number, a boolean,
a map, a struct or a transaction id. `DELTAWITNESS_RESERVED_KEYS` selects how they are handled."""

UNREFUSED_COMMIT_KEYS: Final = frozenset(
    {
        *("engineInfo", "isBlindAppend", "isolationLevel", "operation", "operationParameters"),
        *("readVersion", "timestamp"),
    }
)
"""The reserved keys that delta-rs refuses since 1.6.0, and writes before it: twice into one JSON object,
or as text where readers expect another type. Then `DeltaTable.history` fails for the table."""


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
"""Exit code of a run's process; -N when signal N ended the process."""

# OpenTelemetry CI/CD registry, release candidate; spans and logs only
CICD_PIPELINE_NAME: Final = "cicd.pipeline.name"
CICD_PIPELINE_RUN_ID: Final = "cicd.pipeline.run.id"
CICD_PIPELINE_TASK_NAME: Final = "cicd.pipeline.task.name"
CICD_PIPELINE_TASK_RUN_ID: Final = "cicd.pipeline.task.run.id"
CICD_PIPELINE_RUN_URL_FULL: Final = "cicd.pipeline.run.url.full"
# OpenTelemetry version control registry, release candidate; spans and logs only
VCS_REF_HEAD_REVISION: Final = "vcs.ref.head.revision"
# OpenTelemetry container and Kubernetes registries, development; spans and logs only
CONTAINER_IMAGE_NAME: Final = "container.image.name"
CONTAINER_IMAGE_TAGS: Final = "container.image.tags"
K8S_POD_NAME: Final = "k8s.pod.name"
# OpenTelemetry code registry, stable; spans and logs only
CODE_FILE_PATH: Final = "code.file.path"
"""Relative to the project or to `site-packages`; the convention has an absolute path."""
CODE_LINE_NUMBER: Final = "code.line.number"
CODE_FUNCTION_NAME: Final = "code.function.name"

CACHE_POLICY: Final = "cache.policy"
CACHE_SCOPE: Final = "cache.scope"
CACHE_OPERATION: Final = "cache.operation"
CACHE_RESULT: Final = "cache.result"
CACHE_KEY: Final = "cache.key"
CACHE_NAME: Final = "cache.name"
"""Name of the entry, if the setting for table names allows it."""
CACHE_MISS_REASON: Final = "cache.miss.reason"
"""Why an entry was not served: values of `deltawitness.Miss`."""
CACHE_HIT_SOURCE: Final = "cache.hit.source"
"""What a hit is served from if local copies are on: `copy` or `table`."""
CACHE_VERDICT: Final = "cache.verdict"
"""Result of a verification: a value of `deltawitness.Verdict`."""
CACHE_SCHEMA_HASH: Final = "cache.schema.hash"
CACHE_PLAN_HASH: Final = "cache.plan.hash"
CACHE_PLAN_SHAPE_HASH: Final = "cache.plan.shape.hash"

RUN_ID: Final = "deltawitness.run.id"
RUN_PARENT_ID: Final = "deltawitness.run.parent.id"
RUN_SYSTEM: Final = "deltawitness.run.system"
"""The scheduler or CI system that a run was detected in, of the table in `deltawitness.run_origin`."""
RUN_ATTEMPT: Final = "deltawitness.run.attempt"
"""Number of a run's attempt, as its scheduler counts."""
MESSAGE: Final = "deltawitness.message"
"""Why a write is made, in the words of the program; redacted as free text."""
RUN_FAILED_WRITES: Final = "deltawitness.run.writes.failed"
"""On the span of a run: how many writes of the run and of the runs inside it failed in this process."""
RUN_SLOWEST_WRITE: Final = "deltawitness.run.writes.slowest"
"""On the span of a run: duration of the slowest write of the run and of the runs inside it, in seconds."""
RUN_ATTRIBUTE_PREFIX: Final = "deltawitness.run.attribute."
FORCE_SAMPLE: Final = "deltawitness.sample.force"
"""True on every span of a run whose complete traces a tail sampler shall keep."""
RUN_HAMILTON_ID: Final = "hamilton.run.id"
"""The run attribute for the id of an Apache Hamilton execution."""
WRITE_ID: Final = "deltawitness.write.id"
WRITE_PARTS: Final = "deltawitness.write.parts"
WRITE_PHASE: Final = "deltawitness.write.phase"
"""Number of parts of a distributed write."""
EXPECTATION_RESULT: Final = "deltawitness.expectation.result"
"""Result of the expectations of a write: a value of :class:`ExpectationResult`."""
EXPECTATION_RULE: Final = "deltawitness.expectation.rule"
"""Kind of a rule, on metrics: a value of :class:`ExpectationRule`."""
EXPECTATIONS_UNMET: Final = "deltawitness.expectation.unmet"
"""Kinds of the rules that the rows of a write do not meet."""
COMPONENT: Final = "deltawitness.component"
"""The component of an internal error or of a dropped event, from a closed set."""
EVENT_KIND: Final = "deltawitness.event.kind"
PAYLOAD: Final = "deltawitness.payload"
PAYLOAD_TRUNCATED: Final = "deltawitness.payload.truncated"
LANDED: Final = "deltawitness.landed"
"""Whether a failed write has made its commit nevertheless (`yes`, `no`, `unknown`)."""

DELTA_TABLE_ID: Final = "delta.table.id"
DELTA_TABLE_VERSION: Final = "delta.table.version"
DELTA_WRITE_MODE: Final = "delta.write.mode"
DELTA_CHANGE: Final = "delta.change"
"""Kind of change that a row, file or byte count is for: `added`, `updated`, `deleted`, `copied`, `removed`."""
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
"""The Delta tables that a write read from, each as `table_id@version`."""
DELTA_RUN_INPUTS: Final = "delta.run_inputs"
"""For a write with unknown inputs: the Delta tables that its run had read before, each as
`table_id@version`. The write was not necessarily made from all of them."""

EXPORT_ROWS: Final = "deltawitness.export.rows"
EXPORT_FILES: Final = "deltawitness.export.files"
EXPORT_SIZE: Final = "deltawitness.export.size"
"""Bytes of files that were written outside any Delta table."""


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
METRIC_TABLE_AGE: Final = "delta.table.age"
METRIC_TABLE_LATE: Final = "delta.table.late"
METRIC_EXPORT_ROWS: Final = "deltawitness.export.rows"
METRIC_EXPORT_FILES: Final = "deltawitness.export.files"
METRIC_EXPORT_SIZE: Final = "deltawitness.export.size"
METRIC_STATEMENT_REPEATS: Final = "deltawitness.statement.repeats"
METRIC_EXPECTATIONS: Final = "deltawitness.expectations"
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
"""Seconds; a longer range, because MERGE and OPTIMIZE take minutes."""


# --- events (OpenTelemetry log records with an event name) --------------------------------------------

EVENT_WRITE: Final = "deltawitness.write"
"""Log record per write, in the write's span context."""
EVENT_CACHE: Final = "deltawitness.cache"
"""Log record per cache operation, in the operation's span context."""
EVENT_TABLE_REGISTERED: Final = "deltawitness.table.registered"
"""Event on the current span: a session registered a Delta table."""
# OpenTelemetry database conventions, development
EVENT_EXCEPTION: Final = "db.client.operation.exception"
EVENT_ARTIFACT: Final = "deltawitness.artifact"
EVENT_DIAGNOSTIC: Final = "deltawitness.diagnostic"
DIAGNOSTIC_CACHE_DAMAGED: Final = "cache.damaged"
"""Diagnostic event for an entry that cannot be read."""
DIAGNOSTIC_CACHE_FALLBACK: Final = "cache.fallback"
"""Diagnostic event for a result that was computed but could not be stored."""
DIAGNOSTIC_CACHE_UNCACHEABLE: Final = "cache.uncacheable"
"""Diagnostic event for a result that cannot be cached, with the reason."""
DIAGNOSTIC_COMPACTION_UNGUARDED: Final = "compaction.unguarded"
"""Diagnostic event for a compaction that proceeds without the lease, after the limit of its wait."""
DIAGNOSTIC_ROWS_DOUBLED: Final = "rows.doubled"
"""Diagnostic event for a compaction that has doubled rows, with the version to restore."""
ARTIFACT_PLAN_METRICS: Final = "plan_metrics"
"""Artifact with the operator metrics of the plan that produced the rows of a write."""


# --- span names of the cache layer -----------------------------------------------------------------

SPAN_CACHE_READ: Final = "cache.read"
SPAN_CACHE_WRITE: Final = "cache.write"
SPAN_CACHE_SNAPSHOT: Final = "cache.snapshot"
SPAN_CACHE_INVALIDATE: Final = "cache.invalidate"
SPAN_CACHE_PRUNE: Final = "cache.prune"
SPAN_CACHE_VERIFY: Final = "cache.verify"


# --- the ledger -----------------------------------------------------------------------------------------

LEDGER_DIRECTORY: Final = "cache_ledgers"
"""Folder under the cache root for the ledger's tables."""

SHARD_DIRECTORY: Final = "shards"
"""Folder in the folder of the ledger's tables, with a folder of tables for each shard."""

SPOOL_DIRECTORY: Final = "cache_spool"
"""Folder under a local cache root for the spools: records that are not yet in the ledger."""

PLAN_DIRECTORY: Final = "_plans"
"""Folder in a cache entry for its plans; readers of Delta tables and VACUUM ignore it."""

PROGRAM_PLANS_DIRECTORY: Final = ".program_plans"
"""Folder under a local cache root for the plans of programs (`deltawitness plan`); hidden, so that a search for
tables does not find clones."""

PLANNED_ROOT_DIRECTORY: Final = "root"
"""Folder in the folder of a plan that is the cache root of the planned program."""

WRITE_PLAN_DIRECTORY: Final = "cache_plans"
"""Folder under the cache root for the plans of writes, with a file for each write."""

LOCK_DIRECTORY: Final = "cache_locks"
"""Folder under a local cache root for the locks of entries that are being computed."""

SPOOL_APP_ID_PREFIX: Final = "deltawitness/spool/"
"""Prefix of a Delta application id, followed by the name of a spool; the version is the number of the
last segment of that spool in the table."""

RECONCILE_APP_ID_PREFIX: Final = "deltawitness/reconcile/"
"""Prefix of a Delta application id, followed by the ids of a table; the version is the number of
commits of that table that are reconciled."""

LATE_APP_ID: Final = "deltawitness/late"
"""Delta application id of appends that must not run concurrently: late segments, and reconciled rows."""

RUN_APP_ID_PREFIX: Final = "deltawitness/run/"
"""Prefix of a Delta application id, followed by a run id and a table id; the version counts the distributed
writes of the run to the table."""

ONCE_APP_ID_PREFIX: Final = "deltawitness/once/"
"""Prefix of a Delta application id, followed by a hash of the key of an exactly-once block; the version is
the number of a write of the block to the table."""

LEASE_APP_ID: Final = "deltawitness/lease"
"""Delta application id of the lease for a table's maintenance: an odd version is held, an even one free."""

TABLE_LEASE_APP_ID_PREFIX: Final = "deltawitness/lease/"
"""Prefix of a Delta application id in the ledger, followed by the id of a table on an object store: the lease
of its compaction. An odd version is held, an even one free."""

FOLD_APP_ID_PREFIX: Final = "deltawitness/fold/"
"""Prefix of a Delta application id in a main table of the ledger, followed by the id of a shard's table; the
version is the version of that table whose rows are in the main table."""

FOLDED_APP_ID: Final = "deltawitness/folded"
"""Delta application id in a shard's table; rows of this version of the table were folded and deleted."""

EXPIRED_PROPERTY: Final = "deltawitness.expiredBefore"
"""Property of a table of the ledger: the day (ISO 8601) before which its rows were expired."""

LEDGER_SCHEMA: Final = "cache_ledger"
"""Schema of a session in which the ledger's tables are registered."""

DEFAULT_CACHE_ROOT: Final = ".deltawitness"
"""Default cache root of `deltawitness run` and the other commands, in the working directory."""


# --- environment variables ----------------------------------------------------------------------------


TRUE_WORDS: Final = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS: Final = frozenset({"0", "false", "no", "off"})
"""Values of environment variables that are flags, in upper or lower case."""


def parse_flag(text: str) -> bool | None:
    """Return the boolean value of a flag; None for a text that is no value of a flag.

    >>> parse_flag(" On "), parse_flag("0"), parse_flag("")
    (True, False, None)
    """
    word = text.strip().lower()
    return word in TRUE_WORDS if word in TRUE_WORDS | FALSE_WORDS else None


ACTIVATE_TOP: Final = "top"
"""Value of `DELTAWITNESS_ACTIVATE` for the process that `deltawitness run` starts."""

ACTIVATE_CHILD: Final = "child"
"""Value of `DELTAWITNESS_ACTIVATE` for the children of that process."""


class Env(StrEnum):
    """Every environment variable of deltawitness; `Settings.from_env` and the run context read them."""

    RUN_ID = "DELTAWITNESS_RUN_ID"
    """Id of the run of this process; set for child processes."""
    JOB = "DELTAWITNESS_JOB"
    """Job name of the run of this process; set for child processes."""
    CACHE_POLICY = "DELTAWITNESS_CACHE_POLICY"
    """Default policy of the writes of this process; set for child processes."""
    CACHE_SCOPE = "DELTAWITNESS_CACHE_SCOPE"
    """Default scope of the writes of this process: `view`, `dataset`, `artifact`, `metadata` or `ledger`."""
    CACHE_KEY = "DELTAWITNESS_CACHE_KEY"
    """Default cache key of the writes of this process; only its hash is exported."""
    MESSAGE = "DELTAWITNESS_MESSAGE"
    """Why the writes of this process are made; set for child processes."""
    IMPLICIT_RUN = "DELTAWITNESS_IMPLICIT_RUN"
    """Set for child processes: the id of the run, which of `run` and `job` were not chosen, and the job."""
    REQUIRE = "DELTAWITNESS_REQUIRE"
    """Refuse writes without a `run`, a `job` or a `message`: one or several of these, separated by commas."""
    EXPECTATIONS = "DELTAWITNESS_EXPECTATIONS"
    """TOML file with [expectations](expectations.md#a-file-of-expectations) for the writes of this process."""
    CODE_VERSION = "DELTAWITNESS_CODE_VERSION"
    """Commit or version of the program; overrides the detected one."""
    AUTHOR = "DELTAWITNESS_AUTHOR"
    """Who the writes are made for: a team or a person, in commits and in the ledger."""
    DETECT_ENVIRONMENT = "DELTAWITNESS_DETECT_ENVIRONMENT"
    """Read job, run, task, commit, image and link from the scheduler or CI system (`true`, `false`)."""
    DETECT_AUTHOR = "DELTAWITNESS_DETECT_AUTHOR"
    """Take the author from the scheduler or CI system, which is the name of a user (`true`, `false`)."""
    DETECT_GIT = "DELTAWITNESS_DETECT_GIT"
    """Read the commit of the main script's Git repository if no system gives one (`true`, `false`)."""
    CALL_SITE = "DELTAWITNESS_CALL_SITE"
    """Record file, line and function of the program's call for each write (`true`, `false`)."""
    FORCE_SAMPLE = "DELTAWITNESS_FORCE_SAMPLE"
    """Set an attribute on the runs' spans that makes a tail sampler keep their traces (`true`, `false`)."""
    TRACEPARENT = "TRACEPARENT"
    """W3C trace context of the parent process."""
    ACTIVATE = "DELTAWITNESS_ACTIVATE"
    """Set by `deltawitness run`: instrument this process and its children at start."""
    EVENTS_FILE = "DELTAWITNESS_EVENTS_FILE"
    """Set by `deltawitness run`: the file to which each process appends a line per write, for the summary."""
    PLAN_FOLDER = "DELTAWITNESS_PLAN_FOLDER"
    """Set by `deltawitness plan`: the folder of the clones to which this process redirects all tables."""
    PLAN_VERSIONS = "DELTAWITNESS_PLAN_VERSIONS"
    """Set by `deltawitness apply`: the folder with the versions at which this program must find its tables."""
    SUPERVISOR = "DELTAWITNESS_SUPERVISOR"
    """Set by `deltawitness run`: its process id and the lock that it holds while the program runs."""
    PROGRESS = "DELTAWITNESS_PROGRESS"
    """Whether `deltawitness run` shows a [progress line](live.md#progress) on a terminal (`true`, `false`)."""
    REPLACED_PID = "DELTAWITNESS_REPLACED_PID"
    """Set at `os.exec*`: the process id, by which the new program recognizes and continues the run."""
    CHOSEN_ROOT = "DELTAWITNESS_CHOSEN_ROOT"
    """Set by `deltawitness run`: its `DELTAWITNESS_CACHE_ROOT`, which `DELTAWITNESS_ROOT` overrides."""
    DIAGNOSTICS_SINK = "DELTAWITNESS_DIAGNOSTICS_SINK"
    """`otel`, `memory`, `both` or `none`."""
    TABLE_ID_KEY = "DELTAWITNESS_TABLE_ID_KEY"
    """Secret that keys the hash of table ids in telemetry."""
    USER_METADATA = "DELTAWITNESS_USER_METADATA"
    """Copy the commit keys of deltawitness to `userMetadata` (`true`, `false`)."""
    RESERVED_KEYS = "DELTAWITNESS_RESERVED_KEYS"
    """Handling of a caller's commit key that breaks readers of the log: `warn`, `refuse` or `ignore`."""
    REUSE_HANDLES = "DELTAWITNESS_REUSE_HANDLES"
    """Reuse open table handles for writes by URI in zero-touch mode (`true`, `false`)."""
    DELIVERY_INTERVAL = "DELTAWITNESS_DELIVERY_INTERVAL"
    """Seconds to gather finished writes before their telemetry is created."""
    QUEUE_SIZE = "DELTAWITNESS_QUEUE_SIZE"
    """Maximum number of queued finished writes; further ones are counted as dropped."""
    SINK_TIMEOUT = "DELTAWITNESS_SINK_TIMEOUT"
    """Seconds after which a sink that does not return is skipped."""
    LANDED_TAIL = "DELTAWITNESS_LANDED_TAIL"
    """Number of versions that are searched for a failed write's commit."""
    TABLE_NAMES = "DELTAWITNESS_TABLE_NAMES"
    """Source of a table's name in telemetry: `path`, `metadata` or `none`."""
    CAPTURE_QUERIES = "DELTAWITNESS_CAPTURE_QUERIES"
    """Make a span for each query of Delta tables that returns rows to the program (`true`, `false`)."""
    CAPTURE_REGISTRATIONS = "DELTAWITNESS_CAPTURE_REGISTRATIONS"
    """Add a row to the ledger for each Delta table that a session registers (`true`, `false`)."""
    CAPTURE_PLAN_METRICS = "DELTAWITNESS_CAPTURE_PLAN_METRICS"
    """Emit the operator metrics of a write's plan as a diagnostic artifact (`true`, `false`)."""
    CAPTURE_PHASES = "DELTAWITNESS_CAPTURE_PHASES"
    """Make a child span for each phase of a write that the engine's metrics name (`true`, `false`)."""
    COMPACTION_WAIT = "DELTAWITNESS_COMPACTION_WAIT"
    """Seconds that a compaction waits for one of another observed process; 0: compactions take no lease."""
    ROOT = "DELTAWITNESS_ROOT"
    """Another name of `DELTAWITNESS_CACHE_ROOT`."""
    CACHE_ROOT = "DELTAWITNESS_CACHE_ROOT"
    """Path or URI of the cache root. Without it there is no ledger, except under `deltawitness run`."""
    LEDGER = "DELTAWITNESS_LEDGER"
    """Write a ledger under the cache root (`true`, `false`)."""
    LEDGER_MODE = "DELTAWITNESS_LEDGER_MODE"
    """Who commits rows: `direct` (each process), `shard` (each, to a shard) or `forward` (`ledger serve`)."""
    LEDGER_SHARD = "DELTAWITNESS_LEDGER_SHARD"
    """Shard of this process in the mode `shard`; by default the scheduler's job, else one of 16 by host."""
    LEDGER_MAINTENANCE = "DELTAWITNESS_LEDGER_MAINTENANCE"
    """Compact and vacuum the ledger's tables periodically while draining (`true`, `false`)."""
    LEDGER_MESSAGES = "DELTAWITNESS_LEDGER_MESSAGES"
    """Error texts in the ledger: `full` (no secrets), `safe` (no rows, no secrets) or `type` (no text)."""
    STORAGE_OPTIONS = "DELTAWITNESS_STORAGE_OPTIONS"
    """Storage options of the cache root as a JSON object, in addition to the engine's variables (`AWS_...`)."""
    SPOOL_DIR = "DELTAWITNESS_SPOOL_DIR"
    """Local folder for records that are not yet in the ledger; by default under a local cache root."""
    SPOOL_LIMIT = "DELTAWITNESS_SPOOL_LIMIT"
    """Maximum bytes of a process's spool; further events are counted as dropped."""
    DRAIN_INTERVAL = "DELTAWITNESS_DRAIN_INTERVAL"
    """Seconds between two drains of a process's spool into the ledger."""
    DRAIN_EVENTS = "DELTAWITNESS_DRAIN_EVENTS"
    """Number of events after which a process drains before the interval has passed."""
    KEEP_PLANS = "DELTAWITNESS_KEEP_PLANS"
    """Store the plan of each cache entry with it, for `verify`; plans have literals (`true`, `false`)."""
    KEEP_WRITE_PLANS = "DELTAWITNESS_KEEP_WRITE_PLANS"
    """Store the plan of each write of a session under the cache root, for `verify RUN` (`true`, `false`)."""
    CACHE_COPIES = "DELTAWITNESS_CACHE_COPIES"
    """Local folder for copies of [cache entries on an object store](cache.md#object-storage)."""
    CACHE_COPIES_BYTES = "DELTAWITNESS_CACHE_COPIES_BYTES"
    """Maximum bytes of these copies; the least recently used ones are removed."""
    REPR_RUNS_DML = "DELTAWITNESS_REPR_RUNS_DML"
    """Run a DML frame that has not run when `repr()` is called, as DataFusion does (`true`, `false`)."""
    TRACE_URL = "DELTAWITNESS_TRACE_URL"
    """Template of the links to traces that commands print: a URL with `{trace_id}`, optionally `{span_id}`."""
    NOTIFY_URL = "DELTAWITNESS_NOTIFY_URL"
    """URL of the webhook of `deltawitness notify`."""
    NOTIFY_SECRET = "DELTAWITNESS_NOTIFY_SECRET"  # noqa: S105 - its name
    """Secret that signs the requests of `deltawitness notify`."""
    OPENLINEAGE = "DELTAWITNESS_OPENLINEAGE"
    """Send OpenLineage events: URL of a server, or `client` for the configuration of the OpenLineage client."""
    OPENLINEAGE_NAMESPACE = "DELTAWITNESS_OPENLINEAGE_NAMESPACE"
    """Namespace of the jobs in OpenLineage events."""
    OPENLINEAGE_TABLES = "DELTAWITNESS_OPENLINEAGE_TABLES"
    """JSON object of locations to names of tables in a catalog, for OpenLineage events."""
    OPENLINEAGE_REPOSITORY = "DELTAWITNESS_OPENLINEAGE_REPOSITORY"
    """URL of the repository with the program's code, for links in OpenLineage events."""


class OtelEnv(StrEnum):
    """The environment variables of the OpenTelemetry specification that deltawitness reads or sets."""

    TRACES_EXPORTER = "OTEL_TRACES_EXPORTER"
    METRICS_EXPORTER = "OTEL_METRICS_EXPORTER"
    LOGS_EXPORTER = "OTEL_LOGS_EXPORTER"
    ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
    TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    METRICS_ENDPOINT = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
    LOGS_ENDPOINT = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
    SDK_DISABLED = "OTEL_SDK_DISABLED"
    DISABLED_INSTRUMENTATIONS = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
    TRACER_PROVIDER = "OTEL_PYTHON_TRACER_PROVIDER"
    METER_PROVIDER = "OTEL_PYTHON_METER_PROVIDER"
    LOGGER_PROVIDER = "OTEL_PYTHON_LOGGER_PROVIDER"
    SERVICE_NAME = "OTEL_SERVICE_NAME"
    RESOURCE_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"


OTEL_PREFIX: Final = "OTEL_"
"""Prefix of every environment variable of OpenTelemetry."""

# Attributes of a resource, of the same conventions, that are read from `OTEL_RESOURCE_ATTRIBUTES`
RESOURCE_SERVICE_NAME: Final = "service.name"
RESOURCE_SERVICE_VERSION: Final = "service.version"
RESOURCE_K8S_JOB_NAME: Final = "k8s.job.name"
