"""Run a Prefect flow whose tasks write a Delta table: create, append."""

import os
import sys

lake = sys.argv[1]
os.makedirs(lake, exist_ok=True)
os.environ["PREFECT_HOME"] = f"{lake}/prefect"
os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from prefect import flow, task


@task
def load(ids, mode):
    """Write a batch."""
    write_deltalake(f"{lake}/sales", pa.table({"id": ids}), mode=mode)


@flow
def shop():
    """Two tasks: one in this thread, one in the flow's thread pool."""
    load([1, 2], "error")
    load.submit([3], "append").result()


shop()
print(DeltaTable(f"{lake}/sales").to_pyarrow_table().num_rows)
