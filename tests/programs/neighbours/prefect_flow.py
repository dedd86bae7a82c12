"""Run a Prefect flow whose tasks write a Delta table: create, append."""

import sys

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from prefect import flow, task

lake = sys.argv[1]


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
