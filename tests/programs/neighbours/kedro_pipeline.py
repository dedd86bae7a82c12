"""Run a kedro pipeline whose catalog has Delta tables: overwrite and append."""

import logging
import sys

import pandas as pd


def extract():
    """Return the sales of a day."""
    return pd.DataFrame({"id": [1, 2], "amount": [10.0, 20.0]})


def double(sales):
    """Return the sales at twice the price."""
    return sales.assign(amount=sales["amount"] * 2)


def main(lake):
    """Run the pipeline twice."""
    logging.disable(logging.INFO)  # kedro logs to standard output, also when it is imported
    from kedro.io import DataCatalog
    from kedro.pipeline import node, pipeline
    from kedro.runner import SequentialRunner
    from kedro_datasets.pandas import DeltaTableDataset

    steps = pipeline([node(extract, None, "sales"), node(double, "sales", "totals")])
    for _ in range(2):
        sales = DeltaTableDataset(filepath=f"{lake}/sales")
        totals = DeltaTableDataset(filepath=f"{lake}/totals", save_args={"mode": "append"})
        SequentialRunner().run(steps, DataCatalog({"sales": sales, "totals": totals}))
    loaded = DeltaTableDataset(filepath=f"{lake}/totals").load()
    print(len(loaded), loaded["amount"].sum())


main(sys.argv[1])
