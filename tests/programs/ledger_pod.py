"""Write tables in a run whose records stay in the spool, as a pod does that dies before its first drain."""

from __future__ import annotations

import time

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, run

HOURS = 3600.0


def write_and_wait(settings, tables, writes, done):
    """Append to each table several times, report the run's id, and wait for a kill inside of the run.

    Args:
        settings: of the instrumentor, as keywords.
        tables: locations.
        writes: number of appends to each table.
        done: receives the id of the run after the last write.
    """
    DeltaLakeInstrumentor().instrument(settings=Settings(drain_interval=HOURS, **settings))
    with run("pod") as context:
        for number in range(writes):
            for table in tables:
                write_deltalake(
                    table,
                    pa.table({"x": [number]}),
                    mode="append",
                    storage_options=settings.get("storage_options"),
                )
        done.send(context.run_id)
        time.sleep(HOURS)
