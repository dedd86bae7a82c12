"""Load the flights and the weather of months, and derive two tables from them: a job of the tour.

    python examples/monthly.py LAKE [--raw] MONTH...

With --raw, the flights are read without the text that their file has for a missing value.
"""

from __future__ import annotations

import sys

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import write_deltalake
from lakehouse import read
from pyarrow import csv

from deltawitness import ObservedSessionContext, run

RAW = csv.ConvertOptions(null_values=[""])

DELAYS = """
    SELECT f.month, f.carrier, count(*) AS flights, avg(f.arr_delay) AS delay, max(w.wind_speed) AS wind
    FROM flights f JOIN weather w ON f.origin = w.origin AND f.time_hour = w.time_hour
    WHERE f.month = {month} AND f.arr_delay IS NOT NULL GROUP BY f.month, f.carrier
"""
WORST = """
    SELECT carrier, sum(flights) AS flights, avg(delay) AS delay FROM delays
    GROUP BY carrier ORDER BY delay DESC, carrier LIMIT 5
"""


def load(lake: str, name: str, rows: pa.Table, month: int) -> None:
    of_month = rows.filter(pc.equal(rows["month"], month))
    write_deltalake(f"{lake}/{name}", of_month, mode="append")


def derive(lake: str, name: str, query: str, inputs: list[str], mode: str) -> None:
    ctx = ObservedSessionContext()
    for table in inputs:
        ctx.register_delta(table, f"{lake}/{table}")
    write_deltalake(f"{lake}/{name}", ctx.sql(query), mode=mode)


def main() -> None:
    lake, *chosen = sys.argv[1:]
    flights = read("flights", RAW) if "--raw" in chosen else read("flights")
    weather = read("weather")
    for month in (int(each) for each in chosen if each != "--raw"):
        with run("load", message=f"2013-{month:02}"):
            load(lake, "weather", weather, month)
            load(lake, "flights", flights, month)
        with run("delays"):
            derive(lake, "delays", DELAYS.format(month=month), ["flights", "weather"], "append")
        with run("worst"):
            derive(lake, "worst", WORST, ["delays"], "overwrite")


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001 - delta-rs raises this class for a failed cast
        sys.exit(str(error))
