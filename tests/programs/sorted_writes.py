"""Write sorted, windowed and joined frames over Delta tables of many files."""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from deltawitness import ObservedSessionContext

FILES = 80


def write_each_way(folder, connection):
    """Write by a frame, by SQL and by a merge; send the number of rows after each."""
    source = f"{folder}/source"
    for number in range(FILES):
        write_deltalake(source, pa.table({"id": pa.array([number, 7], pa.int64())}), mode="append")
    ctx = ObservedSessionContext()
    ctx.register_delta("source", source)
    for name in ("inserted", "merged"):
        write_deltalake(f"{folder}/{name}", pa.table({"id": pa.array([-1], pa.int64())}))
        ctx.register_delta(name, f"{folder}/{name}")
    windowed = ctx.sql("SELECT id, count(*) OVER () AS n FROM source")
    windowed.write_delta(f"{folder}/windowed")
    ctx.sql(
        "INSERT INTO inserted SELECT a.id FROM source a JOIN source b ON a.id = b.id + 1"
        " UNION ALL (SELECT id FROM source ORDER BY id LIMIT 1000)"
    ).collect()
    ctx.sql(
        "MERGE INTO merged USING (SELECT DISTINCT id FROM source ORDER BY id LIMIT 1000) AS s"
        " ON merged.id = s.id WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)"
    ).collect()
    tables = [DeltaTable(f"{folder}/{name}") for name in ("windowed", "inserted", "merged")]
    connection.send([table.count() for table in tables])
