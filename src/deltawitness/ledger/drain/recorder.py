"""The process's recorder: what is observed goes into its spool, and from there into the ledger."""

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
from deltawitness.ledger.spool.reader import has_dead
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.spool.writer import Segment, Spool
from deltawitness.ledger.tables.locations import root_of, spool_folder
from deltawitness.ledger.tables.run_rows import OpenRun, RunStatus, run_row
from deltawitness.ledger.tables.schema import LedgerRoot, Source
from deltawitness.ledger.tables.write_rows import as_json, event_row, ledger_uri, place_part
from deltawitness.process_exit import exit_code_of, is_failure
from deltawitness.processes import supervisor_lock
from deltawitness.redaction import key_hash, message_for_ledger, redact_label
from deltawitness.run import RunContext, is_process_run, started_process_run
from deltawitness.settings import Settings

__all__ = ["Recorder", "recorder_of"]

Row = dict[str, Any]

LONGEST_PAUSE = 60.0
"""Seconds between two drains at most, when one after the other fails."""

QUIET_POLL = 0.05
"""Seconds between two looks for a pause between writes."""

BETWEEN_DRAINS = 1.0
"""Seconds from one drain to the next that comes because runs have ended."""

HELPER_START_TIMEOUT = 5.0
"""Seconds that an operation waits for the start of a helper process."""

HELPER_SHARE = 5.0
"""How many times as long as a drain in a helper process the pause after it is."""

RUN_END_TIMEOUT = 10.0
"""Seconds that the end of a run waits for its drain; the drain itself goes on."""

PATIENCE = 2.0
"""Seconds that a drain waits for a pause between writes."""

PARTS_KEPT = 64
"""Runs that others close and that are kept open here: each new segment tells of them anew."""

UNTOLD_KEPT = 256
"""Ends of runs that wait for room in the spool; beyond them the oldest are dropped."""


class Recorder:
    """Keeps the ledger of one process.

    Args:
        settings: where the ledger lies, how much may wait, how often it is drained.
        is_busy: tells whether a write is under way.
        on_drop: is told of an operation that could not be kept.
        may_use_engine: returns whether a drain may use delta-rs in this process; while it may not, a
            helper process drains.

    Attributes:
        root: where the ledger lies.
        spools: the local folder of what is not in it yet.
        settle_all: waits for the rows of the writes that are finished by now.
        on_drain: is told of each drain: its seconds, and the error that ended it.
        is_exiting: whether the process comes to its end: where no helper process can be started, the
            process drains itself.
        is_terminated: whether the process dies of a signal in a moment: it drains itself, because the
            program may be waiting for children meanwhile, and a helper would be one for a moment.
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
        self.settle_all: Callable[[], object] = bool
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
        # Reentrant: a handler of a signal may come in the middle, and write.
        self._counting = threading.RLock()
        self._starting = threading.Lock()
        self._draining = threading.Lock()
        # What no fork may fall into: the engine at work, or a helper that is being started.
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

    # --- what a write calls ------------------------------------------------------------------------

    def begin(self) -> None:
        """Let others see that this process lives, before its first commit: it has yet to tell of it."""
        if self._is_helper_due and not self._draining.locked():
            # Before the operation: its own row would keep those before it from being drained.
            self._start_helper()
        self._spool.begin()

    def note(self, write_id: str, run: RunContext, body: str) -> Segment | None:
        """Keep what the caller's thread knows of a write that has ended.

        Args:
            write_id: its id.
            run: the run that it belongs to.
            body: the note as JSON.
        """
        if run.run_id not in self._runs:
            self._take_part_in(run)
        segment = self._spool.note(write_id, body)
        self._attend()
        return segment

    def settle(
        self, segment: Segment | None, event: WriteEvent, told: WriteEvent, location: str | None
    ) -> None:
        """Keep the whole row of a write.

        Args:
            segment: where its note is.
            event: the full record.
            told: the same, fit to leave the process.
            location: where its table lies.
        """
        row = event_row(event, told, location, self._settings.ledger_messages)
        if not self._spool.settle(segment, event.write_id, as_json(row)):
            self._on_drop("spool")
        self._count(event.run, row)

    def operation(self, run: RunContext, row: Mapping[str, Any]) -> None:
        """Keep an operation that is no write: a read of a cache, a snapshot.

        Args:
            run: the run that it belongs to.
            row: columns of the inventory; ids, place and run are added.
        """
        self.begin()
        if run.run_id not in self._runs:
            self._take_part_in(run)
        write_id = new_id()
        whole = {
            **{name: self._kept(name, value) for name, value in row.items()},
            "run_id": run.run_id,
            "write_id": write_id,
            "job": redact_label(run.job),
            **place_part(),
            "source": Source.OBSERVED.value,
        }
        if not self._spool.append(RecordKind.ROW, write_id, as_json(whole)):
            self._on_drop("spool")
        self._count(run, whole)
        self._attend()

    def _kept(self, name: str, value: Any) -> Any:
        """Return the value of a column that a program gives by itself as it is kept."""
        if name == "error_message" and value is not None:
            return message_for_ledger(value, self._settings.ledger_messages)
        return _FIT.get(name, _identity)(value)

    def snapshot(self, name: str, row: Mapping[str, Any]) -> None:
        """Keep a row of the snapshot registry."""
        # Any id will do for the line, and a name may hold what a line may not.
        if not self._spool.append(
            RecordKind.SNAPSHOT, new_id(), as_json({**row, "snapshot": name})
        ):
            self._on_drop("spool")
        self._attend()

    def _count(self, run: RunContext, row: Row) -> None:
        with self._counting:
            # Over, or no longer kept open here; after the end nobody would close it.
            if run.run_id not in self._runs and not self._closed:
                self._take_part_in(run)
            known = self._runs.get(run.run_id)
            if known is not None:
                known.tally.add(row)

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs that this process has open, or takes part in."""
        with self._counting:
            return tuple(self._runs)

    @property
    def is_open(self) -> bool:
        """Whether it takes operations and drains them."""
        return not self._closed and not self._is_child

    @property
    def is_writing(self) -> bool:
        """Whether a write of this process is under way, or has ended and is not noted yet."""
        return self._is_busy()

    @property
    def home(self) -> Path | None:
        """The folder of this process's spool; None before the first operation."""
        return self._spool.home

    @property
    def pending(self) -> int:
        """Operations that are not in the ledger yet."""
        return self._spool.pending

    # --- runs ----------------------------------------------------------------------------------------

    def run_started(self, run: RunContext) -> None:
        """Keep a run that was opened here."""
        self._keep_parent(run)
        known = self._runs.get(run.run_id)
        if known is None:
            self._open(OpenRun(run, is_part=False, depth=1))
        else:
            known.depth += 1
            known.is_part = False

    def _keep_parent(self, run: RunContext) -> None:
        """See that the run in which another was opened has a row, also where it wrote nothing itself."""
        parent = run.parent_run_id
        if parent is None or parent in self._runs:
            return
        self._parents.add(parent)
        process = started_process_run()
        if process is not None and process.run_id == parent:
            self._take_part_in(process)

    def _take_part_in(self, run: RunContext) -> None:
        """Keep a run that was opened elsewhere, or whose end was told already: a part of its own."""
        is_part = run.is_joined or self._is_child or not is_process_run(run)
        with self._counting:
            if run.run_id in self._runs:
                return  # another thread was faster
            self._open(OpenRun(run, is_part=is_part))
            parts = [known for known in self._runs.values() if known.is_open_part]
            if len(parts) > PARTS_KEPT:
                self._end(parts[0], None)

    def _open(self, opened: OpenRun) -> None:
        run_id = opened.context.run_id
        self._runs[run_id] = opened
        started = as_json(opened.started(self._shown_root))
        if not self._spool.append(RecordKind.RUN_START, run_id, started):
            report("spool", OSError("the start of a run could not be kept"))

    def run_ended(self, run: RunContext, error: BaseException | None) -> None:
        """Keep the row of a run that has ended."""
        if run.run_id in self._parents:
            # Opened before this recorder was there, and others were opened in it since.
            self._take_part_in(run)
            self._parents.discard(run.run_id)
        known = self._runs.get(run.run_id)
        if known is None:
            return
        known.depth -= 1
        if known.depth < 0 and not self._is_child:
            # Opened before this recorder was there to be told.
            known.is_part = False
        if known.depth <= 0:
            if self._is_ended_by_supervisor(known):
                known.error = error
            else:
                self._end(known, error)

    @staticmethod
    def _is_ended_by_supervisor(run: OpenRun) -> bool:
        """Return whether another process writes how this run has ended: it sees the exit code."""
        return supervisor_lock() is not None and is_process_run(run.context)

    def _end(
        self, run: OpenRun, error: BaseException | None, status: RunStatus | None = None
    ) -> None:
        """Write the row of a run; its status follows from the error where none is given."""
        with self._counting:
            has_failed = is_failure(error)
            run.ended = run_row(
                run.started(self._shown_root),
                run.tally,
                status=status or (RunStatus.ERROR if has_failed else RunStatus.OK),
                end_time=now_ns() // 1000,
                error_type=type(error).__qualname__ if has_failed else None,
                dropped=self._spool.dropped,
                exit_code=exit_code_of(error, ends_process=is_process_run(run.context)),
            )
            self._tell_end(run)

    def _tell_end(self, run: OpenRun) -> None:
        run_id = run.context.run_id
        with self._counting:
            # A drain that finds it not told yet must not tell it beside the thread that ends it.
            if run.ended is None or self._runs.get(run_id) is not run:
                return
            # Forgotten with the line itself: a segment begun in between would tell of it as open.
            self._spool.append(
                RecordKind.RUN_END,
                run_id,
                as_json(run.ended),
                when_kept=lambda: self._runs.pop(run_id, None),
            )
            if run_id in self._runs:
                self._drop_ends()

    def _drop_ends(self) -> None:
        untold = [known for known in self._runs.values() if known.ended is not None]
        for known in untold[:-UNTOLD_KEPT]:
            del self._runs[known.context.run_id]
            self._on_drop("spool")

    def _open_runs(self) -> Iterator[tuple[RecordKind, str, str]]:
        for run_id, opened in list(self._runs.items()):
            yield RecordKind.RUN_START, run_id, as_json(opened.started(self._shown_root))

    def run_closed(self, run: RunContext) -> None:
        """Drain what a run has left: at once when it was the outermost, inside others soon.

        Of short runs, one after the other, only the first waits for it; and none does while drains
        fail, which would have each wait as long as it may.
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
        """Return whether a run that has ended, or the time since the last drain, was so long."""
        lasted = (now_ns() - run.started_at) / 1e9
        return lasted > pause or time.monotonic() > self._drained_at + pause

    def _drain_soon(self) -> None:
        if self._thread is None:
            self._start()
        if not self._is_failing:  # then in the pace of the one that tries
            self._wake.set()

    # --- draining --------------------------------------------------------------------------------------

    def _attend(self) -> None:
        self._since_drain += 1
        if self._thread is None:
            self._start()
        elif self._since_drain >= self._settings.drain_events and not self._wake.is_set():
            self._wake.set()

    def _leave_to_helper(self) -> bool:
        """Have the next operation start a helper process; return whether the last one could drain."""
        self._is_helper_due = self._since_drain > 0
        return not self._is_failing

    def _start_helper(self) -> None:
        """Start a drain in a helper process, which goes on when this returns.

        On a thread of the program, between two of its calls: for a moment the process has a child that
        the program does not know, and must not be waiting for any child meanwhile.
        """
        self._is_helper_due = False
        self._drained_at = time.monotonic()
        self._helper_started.clear()
        thread = threading.Thread(target=self.drain, name="deltawitness-drain", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads can be had
            report("drain", error)
        else:
            self._helper_started.wait(HELPER_START_TIMEOUT)

    def _start(self) -> None:
        # A forked child cannot use the engine that its parent has used: what it tells is adopted.
        if self._is_child or self._closed or not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="deltawitness-drain", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError as error:  # no more threads can be had; the next operation tries again
            report("drain", error)
        finally:
            self._starting.release()

    def _work(self) -> None:
        pause = interval = self._settings.drain_interval
        while not self._closed:
            # Between a half and the whole of it, so that processes begun together drift apart.
            self._wake.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - nothing is encrypted
            self._wake.clear()
            if self._closed:
                return
            self._wait_between()
            self._wait_for_quiet()
            is_done = self.drain() if self._may_use_engine() else self._leave_to_helper()
            self._drained_at = time.monotonic()
            pause = interval if is_done else min(LONGEST_PAUSE, 2 * max(pause, interval))

    def _wait_between(self) -> None:
        between = max(min(BETWEEN_DRAINS, self._settings.drain_interval), self._helper_pause)
        while time.monotonic() < self._drained_at + between and not self._closed:
            time.sleep(min(between, QUIET_POLL))

    def _wait_for_quiet(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._is_busy() and not self._closed and time.monotonic() < deadline:
            # Not on the event, which may be set for as long as it is busy here.
            time.sleep(QUIET_POLL)

    def drain(self, timeout: float | None = None) -> bool:
        """Drain what waits into the ledger now, and return whether all of it is there.

        Nothing of ours is raised: what cannot be drained stays in the spool, and is tried again.

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
            raise  # the program's own, where it asked for the drain itself
        except BaseException as error:  # noqa: BLE001 - an engine that panics raises no Exception
            problem = error
            report("drain", error)
        finally:
            self._helper_started.set()
        self._is_failing, self._is_hanging = problem is not None, False
        self.on_drain(time.perf_counter() - started, problem)
        return problem is None

    def drain_in_time(self, timeout: float) -> bool:
        """Carry what waits into the ledger, but give up waiting for it after so many seconds."""
        thread = threading.Thread(target=self.drain, name="deltawitness-drain", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads can be had, as at the end of later interpreters
            return not self._is_failing and self.drain(timeout)
        thread.join(timeout)
        return not thread.is_alive()

    def _drain(self, timeout: float | None) -> None:
        self._since_drain = 0
        for opened in list(self._runs.values()):
            self._tell_end(opened)  # where there was no room for it
        self._spool.rotate(is_last=self._closed)
        segments = [segment for segment in self._spool.sealed() if not self._is_lost(segment)]
        if not segments and not has_dead(self.spools, self._spool.home):
            return  # nothing waits
        is_here = self._may_use_engine() or self.is_terminated
        helper = None if is_here else self._start_helper_process(segments)
        if helper is None:
            self._drain_here(segments)
        else:
            self._await_helper(helper, segments, timeout)

    def _drain_here(self, segments: list[Segment]) -> None:
        with self._unforkable:
            # Imported here: reading Arrow is heavy, and a process that writes nothing needs none of it.
            with importing():
                from deltawitness.ledger.drain.drain import Drain  # noqa: PLC0415 - as said
                from deltawitness.ledger.drain.maintenance import maintain  # noqa: PLC0415 - as said
            self._helper_pause = 0.0
            drain = Drain(self.root, tail=self._settings.landed_tail)
            done = drain.own([segment.path for segment in segments])
            self._spool.forget(segments)
            done += drain.all_dead(self.spools, self._spool.home)
            self._report_damaged(done.damaged)
            if self._settings.ledger_maintenance and not self._closed:
                for table in drain.due:
                    maintain(self.root, table)

    def _start_helper_process(self, segments: list[Segment]) -> DrainProcess | None:
        """Start a helper process that drains: the program has not used delta-rs, and may fork.

        Returns:
            The helper; None where none can be started and no fork can follow any more.

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
        self._spool.forget(segments)
        self._report_damaged(reply.damaged)

    def _report_damaged(self, lines: int) -> None:
        if lines:
            report("spool", ValueError(f"{lines} damaged lines were passed over"))

    def _is_lost(self, segment: Segment) -> bool:
        """Tell whether somebody has deleted a segment; what it held can be reconciled."""
        if segment.path.exists():
            return False
        report("spool", FileNotFoundError("a segment was deleted before it was drained"))
        for _ in range(segment.lines):
            self._on_drop("spool")
        self._spool.forget([segment])
        return True

    # --- life ------------------------------------------------------------------------------------------

    def close(
        self, error: BaseException | None, *, timeout: float, is_replaced: bool = False
    ) -> None:
        """End the runs that are still open, drain, and give the spool up.

        Args:
            error: what ends the process, if it is an error.
            timeout: seconds that the last drain may take; what is left then is adopted by the next.
            is_replaced: another program continues in the process: how it ends is not known here.
        """
        left_to_supervisor = [
            opened for opened in list(self._runs.values()) if self._is_ended_by_supervisor(opened)
        ]
        for opened in list(self._runs.values()):
            if opened in left_to_supervisor:
                continue
            if opened.ended is None:
                self._end(opened, error)
            else:
                self._tell_end(opened)
        self._closed = True
        self._wake.set()
        try:
            is_done = self._is_child or not self.spools.exists() or self.drain_in_time(timeout)
        finally:
            # In the spool, and not drained: the supervisor adds the exit code.
            status = RunStatus.ABANDONED if is_replaced else None
            for opened in left_to_supervisor:
                self._end(opened, opened.error or error, status)
        if is_done:
            self._spool.close()

    def close_before_exec(self, *, timeout: float) -> Callable[[], None]:
        """Drain and give the spool up, before another program replaces this one in the process.

        Args:
            timeout: seconds that the drain may take.

        Returns:
            Opens the recorder again, with the same open runs: call it when the exec has failed.
        """
        with self._counting:
            runs = [opened for opened in self._runs.values() if opened.ended is None]
            # Counted from zero if they go on: what is counted so far is in the row of each.
            again = [OpenRun(run.context, run.is_part, run.depth) for run in runs]
        self.close(None, timeout=timeout, is_replaced=True)

        def reopen() -> None:
            if self._thread is not None:
                self._thread.join(PATIENCE)
                self._thread = self._thread if self._thread.is_alive() else None
            self._closed = False
            self._wake.clear()
            for run in again:
                if run.context.run_id not in self._runs:
                    self._open(run)

        return reopen

    def before_fork(self) -> None:
        """Wait for a drain in this process, and hold the spool; a drain that hangs is waited for once."""
        self._fork_lock = self._unforkable
        self._held = self._fork_lock.acquire(timeout=0 if self._is_hanging else PATIENCE)
        self._is_hanging = not self._held
        self._spool.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._spool.after_fork_in_parent()
        if self._held:
            self._fork_lock.release()

    def after_fork_in_child(self) -> None:
        """Begin a spool of its own, which others will drain."""
        self._runs.clear()
        self._parents.clear()
        self._spool.after_fork_in_child()
        self._is_child = True
        self._reset()


def _identity(value: Any) -> Any:
    return value


_FIT: dict[str, Callable[[Any], Any]] = {
    "table_uri": lambda value: None if value is None else ledger_uri(value),
    "key": lambda value: None if value is None else key_hash(value),
}
"""How columns that a program gives by itself are made fit to be kept."""


def recorder_of(root: LedgerRoot) -> Recorder | None:
    """Return what keeps this ledger in this process, if it is kept here."""
    where = _place_of(root)
    kept = (known for known in list(_recorders) if known.is_open)
    return next((known for known in kept if _place_of(known.root) == where), None)


def _place_of(root: LedgerRoot) -> str:
    """Return where a ledger lies, whatever links lead there."""
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
