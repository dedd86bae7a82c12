"""Bookkeeping of the runs that are open in this process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from deltawitness.ids_and_clock import now_ns
from deltawitness.internal_errors import report
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.spool.writer import Spool
from deltawitness.ledger.tables.run_rows import OpenRun, RunStatus, run_row
from deltawitness.ledger.tables.write_rows import as_json
from deltawitness.process_exit import exit_code_of, is_failure
from deltawitness.processes import supervisor_lock
from deltawitness.run import is_process_run, started_process_run
from deltawitness.run_context import RunContext

__all__ = ["OpenRuns"]

Row = dict[str, Any]

MAX_OPEN_PARTS = 64
"""Runs of other processes that are kept open here. Each new segment repeats their start records."""

MAX_PARENTS = 256
"""Ids of parent runs that are not open here. Most are runs of other processes, such as those that submitted
the tasks of a worker, and end there. The least recently used are dropped."""

MAX_UNRECORDED = 256
"""Ended runs that wait for room in the spool; beyond that the oldest are dropped."""


class OpenRuns:
    """The open runs of a process: counts their operations, and records their starts and ends.

    Args:
        spool: takes the records.
        cache_root: the cache root in the rows of runs.
        on_drop: called with a component's name for each end that could not be recorded.
    """

    def __init__(self, spool: Spool, cache_root: str, on_drop: Callable[[str], None]) -> None:
        self._spool = spool
        self._cache_root = cache_root
        self._on_drop = on_drop
        self._runs: dict[str, OpenRun] = {}
        self._parents: OrderedDict[str, None] = OrderedDict()
        self._is_child = False
        self._reset()

    def _reset(self) -> None:
        # Reentrant: a signal handler may interrupt the holder and write.
        self._lock = threading.RLock()
        self._is_closed = False

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the runs."""
        with self._lock:
            return tuple(self._runs)

    @property
    def has_entered(self) -> bool:
        """Whether code of this process is inside of any of the runs."""
        return any(opened.depth for opened in list(self._runs.values()))

    def start_records(self) -> Iterator[tuple[RecordKind, str, str]]:
        """Yield the start record of each run, as kind, id and JSON."""
        for run_id, opened in list(self._runs.items()):
            yield RecordKind.RUN_START, run_id, as_json(opened.start_row(self._cache_root))

    def add(self, run: RunContext, row: Row) -> None:
        """Count an operation in its run.

        Args:
            run: the run; joined if it is not open here.
            row: the operation's row in the inventory.
        """
        with self._lock:
            # Ended, or evicted. Not after close(): no code would end it then.
            if not self._is_closed:
                self.join(run)
            opened = self._runs.get(run.run_id)
            if opened is not None:
                opened.tally.add(row)

    def join(self, run: RunContext) -> None:
        """Register a run that is not open here as a part: another process opened it, or it has ended."""
        if run.run_id in self._runs:
            return
        is_part = run.is_joined or self._is_child or not is_process_run(run)
        with self._lock:
            if run.run_id in self._runs:
                return  # another thread was faster
            self._register(OpenRun(run, is_part=is_part))
            parts = [opened for opened in self._runs.values() if opened.is_open_part]
            if len(parts) > MAX_OPEN_PARTS:
                self._finish(parts[0], None)

    def start(self, run: RunContext) -> None:
        """Register a run that was opened in this process."""
        self._track_parent(run)
        opened = self._runs.get(run.run_id)
        if opened is None:
            self._register(OpenRun(run, is_part=False, depth=1))
        else:
            opened.depth += 1
            opened.is_part = False

    def _track_parent(self, run: RunContext) -> None:
        """Make sure that a parent run gets a row, even if it wrote nothing itself."""
        parent = run.parent_run_id
        if parent is None or parent in self._runs:
            return
        with self._lock:
            self._parents[parent] = None
            self._parents.move_to_end(parent)
            if len(self._parents) > MAX_PARENTS:
                self._parents.popitem(last=False)
        process = started_process_run()
        if process is not None and process.run_id == parent:
            self.join(process)

    def _register(self, opened: OpenRun) -> None:
        run_id = opened.context.run_id
        self._runs[run_id] = opened
        started = as_json(opened.start_row(self._cache_root))
        if not self._spool.append(RecordKind.RUN_START, run_id, started):
            report("spool", OSError("the start of a run could not be recorded"))

    def end(self, run: RunContext, error: BaseException | None) -> None:
        """Record the end of a run."""
        if run.run_id in self._parents:
            # Opened before this recorder existed, and other runs were opened in it since.
            self.join(run)
            self._parents.pop(run.run_id, None)
        opened = self._runs.get(run.run_id)
        if opened is None:
            return
        opened.depth -= 1
        if opened.depth < 0 and not self._is_child:
            # Opened before this recorder existed.
            opened.is_part = False
        if opened.depth <= 0:
            if self._is_ended_by_supervisor(opened):
                opened.error = error
            else:
                self._finish(opened, error)

    @staticmethod
    def _is_ended_by_supervisor(run: OpenRun) -> bool:
        """Return whether a supervisor, which sees the exit code, records the end of this run."""
        return supervisor_lock() is not None and is_process_run(run.context)

    def _finish(
        self, run: OpenRun, error: BaseException | None, status: RunStatus | None = None
    ) -> None:
        with self._lock:
            has_failed = is_failure(error)
            run.end_row = run_row(
                run.start_row(self._cache_root),
                run.tally,
                status=status or (RunStatus.ERROR if has_failed else RunStatus.OK),
                end_time=now_ns() // 1000,
                error_type=type(error).__qualname__ if has_failed else None,
                dropped=self._spool.dropped,
                exit_code=exit_code_of(error, ends_process=is_process_run(run.context)),
            )
            self._record_end(run)

    def _record_end(self, run: OpenRun) -> None:
        run_id = run.context.run_id
        with self._lock:
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

    def record_ends(self) -> None:
        """Record ends of runs that the spool had no room for."""
        for opened in list(self._runs.values()):
            self._record_end(opened)

    def _drop_unrecorded_ends(self) -> None:
        unrecorded = [run for run in self._runs.values() if run.end_row is not None]
        for run in unrecorded[:-MAX_UNRECORDED]:
            del self._runs[run.context.run_id]
            self._on_drop("spool")

    def close(self, error: BaseException | None) -> list[OpenRun]:
        """End all runs; later operations join none.

        Args:
            error: the exception that ends the process, if any.

        Returns:
            The runs whose end a supervisor records; they are still open.
        """
        supervised = [
            opened for opened in list(self._runs.values()) if self._is_ended_by_supervisor(opened)
        ]
        for opened in list(self._runs.values()):
            if opened in supervised:
                continue
            if opened.end_row is None:
                self._finish(opened, error)
            else:
                self._record_end(opened)
        self._is_closed = True
        return supervised

    def finish(
        self, runs: list[OpenRun], error: BaseException | None, status: RunStatus | None = None
    ) -> None:
        """End runs that :meth:`close` returned.

        Args:
            runs: the runs.
            error: the exception that ends the process, if any.
            status: how they end; None derives it from the error.
        """
        for opened in runs:
            self._finish(opened, opened.error or error, status)

    def copies(self) -> list[OpenRun]:
        """Return the open runs with counts of zero, for :meth:`reopen`."""
        with self._lock:
            opened = [run for run in self._runs.values() if run.end_row is None]
        return [OpenRun(run.context, run.is_part, run.depth) for run in opened]

    def reopen(self, runs: list[OpenRun]) -> None:
        """Continue after :meth:`close`, with runs that were open before it.

        Args:
            runs: the return value of :meth:`copies`.
        """
        self._is_closed = False
        for run in runs:
            if run.context.run_id not in self._runs:
                self._register(run)

    def after_fork_in_child(self) -> None:
        """Forget the parent's runs."""
        self._runs.clear()
        self._parents.clear()
        self._is_child = True
        self._reset()
