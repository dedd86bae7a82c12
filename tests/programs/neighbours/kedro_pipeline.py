"""Run a kedro pipeline whose catalog has Delta tables: overwrite and append."""

import logging
import sys

logging.disable(logging.INFO)

import pandas as pd
from kedro.io import DataCatalog
from kedro.pipeline import node, pipeline
from kedro.runner import SequentialRunner
from kedro_datasets.pandas import DeltaTableDataset

lake = sys.argv[1]


def extract():
    """Return the sales of a day."""
    return pd.DataFrame({"id": [1, 2], "amount": [10.0, 20.0]})


def double(sales):
    """Return the sales at twice the price."""
    return sales.assign(amount=sales["amount"] * 2)


for _ in range(2):
    catalog = DataCatalog(
        {
            "sales": DeltaTableDataset(filepath=f"{lake}/sales"),
            "totals": DeltaTableDataset(
                filepath=f"{lake}/totals", save_args={"mode": "append"}
            ),
        }
    )
    SequentialRunner().run(
        pipeline([node(extract, None, "sales"), node(double, "sales", "totals")]), catalog
    )
totals = DeltaTableDataset(filepath=f"{lake}/totals").load()
print(len(totals), totals["amount"].sum())
