"""Append a late order, so that the tables that were made from the orders are stale."""

from __future__ import annotations

import sys

import pyarrow as pa
from deltalake import write_deltalake

if __name__ == "__main__":
    late = pa.table({"id": [5], "euros": [50]})
    write_deltalake(f"{sys.argv[1]}/orders", late, mode="append")
