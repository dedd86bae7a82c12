"""Write Daft DataFrames that a local Ray computes: create, append."""

import sys

import daft
import ray

table = f"{sys.argv[1]}/sales"
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
daft.set_runner_ray()
sales = daft.from_pydict({"id": [1, 2], "amount": [10.0, 20.0]})
sales.write_deltalake(table)
sales.where(daft.col("amount") > 15).write_deltalake(table, mode="append")
print(sorted(daft.read_deltalake(table).to_pydict()["id"]))
ray.shutdown()
