"""A notebook-style script: write and read a year of flights in Delta tables with SQL only.

Run it cell by cell in an editor that supports `# %%`, or as a script:

    python examples/sql_notebook.py [DIRECTORY]
"""

# %% The import of the session is the only difference from a program with plain DataFusion.
from __future__ import annotations

import shutil
import sys
from pathlib import Path

from datafusion import col
from datafusion import functions as f
from lakehouse import read

from deltawitness import ObservedSessionContext as SessionContext
from deltawitness import read_commit_metadata, run

lake = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output/notebook").absolute()
shutil.rmtree(lake, ignore_errors=True)
ctx = SessionContext()

# %% Create a table with SQL, and fill it from a registered Arrow table.
ctx.from_arrow(read("flights"), name="raw")
ctx.sql(f"""
    CREATE EXTERNAL TABLE flights (
        month INT, day INT, carrier VARCHAR, flight INT, origin VARCHAR, dest VARCHAR,
        dep_delay DOUBLE, arr_delay DOUBLE, status VARCHAR DEFAULT 'flown'
    ) STORED AS DELTATABLE PARTITIONED BY (month) LOCATION '{lake}/flights'
""")
load = ctx.sql("""
    INSERT INTO flights (month, day, carrier, flight, origin, dest, dep_delay, arr_delay)
    SELECT month, day, carrier, flight, origin, dest, dep_delay, arr_delay FROM raw
""")
load  # displaying the frame shows the statement and inserts nothing

# %% show() and collect() run the statement, once.
load.show()

# %% Corrections in SQL that delta-rs alone cannot evaluate.
ctx.from_arrow(read("airlines"), name="airlines")
ctx.sql("UPDATE flights SET status = 'cancelled' WHERE dep_delay IS NULL").show()
ctx.sql("""
    DELETE FROM flights
    WHERE carrier IN (SELECT carrier FROM airlines WHERE name LIKE '%Mesa%')
""").show()

# %% A view, a summary table, and an upsert into it.
ctx.sql("CREATE VIEW late AS SELECT * FROM flights WHERE arr_delay > 120")
ctx.sql(f"""
    CREATE TABLE by_carrier STORED AS DELTATABLE LOCATION '{lake}/by_carrier' AS
    SELECT carrier, count(*) AS late_flights FROM late WHERE month <= 6 GROUP BY carrier
""")
ctx.sql("""
    MERGE INTO by_carrier AS t
    USING (SELECT carrier, count(*) AS n FROM late WHERE month > 6 GROUP BY carrier) AS s
    ON t.carrier = s.carrier
    WHEN MATCHED THEN UPDATE SET late_flights = t.late_flights + s.n
    WHEN NOT MATCHED THEN INSERT (carrier, late_flights) VALUES (s.carrier, s.n)
""").show()

# %% DataFrames can write as well.
with run("worst-routes") as this_run:
    worst = (
        ctx.table("late")
        .aggregate([col("origin"), col("dest")], [f.count_star().alias("n")])
        .sort(col("n").sort(ascending=False), col("dest").sort())
        .limit(5)
    )
    worst.show()
    worst.write_delta(lake / "worst_routes")

# %% The metadata of a commit: the run that made it, and its input tables.
commit = read_commit_metadata(lake / "worst_routes")
assert commit.run_id == this_run.run_id
print("made by run of job", this_run.job, "from", len(commit.metadata["inputs"]), "Delta table")

# %% Maintenance, history and restore.
ctx.sql("OPTIMIZE flights ZORDER BY (carrier, dest)").show()
ctx.sql("DESCRIBE HISTORY flights").select("version", "operation").show()
ctx.sql("RESTORE flights TO VERSION 1").collect()
left = ctx.sql("SELECT count(*) AS n FROM flights").to_pydict()["n"][0]
print(f"{left:,} flights, as they were loaded")
