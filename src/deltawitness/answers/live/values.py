"""What the processes of a ledger do now, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["LiveProcess", "LiveReport", "LiveSource", "LiveWrite", "ProcessState", "RunningWrite"]


class ProcessState(StrEnum):
    """Whether a process with a spool lives."""

    ALIVE = "alive"
    """It holds the lock of its spool."""
    ENDED = "ended"
    """It has ended, and its spool waits for a drain (`deltawitness drain`, or the next program)."""


class LiveSource(StrEnum):
    """Where a write was read."""

    SPOOL = "spool"
    """A spool of this machine: the write is not in the ledger yet."""
    LEDGER = "ledger"
    """The ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningWrite:
    """A write that is in the engine.

    Attributes:
        write_id: its id.
        started_at: when it began.
        run_id: the run that it belongs to.
        job: name of the job.
        table: name of the table.
        table_id: id of the table (:func:`deltawitness.table_id`).
        operation: the operation, as the log names it.
        mode: the save mode.
        rows: rows that the engine has read so far, if deltawitness feeds them to it.
        pid: id of the process.
        host: name of the host.
        is_lost: whether the process has ended during the write. Whether the write has landed is known once
            the spool is drained and the table is reconciled.
    """

    write_id: str
    started_at: datetime
    run_id: str | None = None
    job: str | None = None
    table: str | None = None
    table_id: str | None = None
    operation: str | None = None
    mode: str | None = None
    rows: int | None = None
    pid: int | None = None
    host: str | None = None
    is_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProcess:
    """A process of this machine that has a spool.

    Attributes:
        spool: name of the folder of its spool.
        state: whether it lives.
        pid: its id; None if the spool does not say.
        host: name of its host.
        started_at: when it began to observe.
        run_id: the run that it opened first.
        job: name of the job of this run.
        running: its writes that are in the engine, oldest first.
        pending: number of its operations that are not in the ledger yet.
    """

    spool: str
    state: ProcessState
    pid: int | None = None
    host: str | None = None
    started_at: datetime | None = None
    run_id: str | None = None
    job: str | None = None
    running: tuple[RunningWrite, ...] = ()
    pending: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWrite:
    """An operation that has finished.

    Attributes:
        write_id: its id.
        time: when it began.
        run_id: the run that it belongs to.
        job: name of the job.
        table: name of the table.
        table_id: id of the table.
        operation: the operation, as the log names it.
        mode: the save mode.
        version: the last version that it committed.
        result: `write`, `hit`, `miss`, `noop` or `error`; None for an operation without a final row.
        reason: why it made no commit, or why a read was a miss.
        rows_added: number of added rows.
        rows_updated: number of updated rows.
        rows_deleted: number of deleted rows.
        seconds: its duration.
        error_type: type of the error.
        landed: whether a failed operation has committed: `yes`, `no` or `unknown`.
        pid: id of the process.
        host: name of the host.
        source: where it was read.
    """

    write_id: str
    time: datetime
    run_id: str | None = None
    job: str | None = None
    table: str | None = None
    table_id: str | None = None
    operation: str | None = None
    mode: str | None = None
    version: int | None = None
    result: str | None = None
    reason: str | None = None
    rows_added: int | None = None
    rows_updated: int | None = None
    rows_deleted: int | None = None
    seconds: float | None = None
    error_type: str | None = None
    landed: str | None = None
    pid: int | None = None
    host: str | None = None
    source: LiveSource = LiveSource.LEDGER


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReport:
    """What the processes of a ledger do at one time.

    Attributes:
        at: the time.
        processes: the processes of this machine, oldest first.
        writes: the latest finished operations of all processes, newest first.
        problems: what could not be read, one line each.
    """

    at: datetime
    processes: tuple[LiveProcess, ...] = ()
    writes: tuple[LiveWrite, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def running(self) -> tuple[RunningWrite, ...]:
        """The writes that are in the engine, oldest first."""
        found = (write for process in self.processes for write in process.running)
        return tuple(sorted(found, key=lambda write: write.started_at))
