"""Programs that write slowly, for `live` and the progress line: each batch waits for a file."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, run

LIFE_S = 120
"""Seconds after which a program stops waiting, and fails."""


def wait_for(path):
    """Wait until a file exists."""
    end = time.monotonic() + LIFE_S
    while not Path(path).exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.01)


def write_until_told(folder, begun):
    """Write a quick table, then a table whose second batch waits for the file `go`.

    Args:
        folder: the folder of the tables, of the ledger and of the file.
        begun: receives the process id when the engine waits for the second batch.
    """
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=f"{folder}/ledger"))
    with run("slow-job"):
        write_deltalake(f"{folder}/quick", pa.table({"x": [1, 2]}), mode="append")
        batch = pa.record_batch({"x": [1, 2, 3]})

        def batches():
            yield batch
            begun.send(os.getpid())
            wait_for(f"{folder}/go")
            yield batch

        rows = pa.RecordBatchReader.from_batches(batch.schema, batches())
        write_deltalake(f"{folder}/slow", rows, mode="append")
        try:
            write_deltalake(f"{folder}/quick", pa.table({"y": ["a"]}), mode="append")
        except Exception:  # noqa: BLE001 - the write must fail
            return


def write_often(folder, begun):
    """Write to a table again and again until the file `stop` exists; each third write fails.

    Args:
        folder: the folder of the table, of the ledger and of the file.
        begun: receives the process id before the first write.
    """
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=f"{folder}/ledger"))
    begun.send(os.getpid())
    end = time.monotonic() + LIFE_S
    with run("busy-job"):
        while not Path(folder, "stop").exists() and time.monotonic() < end:
            for column in ("x", "x", "y"):
                try:
                    write_deltalake(f"{folder}/t", pa.table({column: [1]}), mode="append")
                except Exception:  # noqa: BLE001 - this write must fail
                    time.sleep(0.2)
