"""Test an Airflow DAG whose tasks write a Delta table: create, append."""

import runpy
import sys
from pathlib import Path

from airflow.utils.db import initdb
from deltalake import DeltaTable

DAG = """
import pyarrow as pa
from airflow.sdk import dag, task
from deltalake import write_deltalake


@dag(schedule=None)
def shop():
    @task
    def extract():
        write_deltalake("{lake}/sales", pa.table({{"id": [1, 2]}}))
        return 2

    @task
    def load(count):
        write_deltalake("{lake}/sales", pa.table({{"id": [count + 1]}}), mode="append")

    load(extract())


shop = shop()
"""

lake = Path(sys.argv[1]).absolute()
dags = Path.home() / "airflow/dags"
dags.mkdir()
(dags / "shop.py").write_text(DAG.format(lake=lake))
initdb()
runpy.run_path(str(dags / "shop.py"))["shop"].test()
print(DeltaTable(lake / "sales").to_pyarrow_table().num_rows)
