"""The drain thread of a process: when its spool is drained, and in which process."""

from __future__ import annotations

# It registers a function for the exit, which fails once the interpreter ends: a last drain imports Arrow, Arrow
# pandas, and pandas this module.
import concurrent.futures.thread  # noqa: F401 - as above
import random
import threading
import time
from collections.abc import Callable

from deltawitness.forks import importing
from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.ledger.drain.open_runs import OpenRuns
from deltawitness.ledger.drain.process import DrainProcess, DrainRequest, HelperError
from deltawitness.ledger.spool.host import LockState, drain_lock
from deltawitness.ledger.spool.reader import has_abandoned
from deltawitness.ledger.spool.writer import DRAINED, Segment, Spool
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.plurals import count_of
from deltawitness.run_context import RunContext
from deltawitness.settings import LedgerMode, Settings
from deltawitness.thread_start import start_thread
from deltawitness.thread_wait import wait_while_working

__all__ = ["DrainThread"]

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

HOST_TIMEOUT = 30.0
"""Seconds that a drain waits for a drain of another process on this host, which may include its segments."""

MAX_CONFLICTS = 2
"""Conflicts in one drain above which the pause until the next one doubles: there are too many writers for
the tables. After a drain without conflicts it halves again."""

QUIET_TIMEOUT = 2.0
"""Seconds that a drain waits for a pause between writes."""


class _BusyError(Exception):
    """Another process of the host drains for longer than this one waits."""


class DrainThread:
    """Drains the spool of a process: at intervals, after many operations, and at the end of runs.

    Args:
        spool: the spool of the process.
        runs: its open runs, whose ends are recorded before a drain.
        root: location of the ledger.
        settings: frequency of drains, and whether they maintain tables.
        is_busy: returns whether a write is in progress.
        on_drop: called with a component's name for each operation that could not be recorded.
        may_use_engine: returns whether a drain may use delta-rs in this process; while it may not,
            a helper process drains.

    Attributes:
        on_drain: called after each drain with its seconds and the error that ended it.
        is_exiting: whether the process is about to exit. If no helper process can be started then,
            the process drains itself.
        is_terminated: whether a signal is about to end the process. It then drains itself: the
            program may be waiting for its children, and a helper would briefly be one of them.
        is_child: whether this is a forked child, whose spool other processes drain.
    """

    def __init__(  # noqa: PLR0913 - keyword-only parts of the recorder
        self,
        *,
        spool: Spool,
        runs: OpenRuns,
        root: LedgerRoot,
        settings: Settings,
        is_busy: Callable[[], bool],
        on_drop: Callable[[str], None],
        may_use_engine: Callable[[], bool],
    ) -> None:
        self._spool = spool
        self._runs = runs
        self._root = root
        self._settings = settings
        self._is_busy = is_busy
        self._on_drop = on_drop
        self._may_use_engine = may_use_engine
        self.on_drain: Callable[[float, BaseException | None], None] = lambda *_: None
        self.is_exiting = False
        self.is_terminated = False
        self.is_child: bool = False
        self._reset()

    def _reset(self) -> None:
        self._starting = threading.Lock()
        self._draining = threading.Lock()
        # Held while no fork may happen: during a drain in this process, and the start of a helper.
        self._unforkable = threading.Lock()
        self._wake = threading.Event()
        self._paused = threading.Event()  # during a fork
        self._was_running = self._was_woken = False
        self._pause = self._settings.drain_interval
        self._due_at: float | None = None
        self._is_helper_due = False
        self._helper_started = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._since_drain = 0
        self._is_failing = self._is_hanging = False
        self._helper_pause = 0.0
        self._drained_at = -BETWEEN_DRAINS
        self._conflicts = 0
        self._contended_pause = self._settings.drain_interval

    @property
    def is_open(self) -> bool:
        """Whether it drains: it is not closed, and this is not a forked child."""
        return not self._is_closed and not self.is_child

    # --- what starts a drain -------------------------------------------------------------------------

    def before_operation(self) -> None:
        """Start a helper process if one is due."""
        if self._is_helper_due and not self._draining.locked():
            # Before the operation: while its row is missing, earlier rows cannot be drained.
            self._start_helper()

    def after_operation(self) -> None:
        """Count an operation, and wake the thread after `drain_events` of them."""
        self._since_drain += 1
        if self._thread is None:
            self._start()
        elif self._since_drain >= self._settings.drain_events and not self._wake.is_set():
            self._wake.set()

    def after_run(self, run: RunContext) -> None:
        """Drain after the end of a run: at once if it was the outermost run, else soon.

        In a series of short runs only the first waits for its drain. None waits while drains fail,
        because each would wait until its timeout.
        """
        if self._spool.home is None:
            return
        if self._runs.has_entered or self._is_failing:
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
            if start_thread(thread):
                self._helper_started.wait(HELPER_START_TIMEOUT)
        except RuntimeError as error:  # no new threads
            report("drain", error)

    def _start(self) -> None:
        # A forked child cannot use an engine that its parent has used: others drain its spool.
        if self.is_child or self._is_closed or not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="deltawitness-drain", daemon=True)
                self._thread = thread if start_thread(thread) else None
        except RuntimeError as error:  # no new threads; the next operation tries again
            report("drain", error)
        finally:
            self._starting.release()

    # --- the thread ----------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._is_ending:
            if self._due_at is None:
                # Between 50 % and 100 % of it, so that processes started together drift apart.
                pause = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - nothing is encrypted
                self._due_at = time.monotonic() + pause
            self._wake.wait(max(0.0, self._due_at - time.monotonic()))
            if not self._is_ending:
                self._wait_between()
                self._wait_for_quiet()
            if self._is_ending:
                break
            self._wake.clear()
            self._due_at = None
            is_done = self.drain() if self._may_drain else self._request_helper()
            self._drained_at = time.monotonic()
            self._pause = self._next_pause(is_done)
        if self._paused.is_set():
            self._thread = None

    def _next_pause(self, is_done: bool) -> float:
        """Return the seconds until the next drain: longer after failures, and while drains conflict."""
        interval = self._settings.drain_interval
        longest = max(LONGEST_PAUSE, interval)
        if not is_done:
            return min(longest, 2 * max(self._pause, interval))
        factor = 2.0 if self._conflicts > MAX_CONFLICTS else 0.5
        self._contended_pause = min(longest, max(interval, factor * self._contended_pause))
        return self._contended_pause

    @property
    def _is_forwarding(self) -> bool:
        return self._settings.ledger_mode is LedgerMode.FORWARD

    @property
    def _may_drain(self) -> bool:
        return self._is_forwarding or self._may_use_engine()

    @property
    def _is_ending(self) -> bool:
        return self._is_closed or self._paused.is_set()

    def _request_helper(self) -> bool:
        """Make the next operation start a helper; return whether the last drain succeeded."""
        self._is_helper_due = self._since_drain > 0
        return not self._is_failing

    def _wait_between(self) -> None:
        between = max(min(BETWEEN_DRAINS, self._settings.drain_interval), self._helper_pause)
        while time.monotonic() < self._drained_at + between and not self._is_ending:
            self._paused.wait(min(between, QUIET_POLL))

    def _wait_for_quiet(self) -> None:
        deadline = time.monotonic() + QUIET_TIMEOUT
        while self._is_busy() and not self._is_ending and time.monotonic() < deadline:
            # Not a wait for `_wake`, which may stay set while writes are in progress.
            self._paused.wait(QUIET_POLL)

    # --- a drain -------------------------------------------------------------------------------------

    def drain(self, timeout: float | None = None) -> bool:
        """Drain all spooled records now; return whether that succeeded.

        Errors are reported, not raised: records that cannot be drained stay in the spool for the
        next drain.

        Args:
            timeout: seconds to wait for a helper process; None waits until it ends.
        """
        if self.is_child:
            return False
        started = time.perf_counter()
        problem: BaseException | None = None
        try:
            with self._draining:
                self._drain(timeout)
        except _BusyError:
            return False
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

    def drain_in_time(self, timeout: float, *, longest: float | None = None) -> bool:
        """Drain on another thread; return whether the drain ended in time.

        Args:
            timeout: seconds to wait; with `longest`, seconds without progress.
            longest: seconds to wait in any case, if a slow drain is to be waited for.
        """
        thread = threading.Thread(target=self.drain, name="deltawitness-drain", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no new threads, as during shutdown in newer Python versions
            return not self._is_failing and self.drain(timeout)
        if longest is not None:
            return wait_while_working(thread, timeout=timeout, longest=longest)
        thread.join(timeout)
        return not thread.is_alive()

    def _drain(self, timeout: float | None) -> None:
        self._since_drain = 0
        self._runs.record_ends()
        self._spool.rotate(is_last=self._is_closed)
        if self._is_forwarding:
            self._undrained()
            return  # `deltawitness ledger serve` drains the spools of this host
        folder, home = self._spool.folder, self._spool.home
        if not self._undrained() and not has_abandoned(folder, home):
            return  # nothing to drain
        with drain_lock(
            folder, self._root.shard, timeout=HOST_TIMEOUT, is_cancelled=self._paused.is_set
        ) as lock:
            if lock is LockState.BUSY:
                raise _BusyError  # the other process, or a later drain, drains them
            is_alone = lock is LockState.HELD
            segments = self._undrained()  # another process may have drained some meanwhile
            if not segments and not has_abandoned(folder, home):
                return
            is_here = self._may_use_engine() or self.is_terminated
            helper = None if is_here else self._start_helper_process(segments, is_alone)
            if helper is None:
                self._drain_here(segments, is_alone)
            else:
                self._await_helper(helper, segments, timeout)

    def _undrained(self) -> list[Segment]:
        """Return the sealed segments to drain; delete those that another process has drained."""
        segments = self._spool.sealed()
        drained = [each for each in segments if each.path.with_suffix(DRAINED).exists()]
        self._spool.delete(drained)
        left = [each for each in segments if each not in drained]
        return [segment for segment in left if not self._drop_if_deleted(segment)]

    def _drain_here(self, segments: list[Segment], is_alone: bool) -> None:
        with self._unforkable:
            # Imported here: importing Arrow is slow, and a process without writes does not need it.
            with importing():
                from deltawitness.ledger.drain.drain import Drain  # noqa: PLC0415 - as above
                from deltawitness.ledger.drain.maintenance import maintain  # noqa: PLC0415 - as above
            self._helper_pause = 0.0
            drain = Drain(self._root, tail=self._settings.landed_tail)
            paths = [segment.path for segment in segments]
            folder, home = self._spool.folder, self._spool.home
            try:
                done = (
                    drain.drain_for_host(paths, folder, home)
                    if is_alone
                    else drain.drain_segments(paths)
                )
            finally:
                self._conflicts = drain.conflicts
            self._spool.delete(segments)
            done += drain.drain_abandoned(folder, home)
            self._report_damaged(done.damaged)
            if self._settings.ledger_maintenance and not self._is_closed:
                for table in drain.due:
                    maintain(self._root.of_shard(None), table)

    def _start_helper_process(self, segments: list[Segment], is_alone: bool) -> DrainProcess | None:
        """Start a helper process that drains: the program has not used delta-rs, and may fork.

        Returns:
            The helper; None if none can be started and the process is exiting, so that no fork
            follows.

        Raises:
            HelperError: none can be started.
        """
        home = self._spool.home
        request = DrainRequest(
            root=self._root.uri,
            shard=self._root.shard,
            storage_options=self._root.storage_options,
            spools=str(self._spool.folder),
            home=None if home is None else str(home),
            segments=[segment.path.name for segment in segments],
            tail=self._settings.landed_tail,
            maintain=self._settings.ledger_maintenance and not self._is_closed,
            is_alone=is_alone,
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
            report("spool", ValueError(f"{count_of(lines, 'damaged record')} skipped"))

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

    # --- close and fork ------------------------------------------------------------------------------

    def close(self) -> None:
        """End the thread; a running drain goes on."""
        self._is_closed = True
        self._wake.set()

    def reopen(self) -> None:
        """Continue after :meth:`close`; the next operation starts the thread."""
        if self._thread is not None:
            self._thread.join(QUIET_TIMEOUT)
            self._thread = self._thread if self._thread.is_alive() else None
        self._is_closed = False
        self._wake.clear()

    def before_fork(self) -> None:
        """Wait for a drain in this process to end, and end the thread: a process should fork with no others.

        After a drain that exceeded the timeout, later forks do not wait for it. A thread that waits for
        a helper process goes on.
        """
        thread = self._thread
        self._paused.set()
        self._was_running = thread is not None
        self._was_woken = self._wake.is_set()
        self._wake.set()
        self._fork_lock = self._unforkable
        self._held = self._fork_lock.acquire(timeout=0 if self._is_hanging else QUIET_TIMEOUT)
        self._is_hanging = not self._held
        is_other = thread is not None and thread is not threading.current_thread()
        if thread and is_other and not self._draining.locked():
            thread.join(QUIET_POLL)

    def after_fork_in_parent(self) -> None:
        """Allow drains again, and start the thread again if it has ended."""
        if self._held:
            self._fork_lock.release()
        if not self._was_woken:
            self._wake.clear()
        self._paused.clear()
        if self._was_running and self._thread is None:
            self._start()

    def after_fork_in_child(self) -> None:
        """Never drain here: the engine cannot be used in a forked child."""
        self.is_child = True
        self._reset()
