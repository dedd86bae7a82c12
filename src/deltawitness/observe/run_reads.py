"""The Delta tables that a run has read: the inferred inputs of its writes without a plan.

A program that reads a table into memory, transforms it there and writes the result has no query plan.
The tables that the run had read before the write are the best estimate of its inputs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from deltawitness.events import InputVersion
from deltawitness.forks import reset_in_child
from deltawitness.ids_and_clock import now_ns
from deltawitness.run import (
    RunContext,
    current_run,
    is_process_run,
    is_suppressed,
    started_process_run,
)

__all__ = ["reads_of_run", "record_reads"]

READS_KEPT = 32
"""Tables noted per run, each at the version that was read last; the latest are kept."""

RUNS_KEPT = 64
"""Runs whose reads are kept: a process may open one within another, and many one after the other."""

_lock = threading.Lock()
reset_in_child("_lock", globals(), threading.Lock)
_runs: OrderedDict[str, tuple[tuple[int, InputVersion], ...]] = OrderedDict()
"""What each run has read, and when."""


def record_reads(*reads: InputVersion) -> None:
    """Note that the current run has read these tables.

    Args:
        reads: the tables, each at the version that was read.
    """
    if is_suppressed():
        return
    run_id, now = current_run().run_id, now_ns()
    with _lock:
        known = {read.table_id: (noted, read) for noted, read in _runs.pop(run_id, ())}
        for read in reads:
            known.pop(read.table_id, None)
            known[read.table_id] = now, read
        _runs[run_id] = tuple(known.values())[-READS_KEPT:]
        while len(_runs) > RUNS_KEPT:
            _runs.popitem(last=False)


def reads_of_run(context: RunContext) -> tuple[InputVersion, ...]:
    """Return the tables that a run has read so far, in the order in which it read them last.

    What a thread has read that no run is known on, such as one of a library's own, belongs to the run of
    the process, and since a run was opened it may be a part of it.

    Args:
        context: the run.
    """
    own = _runs.get(context.run_id, ())
    process_run = started_process_run()
    if not _runs or process_run is None or is_process_run(context):
        return tuple(read for _, read in own)
    elsewhere = tuple(
        noted for noted in _runs.get(process_run.run_id, ()) if noted[0] >= context.started_at
    )
    return tuple(read for _, read in (*elsewhere, *own))[-READS_KEPT:]
