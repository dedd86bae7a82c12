"""Write to local tables until killed, by another process or by itself at a chosen step.

The fault tests start it as a process. The steps are those at which a death has the most
consequences; the death is a SIGKILL with all locks, open files and threads in place.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, run
from deltawitness.ledger.drain import drain, maintenance
from deltawitness.ledger.drain.drain import Drain
from deltawitness.ledger.drain.open_runs import OpenRuns
from deltawitness.ledger.drain.recorder import Recorder
from deltawitness.ledger.spool.reader import AbandonedSpool
from deltawitness.ledger.spool.writer import Spool
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerRoot
from deltawitness.observe.ledger_sink import LedgerSink
from deltawitness.observe.observer import Observer

TABLES = ("orders", "items", "audit")
OPERATIONS = ("append",) * 5 + ("delete", "merge", "optimize", "failing")


def rows(count=3):
    """Return a few rows with random keys, so that merges and deletes match some."""
    keys = pa.array([random.randrange(50) for _ in range(count)], pa.int64())
    return pa.table({"key": keys, "text": [f"row {key}" for key in keys.to_pylist()]})


def write(folder, rng):
    """Make one random write."""
    table = f"{folder}/{rng.choice(TABLES)}"
    match rng.choice(OPERATIONS) if Path(table, "_delta_log").exists() else "append":
        case "append":
            write_deltalake(table, rows(), mode="append")
        case "delete":
            DeltaTable(table).delete(f"key = {rng.randrange(50)}")
        case "merge":
            merger = DeltaTable(table).merge(
                # A merge refuses two source rows for one target row.
                rows(1),
                "t.key = s.key",
                source_alias="s",
                target_alias="t",
            )
            merger.when_matched_update_all().when_not_matched_insert_all().execute()
        case "optimize":
            DeltaTable(table).optimize.compact()
        case "failing":
            try:
                write_deltalake(table, pa.table({"other": ["x"]}), mode="append")
            except Exception:  # noqa: BLE001 - the write must fail
                return


def write_until_killed(folder, settings, seed, moment, begun):
    """Write until this process dies.

    Args:
        folder: the folder of the tables.
        settings: of the instrumentor, as keywords.
        seed: of the random writes.
        moment: name of the step to die at; None to wait for a kill.
        begun: receives the process id right before the first write.
    """
    random.seed(seed)
    rng = random.Random(seed)
    prepare(moment)
    DeltaLakeInstrumentor().instrument(settings=Settings(drain_interval=0.05, **settings))
    begun.send(os.getpid())
    while True:
        with run("dying", attributes={"moment": str(moment)}):
            for _ in range(8):
                write(folder, rng)
                time.sleep(rng.uniform(0, 0.01))  # work of the program between writes
                inside_the_engine(folder, moment)


# --- steps to die at ---------------------------------------------------------------------------------------


def die():
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(owner, name, *, call=1, after=False, if_given=lambda *_: True):
    """Replace a function by one that kills this process at one of its calls.

    Args:
        owner: class or module of the function.
        name: its name.
        call: the number of the call, of those that count.
        after: die after the call instead of before it.
        if_given: returns whether a call with these arguments counts.
    """
    original = getattr(owner, name)
    left = [call]

    def deadly(*args, **kwargs):
        left[0] -= bool(if_given(*args))
        is_last = left[0] == 0
        if is_last and not after:
            die()
        result = original(*args, **kwargs)
        if is_last:
            die()
        return result

    setattr(owner, name, deadly)


def die_in_a_line(call):
    """Die with half a record written."""
    original = Spool._write
    left = [call]

    def torn(self, segment, line):
        left[0] -= 1
        if left[0] == 0:
            os.write(segment.descriptor, line[: len(line) // 2])
            die()
        return original(self, segment, line)

    Spool._write = torn


def die_deleting(owner, event, *, call=1):
    """Die during a deletion.

    Args:
        owner: class with the `delete` method.
        event: the audit event of the step to die at, just before it.
        call: the number of the event.
    """
    original = owner.delete
    left = [call]

    def watch(name, _):
        if name == event:  # `os.kill` raises an audit event too
            left[0] -= 1
            if left[0] == 0:
                die()

    def delete(*args):
        sys.addaudithook(watch)
        original(*args)

    owner.delete = delete


def inside_the_engine(folder, moment):
    """Die while the engine reads its input."""
    if moment != "inside the engine":
        return
    schema = rows().schema

    def batches():
        yield from rows(2000).to_batches()
        die()

    reader = pa.RecordBatchReader.from_batches(schema, batches())
    write_deltalake(f"{folder}/{TABLES[0]}", reader, mode="append")


def of(table):
    """Return a predicate for calls with root and table: whether the table is this one."""
    return lambda _root, given, *_: given is table


def maintain_often():
    """Make every third commit cause maintenance."""
    drain.COMMITS_PER_MAINTENANCE = 3


MOMENTS = {
    "before the commit": lambda: die_at(Observer, "enter", call=11, after=True),
    "inside the engine": lambda: None,
    "after the commit, before the note": lambda: die_at(LedgerSink, "append_provisional", call=11),
    "at the very first line": lambda: die_in_a_line(1),
    "in the middle of a line": lambda: die_in_a_line(25),
    "between note and row": lambda: die_at(Recorder, "finalize", call=11),
    "after the row": lambda: die_at(Recorder, "finalize", call=11, after=True),
    "making the folder of the spool": lambda: die_at(Path, "rename"),
    "before the end of a run": lambda: die_at(OpenRuns, "_finish", call=2),
    "after the end of a run": lambda: die_at(OpenRuns, "_finish", call=2, after=True),
    "with a new segment still empty": lambda: die_at(Spool, "_new_segment", call=3, after=True),
    "before anything is drained": lambda: die_at(Drain, "drain_segments", call=2),
    "making a table of the ledger": lambda: die_at(LedgerRoot, "open_or_create", after=True),
    "draining, before the inventory": lambda: die_at(
        drain, "_append_once", call=2, if_given=of(INVENTORY)
    ),
    "draining, between the tables": lambda: die_at(
        drain, "_append_once", call=2, after=True, if_given=of(INVENTORY)
    ),
    "draining, after the runs": lambda: die_at(
        drain, "_append_once", call=2, after=True, if_given=of(RUNS)
    ),
    "drained, before the segment is deleted": lambda: die_at(Spool, "delete", call=2),
    "in the middle of deleting segments": lambda: die_deleting(Spool, "os.remove", call=2),
    "after the segment is deleted": lambda: die_at(Spool, "delete", call=2, after=True),
    "adopting, before the inventory": lambda: die_at(drain, "_append_once", if_given=of(INVENTORY)),
    "adopting, between the tables": lambda: die_at(
        Drain, "_append_runs", if_given=lambda _, batch: batch.abandoned
    ),
    "adopted, before the spool is deleted": lambda: die_at(AbandonedSpool, "delete"),
    "adopted, with some of the spool deleted": lambda: die_deleting(
        AbandonedSpool, "os.remove", call=2
    ),
    "adopted, with only the folder left": lambda: die_deleting(AbandonedSpool, "os.rmdir"),
    "holding the lease of maintenance": lambda: (
        maintain_often(),
        die_at(maintenance, "_release"),
    ),
}


def prepare(moment):
    """Make this process die at a step."""
    if moment is not None:
        MOMENTS[moment]()
