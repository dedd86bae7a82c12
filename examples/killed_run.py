"""A program that is killed half-way: it writes a week of orders, and is killed on Thursday after a commit.

It writes a Delta table with delta-rs, without any code for observation.

    python examples/killed_run.py TABLE [FOLDER]

FOLDER is deleted just before the kill, with everything in it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")


def orders_of(day: str) -> pa.Table:
    return pa.table({"day": [day] * 4, "number": [1, 2, 3, 4], "euros": [10, 25, 40, 0]})


def main() -> None:
    table = sys.argv[1]
    for day in DAYS:
        write_deltalake(table, orders_of(day), mode="append")
        if day == "wednesday":
            DeltaTable(table).delete("euros = 0")
        if day == "thursday":
            for folder in sys.argv[2:]:
                shutil.rmtree(folder)
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
