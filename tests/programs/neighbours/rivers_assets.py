"""Materialize rivers assets with the Delta IO handler: overwrite, append, merge."""

import sys

import pyarrow as pa
import rivers as rs
from deltalake import DeltaTable
from rivers.io_handlers.delta import DeltaIOHandler, MergeConfig

lake = sys.argv[1]


@rs.Asset(io_handler=DeltaIOHandler(table_uri=lake))
def sales() -> pa.Table:
    """The sales of a day."""
    return pa.table({"id": [1, 2], "amount": [10.0, 20.0]})


@rs.Asset(io_handler=DeltaIOHandler(table_uri=lake, mode="append"))
def totals(sales: pa.Table) -> pa.Table:
    """The number of sales per run."""
    return pa.table({"count": [sales.num_rows]})


upsert = MergeConfig(merge_type="upsert", predicate="s.id = t.id")


@rs.Asset(io_handler=DeltaIOHandler(table_uri=lake, mode="merge", merge_config=upsert))
def customers() -> pa.Table:
    """The customers, merged into a table that exists."""
    return pa.table({"id": [2, 3], "name": ["b", "c"]})


DeltaTable.create(f"{lake}/customers", pa.schema([("id", pa.int64()), ("name", pa.string())]))
repository = rs.CodeRepository(assets=[sales, totals, customers])
for _ in range(2):
    print(repository.materialize().success)
print(DeltaTable(f"{lake}/totals").to_pyarrow_table().to_pydict())
print(DeltaTable(f"{lake}/customers").to_pyarrow_table().num_rows)
