"""Write until the process is ended from outside; print `begun` after the first writes.

python writes_until_told.py FOLDER [slow]
"""

from __future__ import annotations

import signal
import sys
import time

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, run


def batches():
    """Return rows from a source that takes far longer than any test."""
    schema = pa.schema([("x", pa.int64())])

    def slow():
        print("begun", flush=True)
        while True:
            time.sleep(0.05)
            yield pa.record_batch([[1]], schema)

    return pa.RecordBatchReader.from_batches(schema, slow())


signal.alarm(3600)  # so that it does not outlive an interrupted test
folder = sys.argv[1]
DeltaLakeInstrumentor().instrument()
with run("told"):
    for number in range(3):
        write_deltalake(f"{folder}/t", pa.table({"x": [number]}), mode="append")
    if "slow" in sys.argv:
        write_deltalake(f"{folder}/t", batches(), mode="append")
    print("begun", flush=True)
    while True:
        write_deltalake(f"{folder}/t", pa.table({"x": [0]}), mode="append")
