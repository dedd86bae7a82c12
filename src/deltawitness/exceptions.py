"""Errors and warnings that deltawitness raises itself. Errors of the engines pass through unmodified.

::

    DeltaWitnessError
    ├── ConfigurationError      (ValueError)   a setting or environment variable is wrong
    ├── MetadataKeyError        (ValueError)   a commit key would break a reader of the log
    ├── WriteRequestError       (ValueError)   a write request that cannot be written
    ├── StatementError          (ValueError)   a SQL statement that cannot run on a Delta table
    ├── RequirementError        (RuntimeError) a write without the run, job or message that settings require
    ├── ExpectationError        (RuntimeError) rows that do not meet an expectation of the program
    ├── OnceError               (RuntimeError) a write of a `once` block that cannot be made exactly once
    ├── CacheError              (RuntimeError) a cache entry that cannot be read or written
    ├── MissingExtraError       (ImportError)  a feature whose optional package is not installed
    ├── UnsupportedEngineError  (RuntimeError) versions of DataFusion and deltalake that do not fit
    ├── DiffError               (ValueError)   two versions that cannot be compared
    ├── PlanError               (RuntimeError) a program or a table that `deltawitness plan` cannot plan
    ├── ReleaseError            (ValueError)   a release that cannot be created
    ├── QuestionError           (ValueError)   a question with invalid SQL, or about unreadable versions
    ├── LedgerLookupError       (LookupError)  a name or an id that the ledger lacks, or that means several
    └── CommitNotFoundError     (LookupError)  no such version in the table's log

The warnings are :class:`RepeatedStatementWarning` and :class:`CommitKeyWarning`, both a `UserWarning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltawitness.events import ExpectationReport

__all__ = [
    "CacheError",
    "CommitKeyWarning",
    "CommitNotFoundError",
    "ConfigurationError",
    "DeltaWitnessError",
    "DiffError",
    "ExpectationError",
    "LedgerLookupError",
    "MetadataKeyError",
    "MissingExtraError",
    "OnceError",
    "PlanError",
    "QuestionError",
    "ReleaseError",
    "RepeatedStatementWarning",
    "RequirementError",
    "StatementError",
    "UnsupportedEngineError",
    "WriteRequestError",
]


class DeltaWitnessError(Exception):
    """Base of every error that deltawitness raises itself."""


class ConfigurationError(DeltaWitnessError, ValueError):
    """A setting is invalid; the message names the variable and the values it allows."""


class MetadataKeyError(DeltaWitnessError, ValueError):
    """A commit metadata key that delta-rs rejects or that another reader of the log fails on."""


class WriteRequestError(DeltaWitnessError, ValueError):
    """A write request is invalid; nothing was written."""


class StatementError(DeltaWitnessError, ValueError):
    """A SQL statement, or a write of a DataFrame, cannot run on a Delta table; nothing was written."""


class RequirementError(DeltaWitnessError, RuntimeError):
    """A write has no run, no job or no message, and the settings require it. Nothing was written.

    The engine was not called. The message says what to set.
    """


class ExpectationError(DeltaWitnessError, RuntimeError):
    """The rows of a write do not meet an expectation with `on_failure="fail"`. Nothing was committed.

    Attributes:
        report: the result of each rule (:class:`deltawitness.ExpectationReport`); None if the expectation
            was refused before any rule was checked.
    """

    def __init__(self, message: str, report: ExpectationReport | None = None) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the message and the report, so that a worker can return the error."""
        return type(self), (self.args[0], self.report)


class CommitNotFoundError(DeltaWitnessError, LookupError):
    """The requested version is not in the table's log."""


class LedgerLookupError(DeltaWitnessError, LookupError):
    """A name or an id of a run or a table is unknown, or means several; the message lists candidates."""


class DiffError(DeltaWitnessError, ValueError):
    """Two versions cannot be compared: one cannot be read, or the key does not identify rows."""


class PlanError(DeltaWitnessError, RuntimeError):
    """A program cannot be planned, or a planned program uses a table that cannot be cloned."""


class ReleaseError(DeltaWitnessError, ValueError):
    """A release cannot be created: its name is taken or invalid, or its tables cannot be read."""


class QuestionError(DeltaWitnessError, ValueError):
    """The SQL of a question is invalid, or no version that it needs can be read."""


class OnceError(DeltaWitnessError, RuntimeError):
    """A write of a `once` block that cannot be made exactly once. The engine was not called.

    The message says what to do.
    """


class CacheError(DeltaWitnessError, RuntimeError):
    """A cache entry cannot be read or written, and the cache policy is to raise."""


class MissingExtraError(DeltaWitnessError, ImportError):
    """A feature needs a package that is not installed; the message names the extra that installs it."""


class UnsupportedEngineError(DeltaWitnessError, RuntimeError):
    """The installed DataFusion and deltalake do not work together; the message names versions that do."""


class CommitKeyWarning(UserWarning):
    """A key of the caller's commit metadata breaks readers of the Delta log. Issued once per key.

    It is issued before the engine is called: a warnings filter that raises it prevents the write.
    """


class RepeatedStatementWarning(UserWarning):
    """The same DataFrame runs its writing statement a second time. Issued once per DataFrame.

    It is issued before the engine is called: a warnings filter that raises it prevents the second run.
    """
