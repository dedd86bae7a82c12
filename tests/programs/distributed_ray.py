"""Distributed writes on Ray, and Ray Data's own Delta writer: run in a separate environment with Ray.

Usage: distributed_ray.py FOLDER. It prints one JSON object of what it has seen.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pyarrow as pa
import ray
from deltalake import DeltaTable, write_deltalake

from deltawitness import read_commit_metadata, run, write_distributed
from deltawitness.testing import capture_writes


class Part:
    """Ten rows; the first worker that can delete the fatal file dies."""

    def __init__(self, number, fatal=None):
        self.number, self.fatal = number, fatal

    def __call__(self):
        if self.fatal is not None and Path(self.fatal).exists():
            Path(self.fatal).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return pa.table({"id": range(10 * self.number, 10 * self.number + 10)})


def ids(uri):
    return sorted(DeltaTable(uri).to_pyarrow_table()["id"].to_pylist())


def described(result):
    return [result.version, result.rows, result.parts, result.is_new]


def check_error(uri):
    try:
        write_distributed([pa.table({"x": [1]})], uri, engine="ray")
    except Exception as error:  # noqa: BLE001 - its class is what is tested
        return [type(error).__name__, str(error)]
    return None


def main(folder):
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False
    )
    found = {}
    uri = f"{folder}/t"
    tables = [Part(number)() for number in range(2)]
    with capture_writes() as captured:
        with run("load", run_id="r1"):
            parts = [ray.put(tables[0]), tables[1], Part(2), tables[0].to_reader()]
            found["parts"] = described(write_distributed(parts, uri, engine="ray"))
        found["run"] = read_commit_metadata(uri).run_id
        fatal = Path(folder, "fatal")
        fatal.touch()
        for name in ("killed", "again"):
            parts = [Part(3, str(fatal)), Part(4, str(fatal))]
            found[name] = described(write_distributed(parts, uri, engine="ray", key="load"))
        found["died"] = not fatal.exists()
        found["ids"] = ids(uri)
        dataset = ray.data.range(40, override_num_blocks=4)
        found["dataset"] = described(write_distributed(dataset, f"{folder}/d"))
        found["dataset ids"] = ids(f"{folder}/d") == list(range(40))
        found["error"] = check_error(uri)
        found["events"] = [
            [event.intent.operation.value, event.intent.parts, type(event.outcome).__name__]
            for event in captured.events
        ]
    found["ray data"] = write_with_ray_data(folder)
    sys.stdout.write(json.dumps(found))


def write_with_ray_data(folder):
    """Write with Ray Data's own `write_delta`, with a column that the table lacks, and return its events."""
    uri = f"{folder}/own"
    write_deltalake(uri, pa.table({"id": [0]}))
    with capture_writes() as captured:
        with run("own", run_id="r2"):
            rows = ray.data.from_arrow(pa.table({"id": [1, 2], "x": [1, 2]}))
            if not hasattr(rows, "write_delta"):
                return None
            rows.write_delta(uri, mode="append", schema_mode="merge")
        return {
            "events": [
                [event.intent.operation.value, event.run.run_id, event.trace_id is not None]
                for event in captured.events
            ],
            "rows": ids(uri),
        }


if __name__ == "__main__":
    main(sys.argv[1])
