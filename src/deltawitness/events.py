"""What is known of one write: what was meant, how it ended, and the record that every sink reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TypeAlias

from deltawitness.run import RunContext
from deltawitness.semconv import (
    POLICY_UNMANAGED,
    CacheOperation,
    CacheResult,
    CacheScope,
    ErrorType,
    Operation,
)

__all__ = [
    "ENGINE_PACKAGES",
    "METRIC_MEANINGS",
    "UNCHANGED",
    "CommitMetrics",
    "Committed",
    "Exported",
    "Failed",
    "InputVersion",
    "Landed",
    "NoCommit",
    "NoCommitReason",
    "WriteEvent",
    "WriteIntent",
    "WriteOutcome",
    "WriteSink",
]


ENGINE_PACKAGES = frozenset(
    {"builtins", "deltalake", "_internal", "pyarrow", "arro3", "datafusion", "deltawitness"}
)
"""Packages whose exceptions hold an engine's words, or ours; the text of any other is the program's own."""


@dataclass(frozen=True, slots=True)
class InputVersion:
    """A Delta table that a write was made from, at the version that was read."""

    table_id: str
    version: int
    uri: str | None = None


@dataclass(frozen=True, slots=True)
class WriteIntent:
    """What a write means to do, known before the engine starts.

    Attributes:
        operation: the engine's operation.
        cache_operation: the same in the cache layer's words.
        table_uri: where to, without credentials; never leaves the process as it stands.
        table_name: the table's logical name, if it has one that may be told.
        mode: save mode of a WRITE, as the engine names it (`append`, `overwrite`, ...).
        policy: name of the cache policy.
        scope: what kind of thing is kept.
        cache_key: the caller's key; only its hash leaves the process.
        schema_hash: hash of the written schema (:func:`deltawitness.hashing.schema_hash`).
        plan_hash: hash of the plan that makes the rows, literals included.
        plan_shape_hash: the same without literals.
        inputs: the Delta tables that were read for it, as its plan says.
        run_inputs: the Delta tables that the run had read before, where no plan says what was read;
            inferred.
    """

    operation: Operation
    cache_operation: CacheOperation
    table_uri: str | None = None
    table_name: str | None = None
    mode: str | None = None
    policy: str = POLICY_UNMANAGED
    scope: CacheScope = CacheScope.DATASET
    cache_key: str | None = None
    schema_hash: str | None = None
    plan_hash: str | None = None
    plan_shape_hash: str | None = None
    inputs: tuple[InputVersion, ...] = ()
    run_inputs: tuple[InputVersion, ...] = ()


METRIC_MEANINGS: Mapping[str, str] = {
    "rows_added": "rows that the commit added to the table; of an export, rows written",
    "rows_updated": "rows that the commit changed in place of others",
    "rows_deleted": "rows that the commit took out of the table",
    "rows_copied": "rows that the commit wrote again as they were",
    "files_added": "data files that the commit added, as its add actions say, or an export wrote;"
    " change data files do not count",
    "files_removed": "data files that the commit took out of the table, as its remove actions say",
    "bytes_added": "size of the files in files_added",
    "bytes_removed": "size of the files in files_removed, where the remove actions say it",
    "retries": "attempts to commit beyond the first",
    "execution_ms": "milliseconds, as the engine says",
    "files_deleted": "files that a VACUUM deleted from the storage; earlier commits removed them",
    "bytes_deleted": "size of the files that a VACUUM set out to delete",
}
"""What each count of a write means, in every operation."""


@dataclass(frozen=True, slots=True)
class CommitMetrics:
    """What a write changed, under one naming for all operations; None is "not known".

    What each count means is in :data:`METRIC_MEANINGS`. Rows, files and retries are counts, sizes are
    bytes, `execution_ms` is milliseconds.
    """

    rows_added: int | None = None
    rows_updated: int | None = None
    rows_deleted: int | None = None
    rows_copied: int | None = None
    files_added: int | None = None
    files_removed: int | None = None
    bytes_added: int | None = None
    bytes_removed: int | None = None
    retries: int | None = None
    execution_ms: int | None = None
    files_deleted: int | None = None
    bytes_deleted: int | None = None

    def known(self) -> dict[str, int]:
        """Return only what the engine said.

        >>> CommitMetrics(rows_added=3).known()
        {'rows_added': 3}
        """
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: value for name, value in values if value is not None}


UNCHANGED = CommitMetrics(
    rows_added=0,
    rows_updated=0,
    rows_deleted=0,
    rows_copied=0,
    files_added=0,
    files_removed=0,
    bytes_added=0,
    bytes_removed=0,
    files_deleted=0,
    bytes_deleted=0,
)
"""The counts of an operation that is known to have changed nothing."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The write made one commit, or several of one operation (VACUUM START and END)."""

    versions: tuple[int, ...]
    metrics: CommitMetrics = field(default_factory=CommitMetrics)

    @property
    def version(self) -> int:
        """The last version that the operation committed."""
        return self.versions[-1]


class NoCommitReason(StrEnum):
    """Why a write that did not fail made no commit."""

    NOTHING_TO_DO = "nothing_to_do"
    DRY_RUN = "dry_run"
    NOT_A_COMMIT = "not_a_commit"
    """The operation makes none by nature: checkpoint, log clean-up, manifest."""
    TABLE_EXISTS = "table_exists"
    """Mode `ignore` on a table that is there."""
    NOT_FOUND = "not_found"
    """The engine reported success, and no commit of this write could be found in the log."""


@dataclass(frozen=True, slots=True)
class NoCommit:
    """The write ended well and changed nothing in the log."""

    reason: NoCommitReason
    metrics: CommitMetrics = field(default_factory=CommitMetrics)


@dataclass(frozen=True, slots=True)
class Exported:
    """The write made files that are no Delta table; there is no log that it could commit to.

    Attributes:
        metrics: rows, files and bytes added, as far as they are known.

    >>> Exported(CommitMetrics(rows_added=3, files_added=1)).metrics.known()
    {'rows_added': 3, 'files_added': 1}
    """

    metrics: CommitMetrics = field(default_factory=CommitMetrics)


class Landed(StrEnum):
    """After an exception: is the commit in the log all the same?"""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine raised.

    Attributes:
        error_type: the closed taxonomy.
        exception_type: qualified name of the exception's class.
        message: its text; goes through redaction before it leaves the process.
        landed: whether the commit is in the log all the same.
        version: the last version it landed as, when `landed` is yes.
        metrics: what it changed, when it landed; zeros when it did not.
        versions: every version it landed as.
        is_programs_own: whether the program raised it (a source that yields rows): its words may be
            data, and leave the process only as the exception's type.
    """

    error_type: ErrorType
    exception_type: str
    message: str
    landed: Landed = Landed.UNKNOWN
    version: int | None = None
    metrics: CommitMetrics = field(default_factory=CommitMetrics)
    versions: tuple[int, ...] = ()
    is_programs_own: bool = False

    def __post_init__(self) -> None:
        """Let the version stand for all of them where no more were given."""
        if self.version is not None and not self.versions:
            object.__setattr__(self, "versions", (self.version,))


WriteOutcome: TypeAlias = Committed | NoCommit | Exported | Failed
"""How a write ended; take it apart with `match`."""


@dataclass(frozen=True, slots=True)
class WriteEvent:
    """One observed write, built once, in one place, and read by every sink.

    Attributes:
        write_id: UUIDv7, also in the commit.
        run: the run that made it.
        intent: what was meant.
        outcome: how it ended.
        started_at: nanoseconds since the Unix epoch.
        duration_ns: nanoseconds that the engine's call took.
        trace_id: 32 hex digits, or None without a trace.
        span_id: 16 hex digits, or None without a trace.
        table_id: stable id of the table (:func:`deltawitness.hashing.table_id`).
        thread: name of the calling thread.
        pid: process id.
    """

    write_id: str
    run: RunContext
    intent: WriteIntent
    outcome: WriteOutcome
    started_at: int
    duration_ns: int
    trace_id: str | None = None
    span_id: str | None = None
    table_id: str | None = None
    thread: str | None = None
    pid: int | None = None

    @property
    def result(self) -> CacheResult:
        """The outcome in the cache layer's words."""
        match self.outcome:
            case Committed() | Exported():
                return CacheResult.WRITE
            case NoCommit():
                return CacheResult.NOOP
            case Failed():
                return CacheResult.ERROR


WriteSink: TypeAlias = Callable[[WriteEvent], None]
"""Receives each finished write exactly once, in order, off the caller's thread."""
