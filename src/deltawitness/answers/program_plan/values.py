"""The plan of a program: what it would do to which tables; and what it did when the plan was applied."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from deltawitness.answers.diff.table_values import (
    ColumnChange,
    DiffOperation,
    FileChanges,
    PropertyChange,
    RowChanges,
)

__all__ = ["AppliedPlan", "AppliedTable", "PlannedState", "PlannedTable", "ProgramPlan"]


class PlannedState(StrEnum):
    """What a program would do with a table."""

    CREATE = "create"
    """It would create the table."""
    CHANGE = "change"
    """It would commit to the table."""
    READ = "read"
    """It has opened the table, and would not commit to it."""
    ABSENT = "absent"
    """It has opened the location, where no table is, and would create none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTable:
    """What a program would do with one table.

    Attributes:
        name: name of the table.
        uri: its location, with symbolic links resolved.
        table_id: its id (:func:`deltawitness.table_id`).
        state: what the program would do.
        version: the last version before; None if there was no table.
        commit_hash: hash of the commit of this version, by which `apply` recognizes the table; None if the
            log no longer has it.
        planned_version: the last version after; None if there is no table.
        operations: the operations that would commit, in order.
        columns: the columns that differ; all columns of a new table.
        partition_columns: the partition columns after; None if they do not change.
        properties: the table properties that differ.
        rows_before: number of rows before; None if it is not known.
        rows_after: number of rows after; None if it is not known.
        files: the data files that differ; None for a table without a change.
        rows: the rows that differ; None if they were not compared.
        problem: why the versions could not be compared as requested; None if they were.
    """

    name: str
    uri: str
    table_id: str
    state: PlannedState
    version: int | None = None
    commit_hash: str | None = None
    planned_version: int | None = None
    operations: tuple[DiffOperation, ...] = ()
    columns: tuple[ColumnChange, ...] = ()
    partition_columns: tuple[str, ...] | None = None
    properties: tuple[PropertyChange, ...] = ()
    rows_before: int | None = None
    rows_after: int | None = None
    files: FileChanges | None = None
    rows: RowChanges | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramPlan:
    """What a program would do.

    Attributes:
        plan_id: id of the plan, for :func:`deltawitness.apply`.
        command: the program and its arguments.
        directory: the working directory.
        job: job name for its run; None for the default.
        message: why it writes.
        created: when the plan was made.
        exit_code: exit code of the program; -N if signal N ended it.
        tables: the tables that it opened, in the order in which it opened them.
        refused: locations that could not be planned, one sentence each. The program got an error.
        notes: what else to know, one sentence each.
        clones: folder of the clones; None if they were deleted.
    """

    plan_id: str
    command: tuple[str, ...]
    directory: str
    job: str | None
    message: str | None
    created: datetime
    exit_code: int
    tables: tuple[PlannedTable, ...]
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    clones: str | None = None

    def in_state(self, *states: PlannedState) -> tuple[PlannedTable, ...]:
        """Return the tables in one of some states."""
        return tuple(table for table in self.tables if table.state in states)

    @property
    def is_applicable(self) -> bool:
        """Whether `apply` runs the program: it has exited with 0, and no location was refused."""
        return self.exit_code == 0 and not self.refused


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedTable:
    """What the program did with a table that it was planned to change.

    Attributes:
        name: name of the table.
        uri: its location.
        version: the last version before.
        planned_version: the last version in the plan.
        applied_version: the last version after.
        others: versions after `version` that other writers committed while the program ran.
    """

    name: str
    uri: str
    version: int | None
    planned_version: int | None
    applied_version: int | None
    others: tuple[int, ...] = ()

    @property
    def is_as_planned(self) -> bool:
        """Whether there are as many commits as planned, and none of other writers."""
        return self.applied_version == self.planned_version and not self.others


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPlan:
    """What became of a plan.

    Attributes:
        plan_id: id of the plan.
        command: the program and its arguments.
        reasons: why the program was not started, one sentence each; empty if it was.
        exit_code: exit code of the program; None if it was not started.
        run_id: id of its run; None if it was not started.
        tables: the tables that the plan changes or creates.
        unplanned: paths of tables that the program has opened, and that the plan does not have.
    """

    plan_id: str
    command: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    exit_code: int | None = None
    run_id: str | None = None
    tables: tuple[AppliedTable, ...] = ()
    unplanned: tuple[str, ...] = ()

    @property
    def is_started(self) -> bool:
        """Whether the program was started."""
        return not self.reasons
