"""The drains and the rows of a recorder under test."""

from __future__ import annotations

import threading

from deltawitness.ledger.tables.schema import RUNS
from helpers.ledger_parts import now_us, rows_of

READ = {"operation": "READ", "cache_operation": "read", "result": "hit", "event_time": now_us()}


def drained(recorder):
    """Return an event that the next drain sets."""
    done, previous = threading.Event(), recorder.drains.on_drain

    def on_drain(seconds, error):
        previous(seconds, error)
        done.set()

    recorder.drains.on_drain = on_drain
    return done


def runs_of(recorder, columns):
    return rows_of(recorder.root, RUNS, columns, "start_time, run_id")
