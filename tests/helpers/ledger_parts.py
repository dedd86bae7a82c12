"""Helpers for tests of the ledger: rows, segments, spools and table contents."""

from __future__ import annotations

import json
import time

import pyarrow as pa

from deltawitness.events import CommitMetrics, Committed, WriteEvent, WriteIntent
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.spool.writer import Spool
from deltawitness.ledger.tables.arrow import query
from deltawitness.ledger.tables.write_rows import as_json
from deltawitness.run_context import RunContext
from deltawitness.semconv import CacheOperation, Operation

START = 1_700_000_000_000_000_000
"""2023-11-14, in nanoseconds since the Unix epoch."""


def now_us():
    return time.time_ns() // 1000


def operation_row(write_id, **more):
    """Return a final row of the inventory with the current time."""
    return {
        "event_time": now_us(),
        "run_id": "run-1",
        "write_id": write_id,
        "operation": "WRITE",
        "cache_operation": "write",
        "result": "write",
        "source": "observed",
        "host": "h",
        "pid": 7,
        **more,
    }


def run_started(run_id="run-1", **more):
    """Return the start row of an open run."""
    return {
        "run_id": run_id,
        "job": "nightly",
        "is_part": False,
        "start_time": now_us(),
        "host": "h",
        "pid": 7,
        **more,
    }


def event(outcome=None, **more):
    """Return a complete write event."""
    intent = more.pop("intent", None) or WriteIntent(
        Operation.WRITE, CacheOperation.WRITE, mode="append"
    )
    return WriteEvent(
        **{
            "write_id": "w-1",
            "run": RunContext("run-1", "nightly", started_at=START),
            "intent": intent,
            "outcome": outcome or Committed((3,), CommitMetrics(rows_added=2)),
            "started_at": START,
            "duration_ns": 1_500_000,
            "thread": "MainThread",
            "pid": 7,
            **more,
        }
    )


def spool_in(folder, **options):
    """Return a spool whose errors fail the test."""

    def fail(error):
        raise error

    return Spool(folder, **{"limit": 1 << 30, "on_error": fail, **options})


def sealed_rows(spool, *rows):
    """Append rows to a spool, and return the paths of its sealed segments."""
    for row in rows:
        assert spool.append(RecordKind.ROW, row["write_id"], as_json(row))
    spool.rotate()
    return [segment.path for segment in spool.sealed()]


def left_behind(spools, count=1, **more):
    """Create spools of dead processes, each with an operation, an ended run and an open run."""
    for number in range(count):
        spool = spool_in(spools)
        for kind, name in ((RecordKind.RUN_START, "open"), (RecordKind.RUN_END, "ended")):
            row = run_started(f"{name}-{number}", pid=number, **more)
            row |= {"end_time": row["start_time"], "status": "ok"}
            assert spool.append(kind, row["run_id"], as_json(row))
        row = operation_row(f"w-{number}", run_id=f"open-{number}", pid=number)
        row["event_time"] = more.get("start_time", row["event_time"])
        assert spool.append(RecordKind.ROW, row["write_id"], as_json(row))
        spool.close()


def rows_of(root, table, columns="*", order="1"):
    """Return the rows of one of the ledger's tables, unprocessed."""
    opened = root.open_table(table)
    return (
        []
        if opened is None
        else query(opened, f"SELECT {columns} FROM ledger ORDER BY {order}").to_pylist()
    )


def write_ids(root, table):
    """Return the write ids of all rows in the inventory, duplicates included."""
    return [row["write_id"] for row in rows_of(root, table, "write_id")]


def lines_of(path):
    """Return a segment's records as kind, id and row, without checksums."""
    records = []
    for line in path.read_bytes().splitlines():
        _, kind, key, body = line.split(b" ", 3)
        records.append((kind.decode(), key.decode(), json.loads(body)))
    return records


def one(value):
    """Return a table of one row."""
    return pa.table({"x": pa.array([value], pa.int64())})
