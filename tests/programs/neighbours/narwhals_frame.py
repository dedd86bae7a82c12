"""Write a narwhals frame over a DataFusion session: create, append."""

import sys

import narwhals as nw
import pyarrow as pa
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake

table = f"{sys.argv[1]}/sales"
session = SessionContext()
sales = session.from_arrow(pa.table({"id": [1, 2, 3], "amount": [10.0, 20.0, 30.0]}))
frame = nw.from_native(sales).filter(nw.col("amount") > 10).sort("id")
write_deltalake(table, frame.collect("pyarrow").to_native())
write_deltalake(table, frame.to_native(), mode="append")
print(DeltaTable(table).to_pyarrow_table().num_rows)
