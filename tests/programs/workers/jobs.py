"""Two runs, one after the other, in which a program sends work to workers that outlive both."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import cache_context, run

JOBS = ("one", "two")


def jobs(lake):
    """Yield the folder for the tables of each job, in its run, with a policy of the same name."""
    for job in JOBS:
        with run(job), cache_context(policy=job):
            yield Path(lake, job).absolute()


def load(folder, name, rows=2):
    """Append rows to a table, and return the process."""
    write_deltalake(f"{folder}/{name}", pa.table({"id": list(range(rows))}), mode="append")
    return os.getpid()


def outside(environ):
    """Return an environment without the variables of deltawitness, for a cluster that existed before."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(("DELTAWITNESS_", "OTEL_", "TRACEPARENT"))
        and not (name == "PYTHONPATH" and "deltawitness" in value)
    }
