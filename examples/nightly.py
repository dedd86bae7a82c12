"""Load deliveries of flights, and derive two tables from them: a job that a scheduler starts each night.

    python examples/nightly.py LAKE FOLDER DAY...

FOLDER has a CSV file for each day.
"""

from __future__ import annotations

import sys

from deltalake import write_deltalake
from pyarrow import csv

from deltawitness import ObservedSessionContext, run

MISSING = csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)


def load(lake: str, delivery: str) -> None:
    flights = csv.read_csv(delivery, convert_options=MISSING)
    write_deltalake(f"{lake}/flights", flights, mode="append")


def summarize(lake: str, day: int) -> None:
    ctx = ObservedSessionContext()
    ctx.register_delta("flights", f"{lake}/flights")
    daily = ctx.sql(
        "SELECT day, carrier, count(*) AS flights, max(arr_delay) AS arr_delay"
        f" FROM flights WHERE day = {day} GROUP BY day, carrier"
    )
    write_deltalake(f"{lake}/daily", daily, mode="append")


def report(lake: str) -> None:
    ctx = ObservedSessionContext()
    ctx.register_delta("daily", f"{lake}/daily")
    worst = ctx.sql(
        "SELECT carrier, sum(flights) AS flights, max(arr_delay) AS arr_delay"
        " FROM daily GROUP BY carrier ORDER BY arr_delay DESC, carrier LIMIT 5"
    )
    write_deltalake(f"{lake}/report", worst, mode="overwrite")


def main() -> None:
    lake, folder, *days = sys.argv[1:]
    for day in map(int, days):
        delivery = f"{folder}/2013-01-{day:02}.csv"
        with run("load", message=delivery):
            load(lake, delivery)
        with run("daily"):
            summarize(lake, day)
        with run("report"):
            report(lake)


if __name__ == "__main__":
    main()
