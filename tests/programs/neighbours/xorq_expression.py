"""Write the result of a xorq expression: create, append."""

import sys

import pyarrow as pa
import xorq.api as xo
from deltalake import DeltaTable, write_deltalake

table = f"{sys.argv[1]}/sales"
connection = xo.connect()
sales = connection.register(pa.table({"id": [1, 2, 3], "amount": [10.0, 20.0, 30.0]}), "sales")
large = sales.filter(sales.amount > 10)
write_deltalake(table, large.to_pyarrow())
write_deltalake(table, large.to_pyarrow(), mode="append")
print(DeltaTable(table).to_pyarrow_table().num_rows)
