"""Load daily sales with polars: create, append, merge, overwrite."""

import sys

import polars as pl

table = f"{sys.argv[1]}/sales"
day = pl.DataFrame({"id": [1, 2], "amount": [10.0, 20.0]})

day.write_delta(table)
day.with_columns(pl.col("id") + 2).write_delta(table, mode="append")
(
    pl.DataFrame({"id": [2, 9], "amount": [25.0, 90.0]})
    .write_delta(
        table,
        mode="merge",
        delta_merge_options={
            "predicate": "s.id = t.id",
            "source_alias": "s",
            "target_alias": "t",
        },
    )
    .when_matched_update_all()
    .when_not_matched_insert_all()
    .execute()
)
print(pl.read_delta(table).sort("id").rows())
pl.scan_delta(table).filter(pl.col("amount") > 15).collect().write_delta(table, mode="overwrite")
print(pl.read_delta(table).height)
