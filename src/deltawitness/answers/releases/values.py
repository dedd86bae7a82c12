"""What differs between two releases, whether a release is complete, and its restore."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from deltawitness.answers.diff.table_values import DiffChange, TableDiff
from deltawitness.answers.undo_plan import UndoState, UndoTable
from deltawitness.ledger.tables.releases import ReleasedTable

__all__ = [
    "CheckedTable",
    "NeededFiles",
    "ReleaseCheck",
    "ReleaseDiff",
    "ReleaseRestore",
    "ReleaseTableDiff",
    "ReleaseTableState",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseTableDiff:
    """What differs in one table between two releases.

    Attributes:
        name: name of the table.
        change: `added` or `removed` if only one has the table, `changed` for two versions or two tables;
            None if both have the same version.
        a: the table in the first release; None if it does not have it.
        b: the table in the second one, or its last version.
        diff: the difference of the two versions; None if both are the same, or one is missing.
        problem: why they could not be compared; None if they were.
    """

    name: str
    change: DiffChange | None
    a: ReleasedTable | None
    b: ReleasedTable | None
    diff: TableDiff | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDiff:
    """What differs between two releases, or between a release and the last versions of its tables.

    Attributes:
        a: name of the first release.
        b: name of the second release; None for the last versions.
        tables: the tables of both, in the order of their names.
    """

    a: str
    b: str | None
    tables: tuple[ReleaseTableDiff, ...]

    @property
    def is_different(self) -> bool:
        """Whether the tables, or the schema, properties or rows of a table differ."""
        return any(_is_different(table) for table in self.tables)


def _is_different(table: ReleaseTableDiff) -> bool:
    if table.diff is not None:
        return table.diff.is_different or table.diff.a.uri != table.diff.b.uri
    return table.change is not None


class ReleaseTableState(StrEnum):
    """Whether a table version of a release can be read."""

    OK = "ok"
    """All its files are there."""
    INCOMPLETE = "incomplete"
    """Some of its files were deleted, for example by a vacuum."""
    RECREATED = "recreated"
    """The table was deleted and created again."""
    UNREADABLE = "unreadable"
    """The version or its files cannot be read, for example because the log was cleaned up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTable:
    """One table of a release that was verified.

    Attributes:
        table: the table and its version.
        state: whether it can be read.
        files: number of its data files; None if they are not known.
        missing: data files that were deleted, as paths below the table.
        reason: why it is not readable; None if it is.
    """

    table: ReleasedTable
    state: ReleaseTableState
    files: int | None = None
    missing: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCheck:
    """Whether a release can be read.

    Attributes:
        name: name of the release.
        tables: its tables.
    """

    name: str
    tables: tuple[CheckedTable, ...]

    @property
    def is_ok(self) -> bool:
        """Whether all its tables can be read."""
        return all(table.state is ReleaseTableState.OK for table in self.tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRestore:
    """What a restore of a release does, or has done.

    Attributes:
        name: name of the release.
        tables: its tables. `before` is the version of the release, `later` are the commits after it,
            which a restore discards.
        is_applied: whether tables were restored, or the plan alone was made.
        run_id: id of the run that restored tables; None if this call restored none.
    """

    name: str
    tables: tuple[UndoTable, ...]
    is_applied: bool = False
    run_id: str | None = None

    def in_state(self, *states: UndoState) -> tuple[UndoTable, ...]:
        """Return the tables in one of some states."""
        return tuple(table for table in self.tables if table.state in states)

    @property
    def is_complete(self) -> bool:
        """Whether all tables have the content of the release."""
        return not self.in_state(UndoState.RESTORE, UndoState.REFUSED, UndoState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededFiles:
    """Data files that a release needs, and that a vacuum deletes or has deleted.

    Attributes:
        release: name of the release.
        table: the table and its version.
        state: `ok` if all files are there now.
        vacuum_now: number of files that a vacuum with the retention of the table would delete now.
        vacuum_later: number of files that later vacuums would delete: they are in no newer version.
        missing: number of files that were deleted.
        reason: why the version cannot be read; None if it can be.
    """

    release: str
    table: ReleasedTable
    state: ReleaseTableState
    vacuum_now: int = 0
    vacuum_later: int = 0
    missing: int = 0
    reason: str | None = None

    @property
    def message(self) -> str:
        """What is wrong or will be, in one sentence."""
        start = f"release {self.release} needs {self.table}"
        if self.reason is not None:
            return f"{start}: {self.reason}"
        if self.vacuum_now:
            return f"{start}: a vacuum would now delete {self.vacuum_now:,} of its files"
        return f"{start}: a later vacuum would delete {self.vacuum_later:,} of its files"
