"""Append the sales of three shops in workers of joblib, and print what is known of each write.

    python examples/workers_joblib.py LAKE

The workers need no line: joblib starts them, and they are observed as this process is.
"""

from __future__ import annotations

import sys

import joblib
import pyarrow as pa
from deltalake import write_deltalake
from opentelemetry import trace
from workers_evidence import observe, print_writes

from deltawitness import cache_context, run

SHOPS = ("north", "south", "west")


def load(lake: str, shop: str) -> None:
    """Append the sales of a shop; it runs in a worker, and has no line for observation."""
    write_deltalake(f"{lake}/{shop}", pa.table({"id": [1, 2]}), mode="append")


def main(lake: str) -> None:
    observe(lake)
    with run("sales") as context, cache_context(policy="nightly"):
        span = trace.get_current_span()
        joblib.Parallel(n_jobs=2)(joblib.delayed(load)(lake, shop) for shop in SHOPS)
    print_writes(lake, context, span)


if __name__ == "__main__":
    main(*sys.argv[1:])
