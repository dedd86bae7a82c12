"""Cache views of the lakehouse: compute all of them, serve all of them, then recompute the changed ones.

Run lakehouse.py first: it creates the tables.

    python examples/cached_lakehouse.py [DIRECTORY]
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from lakehouse import read

from deltawitness import DeltaCache, ObservedSessionContext, run

VIEWS = {
    "delays_by_carrier": """
        SELECT a.name, count(*) AS flights, avg(f.arr_delay) AS delay
        FROM flights f JOIN airlines a ON f.carrier = a.carrier GROUP BY a.name""",
    "routes": """
        SELECT f.origin, a.name AS destination, count(*) AS flights, sum(f.distance) AS miles
        FROM flights f JOIN airports a ON f.dest = a.faa GROUP BY f.origin, a.name""",
    "late_carriers": "SELECT name, delay FROM delays_by_carrier WHERE delay > 10",  # over a view
    "old_planes": "SELECT manufacturer, count(*) AS planes FROM planes WHERE year < 1990 GROUP BY 1",
    "windy_hours": "SELECT origin, time_hour, wind_speed FROM weather WHERE wind_speed > 30",
    "high_airports": "SELECT name, alt FROM airports WHERE alt > 5000",
}
TABLES = ("airlines", "airports", "flights", "planes", "weather")


def session(lake: Path) -> ObservedSessionContext:
    ctx = ObservedSessionContext()
    for name in TABLES:
        ctx.register_delta(name, lake / name)
    return ctx


def ask(cache: DeltaCache, title: str) -> None:
    """Query every view, and print whether the cache served it, or why it did not."""
    with run(title):
        print(f"{title}:")
        for name, query in VIEWS.items():
            is_cached = any(entry.name == name for entry in cache.list())
            explanation = str(cache.explain(name)) if is_cached else f"{name}: miss (absent)"
            started = time.perf_counter()
            rows = cache.view(name, query).count()
            print(
                f"  {explanation}; {rows:,} rows in {(time.perf_counter() - started) * 1e3:.0f} ms"
            )


def diverted(flights: pa.Table) -> pa.Table:
    """Return the flights that departed but did not reach their destination."""
    has_left, has_arrived = pc.is_valid(flights["dep_time"]), pc.is_valid(flights["air_time"])
    return flights.filter(pc.and_(has_left, pc.invert(has_arrived)))


def append_late_batch(ctx: ObservedSessionContext) -> None:
    flights = read("flights")
    flights = flights.append_column("key", pa.array(range(flights.num_rows), pa.int64()))
    late = diverted(flights)
    ctx.from_arrow(late, name="late")
    ctx.sql("INSERT INTO flights SELECT * FROM late").collect()
    print(f"a late batch: {late.num_rows:,} flights")


def main() -> None:
    lake = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output/lakehouse")
    root = lake.with_name(f"{lake.name}-cache")
    shutil.rmtree(root, ignore_errors=True)
    ctx = session(lake)
    cache = DeltaCache(ctx, root)
    ask(cache, "first pass")
    ask(cache, "second pass")
    append_late_batch(ctx)
    ask(cache, "after the late batch")


if __name__ == "__main__":
    main()
