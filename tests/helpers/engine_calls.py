"""A call of each method of the engine's classes, and calls that fail."""

from __future__ import annotations

import asyncio

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from datafusion import (
    DataFrame,
    ExplainFormat,
    ParquetWriterOptions,
    SessionContext,
    SQLOptions,
    col,
    lit,
)
from datafusion import functions as f
from datafusion.catalog import Catalog, Schema

from helpers.observed_sessions import BATCH, DATA, NESTED
from helpers.session_calls import SESSION_CALLS, deprecated, filled_schema


def written(write, path):
    """The result of a write and the files that it wrote."""
    result = write(path)
    files = [path] if path.is_file() else sorted(path.iterdir())
    return result, [
        pq.read_table(file) if file.suffix == ".parquet" else file.read_text() for file in files
    ]


async def batches_of(frame):
    return [batch async for batch in frame]


FRAME_CALLS = {
    "__aiter__": lambda ctx, at: asyncio.run(batches_of(ctx.table("t"))),
    "__arrow_c_stream__": lambda ctx, at: (
        pa.table(ctx.table("t")),
        pa.RecordBatchReader.from_stream(ctx.table("t")).read_all(),
        ctx.table("t").__arrow_c_stream__(None),
        pa.RecordBatchReader.from_stream(ctx.table("t"), pa.schema([("a", "int64")])).read_all(),
        pl.from_arrow(ctx.table("t")),
        pd.DataFrame.from_arrow(ctx.table("t")),
    ),
    "__getitem__": lambda ctx, at: (ctx.table("t")["a"], ctx.table("t")[["a", "b"]]),
    "__iter__": lambda ctx, at: (list(ctx.table("t")), iter(ctx.table("t")), *ctx.table("t")),
    "__repr__": lambda ctx, at: (
        repr(ctx.table("t")),
        str(ctx.table("t").limit(0)),
        f"{ctx.table('t')}",
    ),
    "_repr_html_": lambda ctx, at: ctx.table("t")._repr_html_(),
    "aggregate": lambda ctx, at: (
        ctx.table("t").aggregate("b", [f.sum(col("a")).alias("z")]),
        ctx.table("t").aggregate(group_by=None, aggs=f.max(col("a"))),
    ),
    "alias": lambda ctx, at: ctx.table("t").alias("u").select(col("u.a")),
    "cache": lambda ctx, at: ctx.table("t").filter("a > 1").cache(),
    "cast": lambda ctx, at: ctx.table("t").cast({"a": pa.float32(), "b": pa.string()}),
    "col": lambda ctx, at: ctx.table("t").col("a"),
    "collect": lambda ctx, at: ctx.table("t").collect(),
    "collect_column": lambda ctx, at: ctx.table("t").collect_column("a"),
    "collect_partitioned": lambda ctx, at: ctx.table("t").collect_partitioned(),
    "column": lambda ctx, at: ctx.table("t").column("a"),
    "count": lambda ctx, at: ctx.table("t").count(),
    "default_str_repr": lambda ctx, at: (
        type(ctx.table("t")).default_str_repr([BATCH], BATCH.schema, has_more=True, table_uuid="t"),
        ctx.table("t").default_str_repr([], BATCH.schema, has_more=False, table_uuid="t"),
    ),
    "describe": lambda ctx, at: ctx.table("t").describe(),
    "distinct": lambda ctx, at: ctx.table("t").union(ctx.table("t")).select("a").distinct(),
    "distinct_on": lambda ctx, at: ctx.table("t").distinct_on(
        [col("a") > 1], [col("a"), col("b")], [(col("a") > 1).sort(), col("a").sort()]
    ),
    "drop": lambda ctx, at: ctx.table("t").drop("a", "c"),
    "except_all": lambda ctx, at: ctx.table("t").select("a").except_all(ctx.table("o").select("a")),
    "execute_stream": lambda ctx, at: (
        ctx.table("t").execute_stream(),
        next(ctx.table("t").execute_stream()),
        ctx.table("t").execute_stream().next(),
    ),
    "execute_stream_partitioned": lambda ctx, at: ctx.table("t").execute_stream_partitioned(),
    "execution_plan": lambda ctx, at: ctx.table("t").execution_plan(),
    "explain": lambda ctx, at: (
        ctx.table("t").filter("a > 1").explain(),
        ctx.table("t").explain(verbose=False, format=ExplainFormat.TREE),
    ),
    "fill_nan": lambda ctx, at: (
        ctx.table("t").fill_nan(9.5),
        ctx.table("t").fill_nan(9.5, subset=[]),
        ctx.table("t").fill_nan(9.5, ["c"]),
    ),
    "fill_null": lambda ctx, at: (
        ctx.table("t").fill_null(value=0),
        ctx.table("t").fill_null(0, subset=[]),
        ctx.table("t").fill_null("-", ["b"]),
    ),
    "filter": lambda ctx, at: ctx.table("t").filter(col("a") > 1, "b IS NOT NULL"),
    "find_qualified_columns": lambda ctx, at: ctx.table("t").find_qualified_columns("a", "b"),
    "head": lambda ctx, at: (ctx.table("t").head(2), ctx.table("t").head()),
    "intersect": lambda ctx, at: (
        ctx.table("t").select("a").intersect(ctx.table("o").select("a"), distinct=True)
    ),
    "into_view": lambda ctx, at: (
        ctx.table("t").into_view(),
        ctx.table("t").into_view(temporary=True),
        ctx.register_table("n", ctx.table("t").into_view()),
        ctx.table("n"),
    ),
    "join": lambda ctx, at: (
        ctx.table("t").join(ctx.table("o"), on="a"),
        ctx.table("t").join(right=ctx.table("o"), left_on="a", right_on=["a"], how="left"),
        ctx.table("t").join(ctx.table("o"), on=["a", "b"], how="anti"),
    ),
    "join_on": lambda ctx, at: (
        ctx.table("t")
        .alias("l")
        .join_on(ctx.table("o").alias("r"), col("l.a") < col("r.a"), how="inner")
        .select(col("l.a"), col("r.b"))
    ),
    "limit": lambda ctx, at: (ctx.table("t").limit(1, offset=1), ctx.table("t").limit(count=2)),
    "logical_plan": lambda ctx, at: ctx.table("t").filter("a > 1").logical_plan(),
    "optimized_logical_plan": lambda ctx, at: ctx.table("t").select("a").optimized_logical_plan(),
    "parse_sql_expr": lambda ctx, at: ctx.table("t").parse_sql_expr("a + 1 > 2"),
    "repartition": lambda ctx, at: ctx.table("t").repartition(3),
    "repartition_by_hash": lambda ctx, at: ctx.table("t").repartition_by_hash("a", num=3),
    "schema": lambda ctx, at: ctx.table("t").schema(),
    "select": lambda ctx, at: (
        ctx.table("t").select("a", (col("a") * 2).alias("z")),
        ctx.table("t").select(),
    ),
    "select_exprs": lambda ctx, at: ctx.table("t").select_exprs("a + 1 AS z", "b"),
    "show": lambda ctx, at: (ctx.table("t").show(), ctx.table("t").show(num=1)),
    "sort": lambda ctx, at: (
        ctx.table("t").sort(col("a").sort(ascending=False)).to_pylist(),
        ctx.table("t").sort("b", col("a")).to_pylist(),
    ),
    "sort_by": lambda ctx, at: ctx.table("t").sort_by("b", col("a")).to_pylist(),
    "tail": lambda ctx, at: (ctx.table("t").tail(2), ctx.table("t").tail(n=9)),
    "to_arrow_table": lambda ctx, at: ctx.table("t").to_arrow_table(),
    "to_pandas": lambda ctx, at: ctx.table("t").to_pandas(),
    "to_polars": lambda ctx, at: ctx.table("t").to_polars(),
    "to_pydict": lambda ctx, at: ctx.table("t").to_pydict(),
    "to_pylist": lambda ctx, at: ctx.table("t").to_pylist(),
    "transform": lambda ctx, at: ctx.table("t").transform(lambda frame, n: frame.limit(n), 2),
    "union": lambda ctx, at: (
        ctx.table("t").union(ctx.table("o")),
        ctx.table("t").union(other=ctx.table("t"), distinct=True),
    ),
    "union_by_name": lambda ctx, at: ctx.table("t").union_by_name(
        ctx.table("o").select("c", "a", "b")
    ),
    "union_distinct": deprecated(lambda ctx, at: ctx.table("t").union_distinct(ctx.table("t"))),
    "unnest_columns": lambda ctx, at: (
        ctx.from_arrow(NESTED).unnest_columns("tags"),
        ctx.from_arrow(NESTED).unnest_columns("tags", preserve_nulls=False),
    ),
    "window": lambda ctx, at: ctx.table("t").window(
        f.row_number(order_by=[col("a").sort(ascending=False)]).alias("z")
    ),
    "with_column": lambda ctx, at: (
        ctx.table("t").with_column("z", "a * 2"),
        ctx.table("t").with_column(name="a", expr=lit(1)),
    ),
    "with_column_renamed": lambda ctx, at: ctx.table("t").with_column_renamed("a", "z"),
    "with_columns": lambda ctx, at: ctx.table("t").with_columns(
        (col("a") + 1).alias("y"), ["a + 2 AS x"], z="a * 3"
    ),
    "write_csv": lambda ctx, at: (
        written(ctx.table("t").write_csv, at.out / "a.csv"),
        written(lambda path: ctx.table("t").write_csv(path, with_header=True), at.out / "b.csv"),
    ),
    "write_json": lambda ctx, at: written(ctx.table("t").write_json, at.out / "t.json"),
    "write_parquet": lambda ctx, at: (
        written(lambda path: ctx.table("t").write_parquet(path, "snappy"), at.out / "a.parquet"),
        written(
            lambda path: ctx.table("t").write_parquet(path=path, compression="lz4"),
            at.out / "b.parquet",
        ),
        written(
            lambda path: ctx.table("t").write_parquet(str(path), ParquetWriterOptions()),
            at.out / "c.parquet",
        ),
    ),
    "write_parquet_with_options": lambda ctx, at: written(
        lambda path: ctx.table("t").write_parquet_with_options(path, ParquetWriterOptions()),
        at.out / "t.parquet",
    ),
    "write_table": lambda ctx, at: (
        ctx.sql("CREATE TABLE n AS SELECT * FROM t WHERE false"),
        ctx.table("t").write_table("n"),
        ctx.table("t").write_table(table_name="n"),
        ctx.table("n"),
    ),
}

CATALOG_CALLS = {
    "__repr__": lambda ctx, at: (repr(ctx.catalog()), str(ctx.catalog())),
    "deregister_schema": lambda ctx, at: (
        ctx.sql("CREATE SCHEMA s"),
        ctx.catalog().deregister_schema("s"),
        ctx.catalog().schema_names(),
    ),
    "memory_catalog": lambda ctx, at: Catalog.memory_catalog(ctx),
    "names": lambda ctx, at: ctx.catalog().names(),
    "register_schema": lambda ctx, at: (
        ctx.catalog().register_schema("s", filled_schema()),
        ctx.table("s.n"),
        ctx.catalog().register_schema("r", ctx.catalog().schema("s")),
        ctx.table("r.n"),
    ),
    "schema": lambda ctx, at: (
        ctx.catalog().schema(),
        ctx.catalog().schema(name="public"),
    ),
    "schema_names": lambda ctx, at: ctx.catalog().schema_names(),
}

SCHEMA_CALLS = {
    "__repr__": lambda ctx, at: repr(ctx.catalog().schema()),
    "deregister_table": lambda ctx, at: (
        ctx.catalog().schema().deregister_table("t"),
        ctx.table_exist("t"),
    ),
    "memory_schema": lambda ctx, at: Schema.memory_schema(ctx),
    "names": lambda ctx, at: ctx.catalog().schema().names(),
    "register_table": lambda ctx, at: (
        ctx.catalog().schema().register_table("n", ds.dataset(DATA)),
        ctx.table("n"),
        ctx.catalog().schema().register_table(name="m", table=ctx.table("t").limit(1)),
        ctx.table("m"),
    ),
    "table": lambda ctx, at: ctx.catalog().schema().table("t"),
    "table_exist": lambda ctx, at: (
        ctx.catalog().schema().table_exist("t"),
        ctx.catalog().schema().table_exist(name="none"),
    ),
    "table_names": lambda ctx, at: ctx.catalog().schema().table_names(),
}

CALLS = {
    SessionContext: SESSION_CALLS,
    DataFrame: FRAME_CALLS,
    Catalog: CATALOG_CALLS,
    Schema: SCHEMA_CALLS,
}

FAILING_CALLS = {
    "a catalog that is not there": lambda ctx: ctx.catalog("none"),
    "a codec without a capsule": lambda ctx: ctx.with_logical_extension_codec(object()),
    "a column that is not there": lambda ctx: ctx.table("t").select("none"),
    "a compression that is none": lambda ctx: ctx.table("t").write_parquet("p", "none of these"),
    "a file that is not there": lambda ctx: ctx.read_csv("/none.csv"),
    "a function that is not there": lambda ctx: ctx.udf("none"),
    "a join without a key": lambda ctx: ctx.table("t").join(ctx.table("o")),
    "a limit that is none": lambda ctx: ctx.parse_capacity_limit("memory", "much"),
    "a name that is taken": lambda ctx: ctx.register_table("t", ds.dataset(DATA)),
    "a name that is taken by from_pydict": lambda ctx: ctx.from_pydict({"z": [1]}, "t"),
    "a name that is taken by a view": lambda ctx: ctx.register_view("t", ctx.table("o")),
    "a name that is taken in a schema": lambda ctx: (
        ctx.catalog().schema().register_table("t", ds.dataset(DATA))
    ),
    "a planner without a capsule": lambda ctx: ctx.set_query_planner(object()),
    "a query that divides by zero": lambda ctx: ctx.sql("SELECT 1 / (a - a) FROM t").collect(),
    "a schema in use": lambda ctx: (
        ctx.deregister_table("o"),
        ctx.catalog().deregister_schema("public", cascade=False),
    ),
    "a schema that is not there": lambda ctx: ctx.catalog().schema("none"),
    "a statement that does not parse": lambda ctx: ctx.sql("SELEKT"),
    "a statement that is no text": lambda ctx: ctx.sql(7),
    "a statement that is not allowed": lambda ctx: ctx.sql(
        "DROP TABLE t", SQLOptions().with_allow_ddl(allow=False)
    ),
    "a table that is not there": lambda ctx: ctx.table("none"),
    "a table that is not there to be written": lambda ctx: ctx.table("t").write_table("none"),
    "a table that is none": lambda ctx: ctx.register_table("n", object()),
    "a table that nobody reads": lambda ctx: ctx.read_table(object()),
    "an attribute that is not there": lambda ctx: ctx.none,
    "an attribute of a frame that is not there": lambda ctx: ctx.table("t").none,
    "an extension that is none": lambda ctx: ctx.with_extensions(object()),
    "rows that cannot be cast": lambda ctx: ctx.sql("SELECT CAST('x' AS INT)").to_pydict(),
    "too many arguments": lambda ctx: ctx.table("t").limit(1, 2, 3),
}
"""Calls that fail: with the engine's own error, of its own class."""
