"""Write Daft DataFrames: create, append, overwrite."""

import sys

import daft

table = f"{sys.argv[1]}/sales"
sales = daft.from_pydict({"id": [1, 2], "amount": [10.0, 20.0]})

sales.write_deltalake(table)
sales.with_column("id", daft.col("id") + 2).write_deltalake(
    table, mode="append", custom_metadata={"source": "till-7"}
)
print(sorted(daft.read_deltalake(table).to_pydict()["id"]))
sales.where(daft.col("amount") > 15).write_deltalake(table, mode="overwrite")
print(daft.read_deltalake(table).to_pydict())
