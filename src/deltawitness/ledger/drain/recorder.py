"""The recorder of a process: it writes observed operations to the spool and drains the spool."""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from os import register_at_fork
from pathlib import Path
from typing import Any

from deltawitness.commit.log import local_path
from deltawitness.events import WriteEvent
from deltawitness.forks import importing
from deltawitness.ids_and_clock import new_id, now_ns
from deltawitness.internal_errors import report
from deltawitness.ledger.drain.process import DrainProcess, DrainRequest, HelperError
from deltawitness.ledger.spool.reader import has_abandoned
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.spool.supervisor import supervisor_lock
from deltawitness.ledger.spool.writer import Segment, Spool
from deltawitness.ledger.tables.locations import root_of, spool_folder
from deltawitness.ledger.tables.run_rows import OpenRun, RunStatus, run_row
from deltawitness.ledger.tables.schema import LedgerRoot, Source
from deltawitness.ledger.tables.write_rows import as_json, event_row, ledger_uri, process_columns
from deltawitness.process_exit import exit_code_of, is_failure
from deltawitness.redaction import key_hash, message_for_ledger, redact_label
from deltawitness.run import RunContext, is_process_run, started_process_run
from deltawitness.settings import Settings

__all__ = ["Recorder", "recorder_of"]

Row = dict[str, Any]

LONGEST_PAUSE = 60.0
"""Maximum seconds between two drains after repeated failures."""

QUIET_POLL = 0.05
"""Seconds between two checks for a pause between writes."""

BETWEEN_DRAINS = 1.0
"""Minimum seconds between two drains that ends of runs cause."""

HELPER_START_TIMEOUT = 5.0
"""Seconds that an operation waits for the start of a helper process."""

HELPER_SHARE = 5.0
"""Length of the pause after a drain in a helper process, as a multiple of the drain's duration."""

RUN_END_TIMEOUT = 10.0
"""Seconds that the end of a run waits for its drain; the drain itself continues."""

QUIET_TIMEOUT = 2.0
"""Seconds that a drain waits for a pause between writes."""

MAX_OPEN_PARTS = 64
"""Runs of other processes that are kept open here. Each new segment repeats their start records."""

MAX_UNRECORDED = 256
"""Ended runs that wait for room in the spool; beyond that the oldest are dropped."""


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
        await_rows: waits for the final rows of all writes that have finished.
        on_drain: called after each drain with its seconds and the error that ended it.
        is_exiting: whether the process is about to exit. If no helper process can be started then,
            the process drains itself.
        is_terminated: whether a signal is about to end the process. It then drains itself: the
            program may be waiting for its children, and a helper would briefly be one of them.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        is_busy: Callable[[], bool] = bool,
        on_drop: Callable[[str], None] = lambda _: None,
        may_use_engine: Callable[[], bool] = lambda: True,
    ) -> None:
        self.root = root_of(settings)
        self.spools = spool_folder(settings, self.root)
        self._settings = settings
        self._is_busy = is_busy
        self._on_drop = on_drop
        self._may_use_engine = may_use_engine
        self.await_rows: Callable[[], object] = bool
        self.on_drain: Callable[[float, BaseException | None], None] = lambda *_: None
        self.is_exiting = False
        self.is_terminated = False
        self._shown_root = ledger_uri(self.root.uri)
        self._runs: dict[str, OpenRun] = {}
        self._parents: set[str] = set()
        self._spool = Spool(
            self.spools,
            limit=settings.spool_limit,
            on_error=lambda error: report("spool", error),
            open_runs=self._open_runs,
        )
        self._is_child = False
        self._reset()
        _recorders.add(self)

    def _reset(self) -> None:
        # Reentrant: a signal handler may interrupt the holder and write.
        self._counting = threading.RLock()
        self._starting = threading.Lock()
        self._draining = threading.Lock()
        # Held while no fork may happen: during a drain in this process, and the start of a helper.
        self._unforkable = threading.Lock()
        self._wake = threading.Event()
        self._is_helper_due = False
        self._helper_started = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._since_drain = 0
        self._is_failing = self._is_hanging = False
        self._helper_pause = 0.0
        self._drained_at = -BETWEEN_DRAINS

    # --- recording ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Create this process's spool before its first commit.

        A reconcile sees from it that the process is alive and may still record the commit. Also
        starts a helper process if one is due.
        """
        if self._is_helper_due and not self._draining.locked():
            # Before the operation: while its row is missing, earlier rows cannot be drained.
            self._start_helper()
        self._spool.begin()

    def record_provisional(self, write_id: str, run: RunContext, body: str) -> Segment | None:
        """Append the provisional record of a write that has ended.

        Args:
            write_id: id of the write.
            run: the run that it belongs to.
            body: the record as JSON.

        Returns:
            The segment of the record; None if it could not be written.
        """
        if run.run_id not in self._runs:
            self._join_run(run)
        segment = self._spool.append_provisional(write_id, body)
        self._wake_if_due()
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
        self._tally(event.run, row)

    def record_operation(self, run: RunContext, row: Mapping[str, Any]) -> None:
        """Append the row of an operation other than a write, such as a read of a cache entry.

        Args:
            run: the run that it belongs to.
            row: columns of the inventory; ids, host, process and run are added.
        """
        self.begin()
        if run.run_id not in self._runs:
            self._join_run(run)
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
        self._tally(run, full_row)
        self._wake_if_due()

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
        self._wake_if_due()

    def _tally(self, run: RunContext, row: Row) -> None:
        with self._counting:
            # Ended, or evicted. Not after close(): no code would end it then.
            if run.run_id not in self._runs and not self._closed:
                self._join_run(run)
            known = self._runs.get(run.run_id)
            if known is not None:
                known.tally.add(row)

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The ids of the runs that are open in this process."""
        with self._counting:
            return tuple(self._runs)

    @property
    def is_open(self) -> bool:
        """Whether it records and drains: it is not closed, and this is not a forked child."""
        return not self._closed and not self._is_child

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
        self._track_parent(run)
        known = self._runs.get(run.run_id)
        if known is None:
            self._register_run(OpenRun(run, is_part=False, depth=1))
        else:
            known.depth += 1
            known.is_part = False

    def _track_parent(self, run: RunContext) -> None:
        """Make sure that a parent run gets a row, even if it wrote nothing itself."""
        parent = run.parent_run_id
        if parent is None or parent in self._runs:
            return
        self._parents.add(parent)
        process = started_process_run()
        if process is not None and process.run_id == parent:
            self._join_run(process)

    def _join_run(self, run: RunContext) -> None:
        """Register a run that another process opened, or that has ended here already, as a part."""
        is_part = run.is_joined or self._is_child or not is_process_run(run)
        with self._counting:
            if run.run_id in self._runs:
                return  # another thread was faster
            self._register_run(OpenRun(run, is_part=is_part))
            parts = [known for known in self._runs.values() if known.is_open_part]
            if len(parts) > MAX_OPEN_PARTS:
                self._finish_run(parts[0], None)

    def _register_run(self, opened: OpenRun) -> None:
        run_id = opened.context.run_id
        self._runs[run_id] = opened
        started = as_json(opened.start_row(self._shown_root))
        if not self._spool.append(RecordKind.RUN_START, run_id, started):
            report("spool", OSError("the start of a run could not be recorded"))

    def run_ended(self, run: RunContext, error: BaseException | None) -> None:
        """Record the end of a run."""
        if run.run_id in self._parents:
            # Opened before this recorder existed, and other runs were opened in it since.
            self._join_run(run)
            self._parents.discard(run.run_id)
        known = self._runs.get(run.run_id)
        if known is None:
            return
        known.depth -= 1
        if known.depth < 0 and not self._is_child:
            # Opened before this recorder existed.
            known.is_part = False
        if known.depth <= 0:
            if self._is_ended_by_supervisor(known):
                known.error = error
            else:
                self._finish_run(known, error)

    @staticmethod
    def _is_ended_by_supervisor(run: OpenRun) -> bool:
        """Return whether a supervisor, which sees the exit code, records the end of this run."""
        return supervisor_lock() is not None and is_process_run(run.context)

    def _finish_run(self, run: OpenRun, error: BaseException | None) -> None:
        with self._counting:
            has_failed = is_failure(error)
            run.end_row = run_row(
                run.start_row(self._shown_root),
                run.tally,
                status=RunStatus.ERROR if has_failed else RunStatus.OK,
                end_time=now_ns() // 1000,
                error_type=type(error).__qualname__ if has_failed else None,
                dropped=self._spool.dropped,
                exit_code=exit_code_of(error, ends_process=is_process_run(run.context)),
            )
            self._record_run_end(run)

    def _record_run_end(self, run: OpenRun) -> None:
        run_id = run.context.run_id
        with self._counting:
            # A drain must not record it a second time, concurrently with the thread that ends it.
            if run.end_row is None or self._runs.get(run_id) is not run:
                return
            # Removed together with the append: a segment opened in between would list it as open.
            self._spool.append(
                RecordKind.RUN_END,
                run_id,
                as_json(run.end_row),
                on_appended=lambda: self._runs.pop(run_id, None),
            )
            if run_id in self._runs:
                self._drop_unrecorded_ends()

    def _drop_unrecorded_ends(self) -> None:
        unrecorded = [run for run in self._runs.values() if run.end_row is not None]
        for run in unrecorded[:-MAX_UNRECORDED]:
            del self._runs[run.context.run_id]
            self._on_drop("spool")

    def _open_runs(self) -> Iterator[tuple[RecordKind, str, str]]:
        for run_id, opened in list(self._runs.items()):
            yield RecordKind.RUN_START, run_id, as_json(opened.start_row(self._shown_root))

    def run_closed(self, run: RunContext) -> None:
        """Drain after the end of a run: at once if it was the outermost run, else soon.

        In a series of short runs only the first waits for its drain. None waits while drains fail,
        because each would wait until its timeout.
        """
        if self._spool.home is None:
            return
        is_inside = any(opened.depth for opened in list(self._runs.values()))
        if is_inside or self._is_failing:
            self._drain_soon()
        elif self._is_due_after(run, max(BETWEEN_DRAINS, self._helper_pause)):
            if not self.drain_in_time(RUN_END_TIMEOUT):
                self._is_failing = True
            self._drained_at = time.monotonic()
        elif self._is_due_after(run, BETWEEN_DRAINS) and not self._draining.locked():
            self._start_helper()
        else:
            self._drain_soon()

    def _is_due_after(self, run: RunContext, pause: float) -> bool:
        """Return whether the run, or the time since the last drain, was longer than a pause."""
        lasted = (now_ns() - run.started_at) / 1e9
        return lasted > pause or time.monotonic() > self._drained_at + pause

    def _drain_soon(self) -> None:
        if self._thread is None:
            self._start()
        if not self._is_failing:  # otherwise at the pace of the retries
            self._wake.set()

    # --- draining --------------------------------------------------------------------------------------

    def _wake_if_due(self) -> None:
        self._since_drain += 1
        if self._thread is None:
            self._start()
        elif self._since_drain >= self._settings.drain_events and not self._wake.is_set():
            self._wake.set()

    def _request_helper(self) -> bool:
        """Make the next operation start a helper; return whether the last drain succeeded."""
        self._is_helper_due = self._since_drain > 0
        return not self._is_failing

    def _start_helper(self) -> None:
        """Start a drain in a helper process, and return once the helper has been started.

        Called on a thread of the program, between two of its calls: for a moment the process has a
        child that the program does not know of, and the program must not be waiting for any child
        then.
        """
        self._is_helper_due = False
        self._drained_at = time.monotonic()
        self._helper_started.clear()
        thread = threading.Thread(target=self.drain, name="deltawitness-drain", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no new threads
            report("drain", error)
        else:
            self._helper_started.wait(HELPER_START_TIMEOUT)

    def _start(self) -> None:
        # A forked child cannot use an engine that its parent has used: others drain its spool.
        if self._is_child or self._closed or not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="deltawitness-drain", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError as error:  # no new threads; the next operation tries again
            report("drain", error)
        finally:
            self._starting.release()

    def _work(self) -> None:
        pause = interval = self._settings.drain_interval
        while not self._closed:
            # Between 50 % and 100 % of it, so that processes started together drift apart.
            self._wake.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - nothing is encrypted
            self._wake.clear()
            if self._closed:
                return
            self._wait_between()
            self._wait_for_quiet()
            is_done = self.drain() if self._may_use_engine() else self._request_helper()
            self._drained_at = time.monotonic()
            pause = interval if is_done else min(LONGEST_PAUSE, 2 * max(pause, interval))

    def _wait_between(self) -> None:
        between = max(min(BETWEEN_DRAINS, self._settings.drain_interval), self._helper_pause)
        while time.monotonic() < self._drained_at + between and not self._closed:
            time.sleep(min(between, QUIET_POLL))

    def _wait_for_quiet(self) -> None:
        deadline = time.monotonic() + QUIET_TIMEOUT
        while self._is_busy() and not self._closed and time.monotonic() < deadline:
            # Not a wait on the event, which may stay set while writes are in progress.
            time.sleep(QUIET_POLL)

    def drain(self, timeout: float | None = None) -> bool:
        """Drain all spooled records now; return whether that succeeded.

        Errors are reported, not raised: records that cannot be drained stay in the spool for the
        next drain.

        Args:
            timeout: seconds to wait for a helper process; None waits until it ends.
        """
        if self._is_child:
            return False
        started = time.perf_counter()
        problem: BaseException | None = None
        try:
            with self._draining:
                self._drain(timeout)
        except (KeyboardInterrupt, SystemExit):
            raise  # meant for the program, if it called the drain itself
        except BaseException as error:  # noqa: BLE001 - an engine that panics raises no Exception
            problem = error
            report("drain", error)
        finally:
            self._helper_started.set()
        self._is_failing, self._is_hanging = problem is not None, False
        self.on_drain(time.perf_counter() - started, problem)
        return problem is None

    def drain_in_time(self, timeout: float) -> bool:
        """Drain on another thread; return whether the drain ended within the timeout in seconds."""
        thread = threading.Thread(target=self.drain, name="deltawitness-drain", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no new threads, as during shutdown in newer Python versions
            return not self._is_failing and self.drain(timeout)
        thread.join(timeout)
        return not thread.is_alive()

    def _drain(self, timeout: float | None) -> None:
        self._since_drain = 0
        for opened in list(self._runs.values()):
            self._record_run_end(opened)  # ended runs that the spool had no room for
        self._spool.rotate(is_last=self._closed)
        segments = [
            segment for segment in self._spool.sealed() if not self._drop_if_deleted(segment)
        ]
        if not segments and not has_abandoned(self.spools, self._spool.home):
            return  # nothing to drain
        is_here = self._may_use_engine() or self.is_terminated
        helper = None if is_here else self._start_helper_process(segments)
        if helper is None:
            self._drain_here(segments)
        else:
            self._await_helper(helper, segments, timeout)

    def _drain_here(self, segments: list[Segment]) -> None:
        with self._unforkable:
            # Imported here: importing Arrow is slow, and a process without writes does not need it.
            with importing():
                from deltawitness.ledger.drain.drain import Drain  # noqa: PLC0415 - as above
                from deltawitness.ledger.drain.maintenance import maintain  # noqa: PLC0415 - as above
            self._helper_pause = 0.0
            drain = Drain(self.root, tail=self._settings.landed_tail)
            done = drain.drain_segments([segment.path for segment in segments])
            self._spool.delete(segments)
            done += drain.drain_abandoned(self.spools, self._spool.home)
            self._report_damaged(done.damaged)
            if self._settings.ledger_maintenance and not self._closed:
                for table in drain.due:
                    maintain(self.root, table)

    def _start_helper_process(self, segments: list[Segment]) -> DrainProcess | None:
        """Start a helper process that drains: the program has not used delta-rs, and may fork.

        Returns:
            The helper; None if none can be started and the process is exiting, so that no fork
            follows.

        Raises:
            HelperError: none can be started.
        """
        home = self._spool.home
        request = DrainRequest(
            root=self.root.uri,
            storage_options=self.root.storage_options,
            spools=str(self.spools),
            home=None if home is None else str(home),
            segments=[segment.path.name for segment in segments],
            tail=self._settings.landed_tail,
            maintain=self._settings.ledger_maintenance and not self._closed,
        )
        try:
            with self._unforkable:
                return DrainProcess(request)
        except HelperError:
            if self.is_exiting:
                return None
            raise
        finally:
            self._helper_started.set()

    def _await_helper(
        self, helper: DrainProcess, segments: list[Segment], timeout: float | None
    ) -> None:
        """Wait for a helper; delete the segments that it has drained.

        Raises:
            HelperError: it could not drain them; they stay in the spool.
        """
        started = time.monotonic()
        reply = helper.wait(timeout)
        self._helper_pause = HELPER_SHARE * (time.monotonic() - started)
        for component, problem in reply.problems:
            report(component, HelperError(problem))
        if reply.error is not None:
            raise HelperError(reply.error)
        self._spool.delete(segments)
        self._report_damaged(reply.damaged)

    def _report_damaged(self, lines: int) -> None:
        if lines:
            report("spool", ValueError(f"{lines} damaged records were skipped"))

    def _drop_if_deleted(self, segment: Segment) -> bool:
        """Return whether a segment's file is deleted; if so, count its operations as dropped.

        A reconcile can restore the rows of the writes in it.
        """
        if segment.path.exists():
            return False
        report("spool", FileNotFoundError("a segment was deleted before it was drained"))
        for _ in range(segment.operations):
            self._on_drop("spool")
        self._spool.delete([segment])
        return True

    # --- life ------------------------------------------------------------------------------------------

    def close(self, error: BaseException | None, *, timeout: float) -> None:
        """End the runs that are still open, drain, and close the spool.

        Args:
            error: the exception that ends the process, if any.
            timeout: seconds that the last drain may take; another process drains what is left then.
        """
        supervised = [
            opened for opened in list(self._runs.values()) if self._is_ended_by_supervisor(opened)
        ]
        for opened in list(self._runs.values()):
            if opened in supervised:
                continue
            if opened.end_row is None:
                self._finish_run(opened, error)
            else:
                self._record_run_end(opened)
        self._closed = True
        self._wake.set()
        try:
            is_done = self._is_child or not self.spools.exists() or self.drain_in_time(timeout)
        finally:
            # After the last drain, so that they stay in the spool: the supervisor adds the exit code.
            for opened in supervised:
                self._finish_run(opened, opened.error or error)
        if is_done:
            self._spool.close()

    def before_fork(self) -> None:
        """Wait for a drain in this process to end, and lock the spool.

        After a drain that exceeded the timeout, later forks do not wait for it.
        """
        self._fork_lock = self._unforkable
        self._held = self._fork_lock.acquire(timeout=0 if self._is_hanging else QUIET_TIMEOUT)
        self._is_hanging = not self._held
        self._spool.before_fork()

    def after_fork_in_parent(self) -> None:
        """Release the locks after a fork."""
        self._spool.after_fork_in_parent()
        if self._held:
            self._fork_lock.release()

    def after_fork_in_child(self) -> None:
        """Start with an empty spool, which other processes will drain."""
        self._runs.clear()
        self._parents.clear()
        self._spool.after_fork_in_child()
        self._is_child = True
        self._reset()


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


def _for_each(act: Callable[[Recorder], None]) -> Callable[[], None]:
    def each() -> None:
        for recorder in list(_recorders):
            act(recorder)

    return each


register_at_fork(
    before=_for_each(Recorder.before_fork),
    after_in_parent=_for_each(Recorder.after_fork_in_parent),
    after_in_child=_for_each(Recorder.after_fork_in_child),
)
