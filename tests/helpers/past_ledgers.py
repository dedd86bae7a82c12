"""Ledgers with a past: rows of runs and writes at chosen times, and random pasts with planted causes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from deltalake import write_deltalake

from deltawitness.ledger.tables.arrow import rows_from
from deltawitness.ledger.tables.locations import root_of
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.run import suppressed
from deltawitness.settings import Settings

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""The time for which questions are answered."""


def microseconds(time):
    return int(time.timestamp() * 1e6)


@dataclass
class PastLedger:
    """Rows of a ledger.

    Attributes:
        writes: rows of the inventory.
        runs: rows of runs.
    """

    writes: list = field(default_factory=list)
    runs: list = field(default_factory=list)

    def run(self, job, start, *, seconds=10.0, rows=100, table=None, status="ok", hits=0, **more):
        """Add a run that appends rows to a table of the name of its job, unless `rows` is None; return its id."""
        run_id = f"run-{len(self.runs)}"
        end = start + timedelta(seconds=seconds)
        self.runs.append(
            {
                "run_id": run_id,
                "job": job,
                "is_part": False,
                "start_time": microseconds(start),
                "end_time": microseconds(end),
                "status": status,
                "hits": hits,
                "rows_added": rows or 0,
                "error_type": None if status == "ok" else "OSError",
                "host": "h",
                "pid": len(self.runs),
                **more,
            }
        )
        if rows is not None:
            self.write(table or job, start, rows, job=job, run_id=run_id)
        return run_id

    def write(self, table, time, rows, **more):
        """Add a write of a table."""
        self.writes.append(
            {
                "event_time": microseconds(time),
                "write_id": f"write-{len(self.writes)}",
                "operation": "WRITE",
                "cache_operation": "write",
                "result": "write",
                "table_uri": f"file:///lake/{table}",
                "table_id": f"id-{table}",
                "table_name": table,
                "version": len(self.writes),
                "mode": "append",
                "rows_added": rows,
                "rows_updated": 0,
                "rows_deleted": 0,
                "source": "observed",
                **more,
            }
        )

    def save(self, folder):
        """Write the ledger; return its cache root."""
        place = root_of(Settings(cache_root=str(folder)))
        with suppressed():
            for table, rows in ((INVENTORY, self.writes), (RUNS, self.runs)):
                if rows:
                    write_deltalake(place.uri_of(table), rows_from(table, rows))
        return str(folder)


CAUSES = ("none", "late", "empty", "many", "few", "broken", "failing", "flaky", "slower")


@dataclass
class PlantedPast:
    """A random past.

    Attributes:
        root: the cache root of the ledger.
        causes: what was planted, by job.
    """

    root: str
    causes: dict


def planted_past(folder, seed, jobs=12):
    """Write a ledger with the regular runs of several jobs, each with a table, and one cause for each job."""
    source = random.Random(seed)
    ledger = PastLedger()
    causes = {}
    for number in range(jobs):
        job = f"job_{number}"
        causes[job] = source.choice(CAUSES)
        _add_job(ledger, source, job, causes[job])
    for _ in range(20):
        time = AT - timedelta(days=source.uniform(0, 30))
        ledger.write(
            "job_0",
            time,
            0,
            cache_operation="optimize",
            operation="OPTIMIZE",
            mode=None,
            job="tidy",
        )
    return PlantedPast(ledger.save(folder), causes)


def _add_job(ledger, source, job, cause):
    interval = source.choice((timedelta(hours=1), timedelta(days=1), timedelta(days=7)))
    count = source.randint(25, 55)
    typical_rows, typical_seconds = source.randint(50, 5_000_000), source.uniform(5, 500)
    end = (
        AT
        - interval * 0.02
        - (interval * source.uniform(2.5, 6) if cause == "late" else timedelta())
    )
    bad = {"broken": {0}, "failing": {0, 1, 2}, "flaky": {3, 7}}.get(cause, set())
    if cause == "none" and source.random() < 0.5:
        bad = {source.randint(1, count - 1)}  # one failure is no cause
    for back in range(count - 1, -1, -1):
        start = end - interval * (back + source.uniform(-0.02, 0.02) * (back > 0))
        rows = max(1, round(typical_rows * source.lognormvariate(0, 0.15)))
        seconds = typical_seconds * source.uniform(0.8, 1.25)
        if back == 0:
            rows = {"many": rows * 8, "few": max(rows // 8, 1), "empty": 0}.get(cause, rows)
            seconds *= 4 if cause == "slower" else 1
        is_ok = back not in bad
        changed = rows if is_ok and rows else None
        start -= timedelta(seconds=seconds)
        ledger.run(job, start, seconds=seconds, rows=changed, status="ok" if is_ok else "error")
