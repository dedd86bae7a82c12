"""Append the sales of three shops in tasks of Ray, and print what is known of each write.

    python examples/workers_ray.py LAKE [ADDRESS]

Without the address of a cluster, this program starts one. The workers of both need one line:
`ray.init(runtime_env=runtime_env())`.
"""

from __future__ import annotations

import sys

import pyarrow as pa
import ray
from deltalake import write_deltalake
from opentelemetry import trace
from workers_evidence import observe, print_writes

from deltawitness import cache_context, run
from deltawitness.integrations.ray import runtime_env

SHOPS = ("north", "south", "west")


def load(lake: str, shop: str) -> None:
    """Append the sales of a shop; it runs in a worker, and has no line for observation."""
    write_deltalake(f"{lake}/{shop}", pa.table({"id": [1, 2]}), mode="append")


def main(lake: str, *address: str) -> None:
    observe(lake)
    where = {"address": address[0]} if address else {"address": "local", "num_cpus": 2}
    ray.init(**where, runtime_env=runtime_env(), log_to_driver=False, _node_ip_address="127.0.0.1")
    with run("sales") as context, cache_context(policy="nightly"):
        span = trace.get_current_span()
        ray.get([ray.remote(load).remote(lake, shop) for shop in SHOPS])
    print_writes(lake, context, span)
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
