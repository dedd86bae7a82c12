"""The Delta tables that a run has read: the inferred inputs of its writes that have no query plan.

A program that reads a table into memory, transforms the rows there and writes the result has no query
plan. The tables that its run read before the write are the best estimate of the write's inputs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from deltawitness.events import InputVersion
from deltawitness.forks import reset_in_child
from deltawitness.ids_and_clock import now_ns
from deltawitness.run import current_run, is_process_run, is_suppressed, started_process_run
from deltawitness.run_context import RunContext

__all__ = ["reads_of_run", "record_reads"]

MAX_READS = 32
"""Tables recorded per run, each at the version that was read last; the oldest reads are dropped."""

MAX_RUNS = 64
"""Runs whose reads are recorded: a process may nest runs, and may open many in sequence."""

_lock = threading.Lock()
reset_in_child("_lock", globals(), threading.Lock)
_runs: OrderedDict[str, tuple[tuple[int, InputVersion], ...]] = OrderedDict()
"""By run id: when each table was read (nanoseconds since the Unix epoch), and at which version."""


def record_reads(*reads: InputVersion) -> None:
    """Record that the current run has read tables.

    Args:
        reads: the tables, each at the version that was read.
    """
    if is_suppressed():
        return
    run_id, now = current_run().run_id, now_ns()
    with _lock:
        by_table = {read.table_id: (read_at, read) for read_at, read in _runs.pop(run_id, ())}
        for read in reads:
            by_table.pop(read.table_id, None)
            by_table[read.table_id] = now, read
        _runs[run_id] = tuple(by_table.values())[-MAX_READS:]
        while len(_runs) > MAX_RUNS:
            _runs.popitem(last=False)


def reads_of_run(context: RunContext) -> tuple[InputVersion, ...]:
    """Return the tables that a run has read so far, ordered by their last read.

    A thread outside of any run (one of a library, for example) records its reads under the run of the
    process. Those since `context` was opened may belong to `context`, so they are included.

    Args:
        context: the run.
    """
    if not _runs:
        return ()
    own = _runs.get(context.run_id, ())
    process_run = started_process_run()
    if process_run is None or is_process_run(context):
        return tuple(read for _, read in own)
    elsewhere = tuple(
        entry for entry in _runs.get(process_run.run_id, ()) if entry[0] >= context.started_at
    )
    return tuple(read for _, read in (*elsewhere, *own))[-MAX_READS:]
