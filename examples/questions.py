"""Load orders, correct them, and fail once: a program that leaves something to ask about."""

from __future__ import annotations

import sys

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from deltawitness import run


def load(orders: str) -> None:
    write_deltalake(orders, pa.table({"id": [1, 2, 3], "euros": [10, 20, -30]}))
    more = pa.table({"id": [4], "euros": [40]})
    write_deltalake(orders, more, mode="append")


def correct(orders: str) -> None:
    DeltaTable(orders).delete("euros < 0")


def refund(orders: str) -> None:
    write_deltalake(orders, pa.table({"id": ["five"]}), mode="append")


if __name__ == "__main__":
    place = sys.argv[1]
    load(place)
    with run("correction", message="no negative amounts"):
        correct(place)
    try:
        refund(place)
    except DeltaError:
        print("the refund failed")
