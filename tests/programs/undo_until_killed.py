"""Programs of the tests that kill an undo or the run that is undone."""

from __future__ import annotations

import os
import signal

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, run, undo


def undo_run(run_id, root, begun):
    """Undo a run, and send when it begins and when it has ended."""
    begun.send("begun")
    undo(run_id, apply=True, root=root)
    begun.send("ended")


def write_and_die(tables, root, run_id, begun):
    """Append to tables in a run, and die before its rows are in the ledger."""
    settings = Settings(cache_root=root, drain_interval=600)
    DeltaLakeInstrumentor().instrument(settings=settings)
    with run("dying", run_id=run_id):
        for table in tables:
            write_deltalake(table, pa.table({"x": [2]}), mode="append")
        begun.send("written")
        os.kill(os.getpid(), signal.SIGKILL)
