"""The recorder of a process: it writes observed operations to the spool and drains the spool."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deltawitness.events import WriteEvent
from deltawitness.forks import register_fork_handlers
from deltawitness.ids_and_clock import new_id
from deltawitness.internal_errors import report
from deltawitness.ledger.drain.drain_thread import DrainThread
from deltawitness.ledger.drain.open_runs import OpenRuns
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.spool.running import RunningSlot
from deltawitness.ledger.spool.writer import Segment, Spool
from deltawitness.ledger.tables.locations import root_of, shard_of, spool_folder
from deltawitness.ledger.tables.run_rows import RunStatus
from deltawitness.ledger.tables.schema import LedgerRoot, Source
from deltawitness.ledger.tables.write_rows import as_json, event_row, ledger_uri, process_columns
from deltawitness.locations import local_path
from deltawitness.redaction import key_hash, message_for_ledger, redact_label
from deltawitness.run_context import RunContext
from deltawitness.settings import Settings

__all__ = ["Recorder", "recorder_of"]


LONGEST_BEFORE_EXEC = 10.0
"""Maximum seconds that an exec waits for the drain before it."""


class Recorder:
    """Records the operations and runs of a process in its spool, and drains the spool.

    Args:
        settings: location of the ledger, size of the spool, frequency of drains.
        is_busy: returns whether a write is in progress.
        on_drop: called with a component's name for each operation that could not be recorded.
        may_use_engine: returns whether a drain may use delta-rs in this process; while it may not,
            a helper process drains.

    Attributes:
        root: location of the ledger.
        spools: the local folder of all spools.
        drains: drains the spool.
        await_rows: waits for the final rows of all writes that have finished.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        is_busy: Callable[[], bool] = bool,
        on_drop: Callable[[str], None] = lambda _: None,
        may_use_engine: Callable[[], bool] = lambda: True,
    ) -> None:
        self.root: LedgerRoot = root_of(settings)
        self.spools: Path = spool_folder(settings, self.root)
        self._settings = settings
        self._is_busy = is_busy
        self._on_drop = on_drop
        self.await_rows: Callable[[], object] = bool
        self._spool = Spool(
            self.spools,
            limit=settings.spool_limit,
            shard=shard_of(settings),
            on_error=lambda error: report("spool", error),
            open_runs=lambda: self._runs.start_records(),  # noqa: PLW0108 - created below
        )
        self._runs = OpenRuns(self._spool, ledger_uri(self.root.uri), on_drop)
        self.drains: DrainThread = DrainThread(
            spool=self._spool,
            runs=self._runs,
            root=self.root.of_shard(shard_of(settings)),
            settings=settings,
            is_busy=is_busy,
            on_drop=on_drop,
            may_use_engine=may_use_engine,
        )
        _recorders.add(self)

    # --- recording ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Create this process's spool before its first commit.

        A reconcile sees from it that the process is alive and may still record the commit. Also
        starts a helper process if one is due.
        """
        self.drains.before_operation()
        self._spool.begin()

    def start_write(self, text: str, write_id: str, started_at: int) -> RunningSlot | None:
        """Add a write that enters the engine to the file of running writes.

        Args:
            text: what `running_text` returned for the write.
            write_id: id of the write.
            started_at: nanoseconds since the Unix epoch.

        Returns:
            Its slot, to be ended after the write; None if it could not be added.
        """
        return self._spool.running.start(self._spool.home, text, write_id, started_at)

    def record_provisional(self, write_id: str, run: RunContext, body: str) -> Segment | None:
        """Append the provisional record of a write that has ended.

        Args:
            write_id: id of the write.
            run: the run that it belongs to.
            body: the record as JSON.

        Returns:
            The segment of the record; None if it could not be written.
        """
        self._runs.join(run)
        segment = self._spool.append_provisional(write_id, body)
        self.drains.after_operation()
        return segment

    def finalize(
        self, segment: Segment | None, event: WriteEvent, redacted: WriteEvent, location: str | None
    ) -> None:
        """Append the final row of a write.

        Args:
            segment: the return value of :meth:`record_provisional`.
            event: the full record.
            redacted: `event` after redaction.
            location: location of its table.
        """
        row = event_row(event, redacted, location, self._settings.ledger_messages)
        if not self._spool.append_row(segment, event.write_id, as_json(row)):
            self._on_drop("spool")
        self._runs.add(event.run, row)

    def record_operation(self, run: RunContext, row: Mapping[str, Any]) -> None:
        """Append the row of an operation other than a write, such as a read of a cache entry.

        Args:
            run: the run that it belongs to.
            row: columns of the inventory; ids, host, process and run are added.
        """
        self.begin()
        self._runs.join(run)
        write_id = new_id()
        full_row = {
            **{name: self._stored_value(name, value) for name, value in row.items()},
            "run_id": run.run_id,
            "write_id": write_id,
            "job": redact_label(run.job),
            **process_columns(),
            "source": Source.OBSERVED.value,
        }
        if not self._spool.append(RecordKind.ROW, write_id, as_json(full_row)):
            self._on_drop("spool")
        self._runs.add(run, full_row)
        self.drains.after_operation()

    def _stored_value(self, name: str, value: Any) -> Any:
        """Return the form of a column's value to store: redacted, hashed or canonical."""
        if name == "error_message" and value is not None:
            return message_for_ledger(value, self._settings.ledger_messages)
        return _CONVERSIONS.get(name, _unchanged)(value)

    def record_snapshot(self, name: str, row: Mapping[str, Any]) -> None:
        """Append a row of the snapshot registry."""
        # A new id, because a name may contain characters that are invalid in a record.
        if not self._spool.append(
            RecordKind.SNAPSHOT, new_id(), as_json({**row, "snapshot": name})
        ):
            self._on_drop("spool")
        self.drains.after_operation()

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The ids of the runs that are open in this process."""
        return self._runs.ids

    @property
    def is_open(self) -> bool:
        """Whether it records and drains: it is not closed, and this is not a forked child."""
        return self.drains.is_open

    @property
    def is_writing(self) -> bool:
        """Whether a write of this process is in progress, or has no provisional record yet."""
        return self._is_busy()

    @property
    def home(self) -> Path | None:
        """The folder of this process's spool; None before the first operation."""
        return self._spool.home

    @property
    def pending(self) -> int:
        """Number of operations that are not in the ledger yet."""
        return self._spool.pending

    # --- runs ----------------------------------------------------------------------------------------

    def run_started(self, run: RunContext) -> None:
        """Register a run that was opened in this process."""
        self._runs.start(run)

    def run_ended(self, run: RunContext, error: BaseException | None) -> None:
        """Record the end of a run."""
        self._runs.end(run, error)

    def run_closed(self, run: RunContext) -> None:
        """Drain after the end of a run: at once if it was the outermost run, else soon."""
        self.drains.after_run(run)

    # --- drain, close and fork -----------------------------------------------------------------------

    def drain(self) -> bool:
        """Drain all spooled records now; return whether that succeeded.

        Errors are reported, not raised: records that cannot be drained stay in the spool for the
        next drain.
        """
        return self.drains.drain()

    def close(
        self, error: BaseException | None, *, timeout: float, is_replaced: bool = False
    ) -> None:
        """End the runs that are still open, drain, and close the spool.

        Args:
            error: the exception that ends the process, if any.
            timeout: seconds that the last drain may take; another process drains what is left then.
                Before an exec, the seconds that it may take without progress.
            is_replaced: another program continues in this process, so that its end is not known here.
        """
        supervised = self._runs.close(error)
        # Unlike at SIGTERM, nothing ends the process meanwhile.
        longest = LONGEST_BEFORE_EXEC if is_replaced else None
        self.drains.close()
        try:
            is_done = (
                self.drains.is_child
                or not self.spools.exists()
                or self.drains.drain_in_time(timeout, longest=longest)
            )
        finally:
            # After the last drain, so that they stay in the spool: the supervisor adds the exit code.
            self._runs.finish(supervised, error, RunStatus.ABANDONED if is_replaced else None)
        if is_done:
            self._spool.close()

    def close_before_exec(self, *, timeout: float) -> Callable[[], None]:
        """Drain and close the spool, before another program replaces this one in the process.

        Args:
            timeout: seconds that the drain may take without progress.

        Returns:
            Opens the recorder again, with the same open runs: call it if the exec fails.
        """
        # With counts of zero: what is counted so far is in the row of each run.
        runs = self._runs.copies()
        self.close(None, timeout=timeout, is_replaced=True)

        def reopen() -> None:
            self.drains.reopen()
            self._runs.reopen(runs)

        return reopen

    def before_fork(self) -> None:
        """Wait for a drain in this process to end, and lock the spool."""
        self.drains.before_fork()
        self._spool.before_fork()

    def after_fork_in_parent(self) -> None:
        """Release the locks after a fork."""
        self._spool.after_fork_in_parent()
        self.drains.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Start with an empty spool, which other processes will drain."""
        self._spool.after_fork_in_child()
        self._runs.after_fork_in_child()
        self.drains.after_fork_in_child()


def _unchanged(value: Any) -> Any:
    return value


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "table_uri": lambda value: None if value is None else ledger_uri(value),
    "key": lambda value: None if value is None else key_hash(value),
}
"""How values of columns that a program sets are converted for storage."""


def recorder_of(root: LedgerRoot) -> Recorder | None:
    """Return this process's open recorder of a ledger; None if there is none."""
    location = _canonical_location(root)
    candidates = (recorder for recorder in list(_recorders) if recorder.is_open)
    return next(
        (found for found in candidates if _canonical_location(found.root) == location), None
    )


def _canonical_location(root: LedgerRoot) -> str:
    """Return the canonical location of a ledger, with symbolic links resolved."""
    local = local_path(root.uri)
    return ledger_uri(root.uri) if local is None else str(Path(local).resolve())


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()
register_fork_handlers(_recorders)
