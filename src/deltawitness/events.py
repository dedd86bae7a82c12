"""The record of one write: its intent, its outcome, and the event that every sink receives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TypeAlias

from deltawitness.call_site import CallSite
from deltawitness.run_context import RunContext
from deltawitness.semconv import (
    POLICY_UNMANAGED,
    CacheOperation,
    CacheResult,
    CacheScope,
    ErrorType,
    ExpectationResult,
    ExpectationRule,
    Operation,
)

__all__ = [
    "ENGINE_PACKAGES",
    "METRIC_MEANINGS",
    "UNCHANGED",
    "CommitMetrics",
    "Committed",
    "ExpectationCheck",
    "ExpectationReport",
    "Exported",
    "Failed",
    "InputVersion",
    "Landed",
    "NoCommit",
    "NoCommitReason",
    "WriteEvent",
    "WriteIntent",
    "WriteOutcome",
    "WritePhase",
    "WriteSink",
]


ENGINE_PACKAGES = frozenset(
    {"builtins", "deltalake", "_internal", "pyarrow", "arro3", "datafusion", "deltawitness"}
)
"""Packages whose exceptions have texts of an engine or of deltawitness; other texts are the program's."""


@dataclass(frozen=True, slots=True)
class InputVersion:
    """A Delta table that a write read from, and the version that it read."""

    table_id: str
    version: int
    uri: str | None = None


@dataclass(frozen=True, slots=True)
class WriteIntent:
    """Parameters of a write, determined before the engine starts.

    Attributes:
        operation: the engine's operation.
        cache_operation: the operation in the terms of the cache.
        table_uri: location of the target, without credentials; removed before export.
        table_name: the table's name, if the settings allow to export it.
        mode: save mode of a WRITE, as the engine names it (`append`, `overwrite`, ...).
        policy: name of the cache policy.
        scope: kind of the written object.
        cache_key: the caller's key; only its hash is exported.
        schema_hash: hash of the written schema (:func:`deltawitness.hashing.schema_hash`).
        plan_hash: hash of the plan that produces the rows, literals included.
        plan_shape_hash: hash of the same plan without literals.
        inputs: the Delta tables that the plan of the write reads; of a finished RESTORE, the restored version.
        run_inputs: for a write without a plan, the Delta tables that its run had read before. The
            write was not necessarily made from all of them.
        message: why the write is made, of an enclosing :func:`deltawitness.cache_context`.
        parts: number of parts of a distributed write; None for any other write.
        column_lineage: from which columns the write made its columns, as JSON
            (:mod:`deltawitness.column_sources`); None for a write without a plan.
        schema: the Arrow schema of the written rows, with `__arrow_c_schema__`; only in the events of a
            sink that receives locations.
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
    message: str | None = None
    parts: int | None = None
    column_lineage: str | None = None
    schema: object | None = field(default=None, compare=False, repr=False)


METRIC_MEANINGS: Mapping[str, str] = {
    "rows_added": "rows that the commit added to the table; of an export, rows written",
    "rows_updated": "rows that the commit updated",
    "rows_deleted": "rows that the commit deleted from the table",
    "rows_copied": "rows that the commit rewrote unchanged",
    "files_added": "data files in the commit's add actions, or files that an export wrote;"
    " change data files are not counted",
    "files_removed": "data files in the commit's remove actions",
    "bytes_added": "size of the files in files_added",
    "bytes_removed": "size of the files in files_removed, where the remove actions have a size",
    "retries": "attempts to commit after the first",
    "execution_ms": "milliseconds, as reported by the engine",
    "files_deleted": "files that a VACUUM deleted from storage; earlier commits had removed them",
    "bytes_deleted": "size of the files that a VACUUM started to delete",
}
"""Definition of each count of a write, for all operations."""


@dataclass(frozen=True, slots=True)
class CommitMetrics:
    """Counts of what a write changed, with the same names for all operations. None means unknown.

    :data:`METRIC_MEANINGS` defines each field. Rows, files and retries are counts, sizes are bytes,
    `execution_ms` is milliseconds.
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
        """Return the fields that are not None.

        >>> CommitMetrics(rows_added=3).known()
        {'rows_added': 3}
        """
        values = ((name, getattr(self, name)) for name in _METRIC_NAMES)
        return {name: value for name, value in values if value is not None}


_METRIC_NAMES = tuple(field.name for field in fields(CommitMetrics))

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
"""The counts of an operation that changed nothing."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The write made one commit, or two commits of one operation (VACUUM START and VACUUM END)."""

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
    """The operation never makes a commit: checkpoint, log clean-up, manifest."""
    TABLE_EXISTS = "table_exists"
    """Mode `ignore` on a table that exists."""
    ALREADY_COMMITTED = "already_committed"
    """An earlier write with the same key of :class:`deltawitness.once` had made the commit."""
    QUARANTINED = "quarantined"
    """The rows do not meet an expectation, and were written to a quarantine table."""
    NOT_FOUND = "not_found"
    """The engine reported success, but no commit of this write was found in the log."""


@dataclass(frozen=True, slots=True)
class NoCommit:
    """The write succeeded and made no commit."""

    reason: NoCommitReason
    metrics: CommitMetrics = field(default_factory=CommitMetrics)


@dataclass(frozen=True, slots=True)
class Exported:
    """The write made files outside any Delta table, so there is no log and no commit.

    Attributes:
        metrics: rows, files and bytes that were added, where known.

    >>> Exported(CommitMetrics(rows_added=3, files_added=1)).metrics.known()
    {'rows_added': 3, 'files_added': 1}
    """

    metrics: CommitMetrics = field(default_factory=CommitMetrics)


class Landed(StrEnum):
    """Whether a write that raised has made its commit nevertheless."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine raised.

    Attributes:
        error_type: type of the error, from a closed set.
        exception_type: qualified name of the exception's class.
        message: text of the exception; redacted before export.
        landed: whether the commit is in the log nevertheless.
        version: the last committed version, when `landed` is yes.
        metrics: counts of the commit when it landed; zeros when it did not.
        versions: every committed version, when `landed` is yes.
        is_programs_own: whether the program raised the exception, for example in a source of rows.
            Its text may be data, so only the exception's type is exported.
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
        """Set `versions` from `version` if only the latter is given."""
        if self.version is not None and not self.versions:
            object.__setattr__(self, "versions", (self.version,))


WriteOutcome: TypeAlias = Committed | NoCommit | Exported | Failed
"""Outcome of a write; distinguish the classes with `match`."""


@dataclass(frozen=True, slots=True)
class WritePhase:
    """A phase of the engine's call, from the metrics of the engine.

    Attributes:
        name: `scan`, `rewrite`, `execute` (the rest of the execution) or `commit`.
        start_ns: its start in nanoseconds after the start of the write.
        duration_ns: its duration in nanoseconds. The engine reports milliseconds.
    """

    name: str
    start_ns: int
    duration_ns: int


@dataclass(frozen=True, slots=True)
class ExpectationCheck:
    """The result of one rule of an expectation for the rows of one write.

    Attributes:
        rule: kind of the rule.
        columns: the columns that the rule is about; empty for `rows_added` and `schema`.
        is_met: whether the rows meet the rule; None if it could not be checked for this write.
        observed: what was counted: rows, nulls, rows with a repeated key, rows with another value, or
            columns that differ; None if nothing was counted.
        detail: what was observed and what is allowed, or why the rule was not checked.

    >>> ExpectationCheck(
    ...     ExpectationRule.NULLS, ("id",), False, 2, "2 nulls, at most 0 allowed"
    ... ).label
    'nulls(id)'
    """

    rule: ExpectationRule
    columns: tuple[str, ...]
    is_met: bool | None
    observed: int | None
    detail: str

    @property
    def label(self) -> str:
        """The rule with its columns."""
        columns = ",".join(self.columns)
        return f"{self.rule.value}({columns})" if columns else self.rule.value

    def __str__(self) -> str:
        return f"{self.label}: {self.detail}"


@dataclass(frozen=True, slots=True)
class ExpectationReport:
    """The results of all expectations of one write.

    Attributes:
        result: what happened to the write.
        checks: the result of each rule.
        quarantine: location of the table with the rows of a quarantined write, without credentials.
    """

    result: ExpectationResult
    checks: tuple[ExpectationCheck, ...]
    quarantine: str | None = None

    @property
    def unmet(self) -> tuple[ExpectationCheck, ...]:
        """The rules that the rows do not meet."""
        return tuple(check for check in self.checks if check.is_met is False)

    @property
    def checked(self) -> tuple[ExpectationCheck, ...]:
        """The rules that were checked."""
        return tuple(check for check in self.checks if check.is_met is not None)


@dataclass(frozen=True, slots=True)
class WriteEvent:
    """One observed write. It is built once and passed to every sink.

    Attributes:
        write_id: UUIDv7; also in the commit metadata.
        run: the run that made the write.
        intent: parameters of the write.
        outcome: result of the write.
        started_at: start in nanoseconds since the Unix epoch.
        duration_ns: duration of the engine's call in nanoseconds.
        trace_id: 32 hex digits, or None without a trace.
        span_id: 16 hex digits, or None without a trace.
        table_id: stable id of the table (:func:`deltawitness.locations.table_id`).
        thread: name of the calling thread.
        pid: process id.
        call_site: the line of the program that made the write.
        overhead_ns: nanoseconds that the observation took on the calling thread, before and after the engine's
            call; None if they were not measured.
        phases: the phases of the engine's call; only with the setting `capture_phases`.
        expectations: results of the expectations that the program has for the write; None without any.
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
    call_site: CallSite | None = None
    overhead_ns: int | None = None
    phases: tuple[WritePhase, ...] = ()
    expectations: ExpectationReport | None = None

    @property
    def message(self) -> str | None:
        """Why the write was made: the message of its cache context, else of its run."""
        return self.intent.message or self.run.message

    @property
    def result(self) -> CacheResult:
        """The outcome as a result of the cache (`cache.result`)."""
        match self.outcome:
            case Committed() | Exported():
                return CacheResult.WRITE
            case NoCommit():
                return CacheResult.NOOP
            case Failed():
                return CacheResult.ERROR


WriteSink: TypeAlias = Callable[[WriteEvent], None]
"""Called with each finished write exactly once, in order, on the delivery thread."""
