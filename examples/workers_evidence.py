"""Print what the ledger and the commits of a lake know of the writes of workers.

The other `workers_*.py` programs use it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from deltawitness import DeltaLakeInstrumentor, Ledger, RunContext, Settings, history


def observe(lake: str) -> None:
    """Observe this process, with traces, and with a ledger next to the tables."""
    trace.set_tracer_provider(TracerProvider())
    settings = Settings(cache_root=f"{lake}/ledger", drain_interval=0.5)
    DeltaLakeInstrumentor().instrument(settings=settings)


def print_writes(lake: str, context: RunContext, span: trace.Span) -> None:
    """Print a line for each commit of the lake, and how many rows the ledger has."""
    trace_id = format(span.get_span_context().trace_id, "032x")
    print(f"run {context.run_id}, trace {trace_id}")
    tables = sorted(log.parent for log in Path(lake).glob("*/_delta_log"))
    commits = [(table.name, commit) for table in tables for commit in history(table)]
    rows = rows_of(lake, len(commits))
    for name, commit in commits:
        row = rows[commit.write_id]
        print(
            f"{name} version {commit.version}:",
            "this run," if commit.run_id == row["run_id"] == context.run_id else "another run,",
            "this trace," if row["trace_id"] == trace_id else "another trace,",
            f"policy {commit.metadata['cache_policy']},",
            "by the driver" if row["pid"] == os.getpid() else "by a worker",
        )
    print(f"rows of the ledger: {len(rows)}")


def rows_of(lake: str, count: int) -> dict[str, dict]:
    """Return the ledger's rows by write id. Workers drain their rows soon after a write: wait for them."""
    deadline = time.monotonic() + 30
    while True:
        rows = Ledger(f"{lake}/ledger").query("SELECT * FROM inventory").to_pylist()
        if len(rows) >= count or time.monotonic() > deadline:
            return {row["write_id"]: row for row in rows}
        time.sleep(0.2)
