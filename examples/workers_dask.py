"""Append the sales of three shops in workers of a Dask cluster, and print what is known of each write.

    python examples/workers_dask.py LAKE [SCHEDULER]

Without the address of a scheduler, this program starts a cluster, which needs no line. The workers of a
cluster that existed before need one: `client.register_plugin(DeltaWitnessPlugin())`.
"""

from __future__ import annotations

import sys

import pyarrow as pa
from deltalake import write_deltalake
from opentelemetry import trace
from workers_evidence import observe, print_writes

from deltawitness import cache_context, run
from deltawitness.integrations.dask import DeltaWitnessPlugin
from distributed import Client, LocalCluster

SHOPS = ("north", "south", "west")


def load(lake: str, shop: str) -> None:
    """Append the sales of a shop; it runs in a worker, and has no line for observation."""
    write_deltalake(f"{lake}/{shop}", pa.table({"id": [1, 2]}), mode="append")


def main(lake: str, *address: str) -> None:
    observe(lake)
    if address:
        client = Client(address[0])
        client.register_plugin(DeltaWitnessPlugin())
    else:
        cluster = LocalCluster(n_workers=2, dashboard_address="127.0.0.1:0", host="127.0.0.1")
        client = Client(cluster)
    with run("sales") as context, cache_context(policy="nightly"):
        span = trace.get_current_span()
        client.gather([client.submit(load, lake, shop, pure=False) for shop in SHOPS])
    print_writes(lake, context, span)
    client.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
