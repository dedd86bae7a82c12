"""The result of `doctor`: findings with their severity, and the sizes of files and logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Health", "HealthCheck", "HealthFinding", "Severity", "SizeBucket", "TableHealth"]


class Severity(StrEnum):
    """How bad a finding is."""

    INFO = "info"
    """Good to know: nothing has to be done."""
    WARNING = "warning"
    """Reads or writes are slower, cost more or fail at times, or a record is incomplete."""
    ERROR = "error"
    """The table cannot be read, or its rows are wrong."""

    @property
    def rank(self) -> int:
        """The order of the severities; higher is worse."""
        return list(Severity).index(self)


class HealthCheck(StrEnum):
    """What is checked."""

    UNREADABLE = "unreadable"
    """The table or a part of it cannot be read."""
    DOUBLED_ROWS = "doubled_rows"
    """Two compactions have rewritten the same files, so that their rows are in the table twice."""
    MISSING_FILES = "missing_files"
    """Files of the newest version are not on the storage."""
    DAMAGED_FILES = "damaged_files"
    """Files of the newest version have another size on the storage than in the log."""
    LOG_GAP = "log_gap"
    """The log lacks commits that no checkpoint replaces."""
    DAMAGED_CHECKPOINT = "damaged_checkpoint"
    """A checkpoint cannot be read, or lacks a part."""
    LAST_CHECKPOINT = "last_checkpoint"
    """`_last_checkpoint` is missing, damaged, or names a checkpoint that does not exist."""
    LOG_TAIL = "log_tail"
    """There are many commits after the last checkpoint, which each reader has to read."""
    LOG_LENGTH = "log_length"
    """The log has many commits."""
    FOREIGN_READERS = "foreign_readers"
    """Commits have content on which stricter readers fail."""
    UNANNOTATED = "unannotated"
    """Commits do not have our metadata: something writes without observation."""
    LEDGER_GAP = "ledger_gap"
    """The ledger lacks observed commits of the log, or has commits that the log lacks."""
    CONFLICTS = "conflicts"
    """Writes have lost against concurrent commits."""
    SMALL_FILES = "small_files"
    """The table has many small files."""
    PARTITION_SKEW = "partition_skew"
    """One partition is much larger than the others."""
    OLD_VERSIONS = "old_versions"
    """Files that only old versions need are on the storage."""
    ORPHANS = "orphans"
    """Files that no commit of the log names are on the storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthFinding:
    """One finding of `doctor`.

    Attributes:
        check: what was checked.
        severity: how bad it is.
        table: name of the table.
        uri: its location, without credentials.
        text: what was found, in one line.
        evidence: numbers and versions that show it.
        command: a shell command that mends it; None if there is none.
    """

    check: HealthCheck
    severity: Severity
    table: str
    uri: str
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None


@dataclass(frozen=True, slots=True)
class SizeBucket:
    """The files of a range of sizes.

    Attributes:
        below: the sizes are below this number of bytes, and not below that of the bucket before; None for
            the last bucket.
        files: number of files.
        bytes: their size.
    """

    below: int | None
    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHealth:
    """The health of one table.

    Attributes:
        name: its name.
        uri: its location, without credentials.
        version: its newest version; None if it cannot be read.
        files: number of files of the newest version; None if it cannot be read.
        bytes: their size; None if it cannot be read.
        rows: number of rows in the files, also of those that deletion vectors delete; None if the statistics do
            not say.
        partitions: number of partitions; None for a table without partition columns.
        sizes: the files of the newest version by size, as a histogram.
        commits: number of commits in the log.
        log_bytes: size of the log with its checkpoints.
        checkpoint: version of the last complete checkpoint; None if there is none.
        commits_since_checkpoint: number of commits after it.
        held_files: files that only old versions need.
        held_bytes: their size.
        orphan_files: files that no commit of the log names, and that are older than an hour.
        orphan_bytes: their size.
        findings: the findings, the worst first.
    """

    name: str
    uri: str
    version: int | None = None
    files: int | None = None
    bytes: int | None = None
    rows: int | None = None
    partitions: int | None = None
    sizes: tuple[SizeBucket, ...] = ()
    commits: int = 0
    log_bytes: int = 0
    checkpoint: int | None = None
    commits_since_checkpoint: int = 0
    held_files: int | None = None
    held_bytes: int | None = None
    orphan_files: int | None = None
    orphan_bytes: int | None = None
    findings: tuple[HealthFinding, ...] = ()

    @property
    def severity(self) -> Severity | None:
        """The worst severity of its findings; None without findings."""
        return max((each.severity for each in self.findings), key=_rank, default=None)


@dataclass(frozen=True, slots=True)
class Health:
    """The health of some tables.

    Attributes:
        tables: the tables, in the order of the question.
    """

    tables: tuple[TableHealth, ...] = ()

    @property
    def findings(self) -> tuple[HealthFinding, ...]:
        """The findings of all tables, the worst first."""
        found = [each for table in self.tables for each in table.findings]
        return tuple(sorted(found, key=lambda each: -each.severity.rank))

    @property
    def severity(self) -> Severity | None:
        """The worst severity; None without findings."""
        return max((each.severity for each in self.findings), key=_rank, default=None)

    @property
    def is_healthy(self) -> bool:
        """Whether no finding is a warning or an error."""
        return self.severity in {None, Severity.INFO}


def _rank(severity: Severity) -> int:
    return severity.rank
