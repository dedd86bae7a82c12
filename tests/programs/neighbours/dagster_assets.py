"""Materialize Dagster assets whose IO manager writes Delta tables: overwrite and append."""

import sys

import dagster
import pyarrow as pa
from dagster_deltalake import DeltaLakePyarrowIOManager, LocalConfig
from deltalake import DeltaTable


@dagster.asset(key_prefix=["shop"])
def sales() -> pa.Table:
    """The sales of a day."""
    return pa.table({"id": [1, 2], "amount": [10.0, 20.0]})


@dagster.asset(key_prefix=["shop"], metadata={"mode": "append"})
def totals(sales: pa.Table) -> pa.Table:
    """The number of sales per run."""
    return pa.table({"count": [sales.num_rows]})


lake = DeltaLakePyarrowIOManager(root_uri=sys.argv[1], storage_options=LocalConfig())
for _ in range(2):
    result = dagster.materialize([sales, totals], resources={"io_manager": lake})
    print(result.success)
print(DeltaTable(f"{sys.argv[1]}/shop/totals").to_pyarrow_table().to_pydict())
