"""Load a resource with dlt into a data lake of Delta tables: replace, append, merge."""

import os
import sys

import dlt
from deltalake import DeltaTable

lake = sys.argv[1]
os.environ["DESTINATION__FILESYSTEM__BUCKET_URL"] = f"file://{lake}"

pipeline = dlt.pipeline(
    "shop", destination="filesystem", dataset_name="shop", pipelines_dir=f"{lake}/.dlt"
)


def load(rows, disposition):
    """Load rows into the table `sales`."""
    resource = dlt.resource(
        rows,
        name="sales",
        primary_key="id",
        write_disposition=disposition,
        table_format="delta",
    )
    pipeline.run(resource, loader_file_format="parquet").raise_on_failed_jobs()


load([{"id": 1, "amount": 10.0}, {"id": 2, "amount": 20.0}], "replace")
load([{"id": 3, "amount": 30.0}], "append")
load([{"id": 2, "amount": 25.0}, {"id": 9, "amount": 90.0}], "merge")
sales = DeltaTable(f"{lake}/shop/sales").to_pyarrow_table(columns=["id", "amount"])
print(sales.sort_by("id").to_pydict())
