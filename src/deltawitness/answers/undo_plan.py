"""The plan of an undo: for each table that a run wrote, what an undo does with it, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["LaterCommit", "UndoPlan", "UndoState", "UndoTable"]


class UndoState(StrEnum):
    """What an undo does, or has done, with a table."""

    RESTORE = "restore"
    """`undo` with `apply` restores the version before the run."""
    RESTORED = "restored"
    """The version before the run is restored; by this call, or by an earlier one."""
    UNCHANGED = "unchanged"
    """The run has changed no rows, schema or properties of the table; or the table is a cache entry."""
    CREATED = "created"
    """The run created the table. An undo never drops a table."""
    REFUSED = "refused"
    """The table cannot be restored, or only with a loss; the reason says why."""
    FAILED = "failed"
    """The restore has raised an error, and the table is as before; the reason is the error."""


@dataclass(frozen=True, slots=True)
class LaterCommit:
    """A commit that others made after the run's first one, and that the restore discards.

    Attributes:
        version: the version.
        operation: the operation.
        run_id: id of the run that made it; None if nothing observed it.
        time: when it was made.
    """

    version: int
    operation: str | None
    run_id: str | None
    time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoTable:
    """One table of an undo.

    Attributes:
        name: name of the table.
        uri: its location; None if the ledger does not have it.
        table_id: its id (:func:`deltawitness.table_id`).
        state: what the undo does, or has done, with it.
        reason: why it is refused or has failed.
        versions: the versions that the run and its child runs committed, without those of an undo.
        current: the last version in the log; None if the log cannot be read.
        before: the version to restore; None if there is none.
        later: commits of others that a restore discards.
        restored_version: the version of the commit that restored it; None if it is not restored.
        has_transactions: whether commits of the run have application transactions. They stay in the log:
            an exactly-once write with the same key is skipped also after the undo.
    """

    name: str
    uri: str | None
    table_id: str | None
    state: UndoState
    reason: str | None = None
    versions: tuple[int, ...] = ()
    current: int | None = None
    before: int | None = None
    later: tuple[LaterCommit, ...] = ()
    restored_version: int | None = None
    has_transactions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoPlan:
    """What an undo of a run does, or has done.

    Attributes:
        run_id: id of the run to undo.
        job: its job.
        status: its status; None if it has not ended.
        tables: the tables that the run and its child runs wrote.
        is_applied: whether tables were restored, or the plan alone was made.
        undo_run_id: id of the run that restored tables; None if this call restored none.
        notes: what else to know, one sentence each.
    """

    run_id: str
    job: str | None
    status: str | None
    tables: tuple[UndoTable, ...]
    is_applied: bool = False
    undo_run_id: str | None = None
    notes: tuple[str, ...] = ()

    def in_state(self, *states: UndoState) -> tuple[UndoTable, ...]:
        """Return the tables in one of some states."""
        return tuple(table for table in self.tables if table.state in states)

    @property
    def is_complete(self) -> bool:
        """Whether no table is refused or has failed, and none waits for `apply`.

        Tables that the run created are not counted: they stay, with the rows of the run.
        """
        return not self.in_state(UndoState.RESTORE, UndoState.REFUSED, UndoState.FAILED)
