"""Write tables in Ray tasks and in an actor: append, from worker processes."""

import sys

import pyarrow as pa
import ray
from deltalake import DeltaTable, write_deltalake

lake = sys.argv[1]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")


@ray.remote
def load(shop):
    """Write the sales of a shop."""
    write_deltalake(f"{lake}/shop{shop}", pa.table({"id": [1, 2]}), mode="append")
    return shop


@ray.remote
class Loader:
    """Writes batches to one table."""

    def load(self, batch):
        """Write a batch."""
        write_deltalake(f"{lake}/batches", pa.table({"id": [batch]}), mode="append")
        return batch


print(ray.get([load.remote(shop) for shop in range(4)]))
loader = Loader.remote()
print(ray.get([loader.load.remote(batch) for batch in range(3)]))
print(DeltaTable(f"{lake}/batches").to_pyarrow_table().num_rows)
ray.shutdown()
