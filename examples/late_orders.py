"""Insert a late order, so that the tables that were made from the orders are stale."""

from __future__ import annotations

import sys

from deltawitness import ObservedSessionContext

if __name__ == "__main__":
    ctx = ObservedSessionContext()
    ctx.register_delta("orders", f"{sys.argv[1]}/orders")
    ctx.sql("INSERT INTO orders VALUES (5, 50)").collect()
