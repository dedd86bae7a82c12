"""Copy an Iceberg table that pyiceberg made into a Delta table: create, append."""

import sys
from pathlib import Path

import pyarrow as pa
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

lake = Path(sys.argv[1])
lake.mkdir(parents=True, exist_ok=True)
catalog = SqlCatalog("lake", uri=f"sqlite:///{lake}/iceberg.db", warehouse=f"file://{lake}/iceberg")
catalog.create_namespace("shop")
sales = pa.table({"id": [1, 2], "amount": [10.0, 20.0]})
iceberg = catalog.create_table("shop.sales", schema=sales.schema)
iceberg.append(sales)

session = SessionContext()
session.register_table("sales", iceberg)
print(session.sql("SELECT sum(amount) AS total FROM sales").to_pydict())
for _ in range(2):
    write_deltalake(lake / "sales", iceberg.scan().to_arrow(), mode="append")
print(DeltaTable(lake / "sales").to_pyarrow_table().num_rows)
