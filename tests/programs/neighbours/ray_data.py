"""Write Ray Data datasets: create, append, append with a new column, overwrite."""

import sys

import pandas as pd
import ray
from deltalake import DeltaTable
from ray.data import SaveMode

table = f"{sys.argv[1]}/sales"
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
ray.data.DataContext.get_current().enable_progress_bars = False
sales = pd.DataFrame({"id": [1, 2], "amount": [10.0, 20.0]})

ray.data.from_pandas(sales).write_delta(table)
ray.data.from_pandas(sales).write_delta(table)
ray.data.from_pandas(sales.assign(shop="north")).write_delta(table)
print(len(DeltaTable(table).to_pyarrow_table()))
ray.data.from_pandas(sales).write_delta(table, mode=SaveMode.OVERWRITE)
print(DeltaTable(table).to_pyarrow_table().column_names)
ray.shutdown()
