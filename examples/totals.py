"""Sum the orders with SQL, and copy the sums in another run: writes with exact and with inferred inputs."""

from __future__ import annotations

import sys

from deltalake import DeltaTable, write_deltalake

from deltawitness import ObservedSessionContext, run


def compact(lake: str) -> None:
    DeltaTable(f"{lake}/orders").optimize.compact()


def total(lake: str) -> None:
    ctx = ObservedSessionContext()
    ctx.register_delta("orders", f"{lake}/orders")
    sums = ctx.sql("SELECT count(*) AS orders, sum(euros) AS euros FROM orders")
    write_deltalake(f"{lake}/totals", sums, mode="overwrite")


def report(lake: str) -> None:
    rows = DeltaTable(f"{lake}/totals").to_pyarrow_table()
    write_deltalake(f"{lake}/report", rows, mode="overwrite")


if __name__ == "__main__":
    folder = sys.argv[1]
    compact(folder)
    total(folder)
    with run("report"):
        report(folder)
