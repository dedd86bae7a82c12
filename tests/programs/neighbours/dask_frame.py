"""Write the partitions of a Dask DataFrame with dask-deltatable in one commit: append."""

import sys

import dask
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
from dask_deltatable import to_deltalake
from deltalake import DeltaTable

table = f"{sys.argv[1]}/sales"
# to_deltalake cannot create a table: it expects an exception that delta-rs no longer raises.
DeltaTable.create(table, pa.schema([("id", pa.int64()), ("amount", pa.float64())]))
sales = pd.DataFrame({"id": [1, 2, 3, 4], "amount": [10.0, 20.0, 30.0, 40.0]})
with dask.config.set(scheduler="threads"):
    for _ in range(2):
        to_deltalake(table, dd.from_pandas(sales, npartitions=2), mode="append")
print(len(DeltaTable(table).to_pyarrow_table()))
