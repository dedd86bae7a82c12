"""A program in the style of DataFusion's documentation; its output is the same at each run.

It works in the current directory, which must be empty, and has no code for observation.
"""

import asyncio
import copy
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from datafusion import SessionContext

# isort: split
from datafusion import (
    Accumulator,
    DataFrame,
    RuntimeEnvBuilder,
    SessionConfig,
    SQLOptions,
    WindowFrame,
    col,
    column,
    lit,
    literal,
    udaf,
    udf,
    udtf,
    udwf,
)
from datafusion import functions as f
from datafusion.catalog import Catalog, Schema, Table
from datafusion.expr import Window
from datafusion.plan import LogicalPlan
from datafusion.substrait import Consumer, Producer, Serde
from datafusion.unparser import Dialect, Unparser
from datafusion.user_defined import WindowEvaluator
from deltalake import DeltaTable, write_deltalake

if any(Path.cwd().iterdir()):
    raise SystemExit("the current directory is not empty, and this program writes into it")


def title(text: str) -> None:
    """Print the title of a section."""
    print(f"\n== {text}")


def rows(frame: DataFrame) -> None:
    """Print the rows of a frame, sorted."""
    for row in sorted(map(str, frame.to_pylist())):
        print(row)


# --- a session ------------------------------------------------------------------------------------

config = (
    SessionConfig()
    .with_create_default_catalog_and_schema(enabled=True)
    .with_default_catalog_and_schema("datafusion", "public")
    .with_target_partitions(2)
    .with_information_schema(enabled=True)
    .with_repartition_joins(enabled=False)
    .with_parquet_pruning(enabled=True)
    .set("datafusion.execution.parquet.pushdown_filters", "true")
)
runtime = RuntimeEnvBuilder().with_disk_manager_os().with_fair_spill_pool(1_000_000_000)
ctx = SessionContext(config, runtime)

title("session")
print(isinstance(ctx, SessionContext), len(ctx.session_id()), ctx.enable_ident_normalization())
print(str(ctx).split(":")[0], ctx.catalog_names())
rows(ctx.sql("SHOW datafusion.execution.target_partitions"))

# --- data sources -----------------------------------------------------------------------------------

title("data sources")
df = ctx.from_pydict({"a": [1, 2, 3], "b": [4, 5, 6]}, name="ab")
df.show()
print(df)
rows(ctx.from_pylist([{"a": 1, "b": "x"}, {"a": 2, "b": None}]))
rows(ctx.from_arrow(pa.table({"n": [1, None]}), name="arrow"))
rows(ctx.from_pandas(df.to_pandas()))
rows(ctx.from_polars(df.to_polars()))
batch = pa.RecordBatch.from_pydict({"x": [1, 2], "y": ["one", "two"]})
rows(ctx.create_dataframe([[batch], [batch]], name="batches"))
ctx.register_record_batches("more", [[batch]])
ctx.register_dataset("dataset", ds.dataset(pa.table({"z": [0.5, 1.5]})))
rows(ctx.sql("SELECT sum(z) AS z FROM dataset"))

pokemon = pa.table(
    {
        "Name": ["Bulbasaur", "Charmander", "Squirtle", "Pidgey", "Charizard", "Mewtwo"],
        "Type 1": ["Grass", "Fire", "Water", "Normal", "Fire", "Psychic"],
        "Type 2": ["Poison", None, None, "Flying", "Flying", None],
        "HP": [45, 39, 44, 40, 78, 106],
        "Attack": [49, 52, 48, 45, 84, 110],
        "Speed": [45, 65, 43, 56, 100, 130],
        "Legendary": [False, False, False, False, False, True],
    }
)
pq.write_table(pokemon, "pokemon.parquet")
ctx.register_parquet("pokemon", "pokemon.parquet")
df = ctx.table("pokemon")
print(df.schema().names, df.count())
rows(df.describe().select("describe", '"HP"'))

# --- select, filter, expressions --------------------------------------------------------------------

title("expressions")
rows(df.select('"Name"', (col('"HP"') * 2).alias("twice")).limit(2))
rows(df.select(f.lower(col('"Name"')).alias("name"), f.length(col('"Name"')).alias("n")))
rows(df.filter(col('"HP"') > literal(50), ~col('"Legendary"')).select('"Name"'))
rows(df.filter("\"Type 1\" = 'Fire'")['"Name"'])
rows(df.with_column("total", col('"HP"') + col('"Attack"')).select("total"))
rows(df.with_columns(fast=col('"Speed"') > 60).drop("Type 1", "Type 2").select('"Name"', "fast"))
rows(ctx.table("arrow").fill_null(0, subset=["n"]))
rows(df.with_column_renamed('"Name"', "name").select("name").head(1))
rows(df.select(f.coalesce(col('"Type 2"'), col('"Type 1"')).alias("kind")).distinct())
rows(df.select(f.case(col('"HP"')).when(lit(39), lit("low")).otherwise(lit("other")).alias("h")))
rows(df.select(f.in_list(col('"Type 1"'), [lit("Fire"), lit("Water")]).alias("element")))
print(df.sort(col('"Speed"').sort(ascending=False)).select('"Name"').to_pydict())
print(df.parse_sql_expr('"HP" > 3'), column("a") + lit(1))
rows(ctx.sql("SELECT make_array(1, 2) AS l").select(f.array_append(col("l"), lit(3)).alias("l")))
rows(ctx.sql("SELECT make_array(1, 2) AS l").unnest_columns("l"))

# --- aggregations and windows -------------------------------------------------------------------------

title("aggregations")
kind = col('"Type 1"')
rows(df.aggregate([kind], [f.avg(col('"Speed"')).alias("speed"), f.count(kind).alias("n")]))
rows(df.aggregate([], [f.approx_distinct(kind).alias("kinds"), f.median(col('"HP"')).alias("hp")]))
rows(
    df.aggregate(
        [kind],
        [
            f.first_value(col('"Name"'), order_by=[col('"Attack"')]).alias("weakest"),
            f.max(col('"HP"'), filter=col('"Type 2"').is_null()).alias("hp"),
        ],
    )
)

title("windows")
rows(
    df.select(
        col('"Name"'),
        f.lag(col('"Speed"'), order_by=[col('"Speed"')]).alias("before"),
        f.rank(partition_by=[kind], order_by=[col('"HP"').sort()]).alias("rank"),
    )
)
frame = Window(order_by=[col('"Name"')], window_frame=WindowFrame("rows", 1, 0))
rows(df.select(col('"Name"'), f.sum(col('"HP"')).over(frame).alias("pair")))
rows(ctx.sql('SELECT "Name", row_number() OVER (ORDER BY "HP" DESC) AS place FROM pokemon'))

# --- joins and sets --------------------------------------------------------------------------------------

title("joins")
left = ctx.from_pydict({"customer_id": [1, 2, 3], "customer": ["Alice", "Bob", "Charlie"]}, "l")
right = ctx.from_pydict({"id": [1, 2, 5], "name": ["CityCabs", "MetroRide", "None"]}, "r")
for how in ("inner", "left", "full", "semi", "anti"):
    print(how)
    rows(left.join(right, left_on="customer_id", right_on="id", how=how))
rows(left.join_on(right, col("customer_id") < col("id")).select("customer", "name"))
rows(ctx.sql("SELECT customer FROM l JOIN r ON l.customer_id = r.id WHERE name LIKE '%City%'"))

title("sets")
one, two = ctx.from_pydict({"a": [1, 2, 2]}), ctx.from_pydict({"a": [2, 3]})
rows(one.union(two))
rows(one.union(two, distinct=True))
rows(one.intersect(two))
rows(one.except_all(two))
rows(one.transform(lambda frame, n: frame.limit(n), 1))

# --- SQL: tables, views, statements --------------------------------------------------------------------

title("statements")
ctx.sql("CREATE TABLE numbers (id BIGINT, word VARCHAR) AS VALUES (1, 'one'), (2, 'two')")
insert = ctx.sql("INSERT INTO numbers VALUES (3, 'three')")
print(insert.collect()[0].to_pydict())
print(insert.to_pydict())  # it runs at each terminal call
rows(ctx.table("numbers"))
print(ctx.sql("DELETE FROM numbers WHERE id = 3").to_pydict())
print(ctx.sql("UPDATE numbers SET word = upper(word) WHERE id = 2").to_pydict())
ctx.from_pydict({"id": [9], "word": ["nine"]}).cast({"word": pa.string_view()}).write_table(
    "numbers"
)
rows(ctx.sql("SELECT * FROM numbers"))
rows(ctx.sql("DESCRIBE numbers"))
ctx.sql("CREATE VIEW words AS SELECT word FROM numbers WHERE id < 9")
ctx.register_view("long", ctx.table("words").filter("length(word) >= 3"))
ctx.register_table("as_table", ctx.table("long").into_view())
rows(ctx.sql("SELECT * FROM as_table"))
rows(
    ctx.sql(
        "SELECT table_name, table_type FROM information_schema.tables WHERE table_name = 'long'"
    )
)
ctx.sql("DROP VIEW words")
ctx.deregister_table("as_table")
print(ctx.table_exist("words"), ctx.table_exist("as_table"), ctx.table_exist("long"))

title("parameters")
rows(ctx.sql("SELECT word FROM numbers WHERE id = $id", param_values={"id": 2}))
rows(ctx.sql("SELECT $what FROM $source WHERE id > 1", what="word", source=ctx.table("numbers")))
ctx.sql("PREPARE by_id(BIGINT) AS SELECT word FROM numbers WHERE id = $1")
rows(ctx.sql("EXECUTE by_id(9)"))

title("refusals")
refused = {
    "no table": lambda: ctx.table("nowhere"),
    "no column": lambda: ctx.sql("SELECT nothing FROM numbers"),
    "no statement": lambda: ctx.sql("SELEKT"),
    "not allowed": lambda: ctx.sql_with_options(
        "CREATE TABLE n AS SELECT 1", SQLOptions().with_allow_ddl(allow=False)
    ),
    "taken": lambda: ctx.register_record_batches("more", [[batch]]),
    "no rows": lambda: ctx.sql("SELECT CAST('x' AS BIGINT)").collect(),
}
for name, act in refused.items():
    try:
        act()
    except Exception as error:  # noqa: BLE001 - its class is printed
        print(name, type(error).__name__, str(error).splitlines()[0])

# --- functions of the program ----------------------------------------------------------------------------

title("functions")


def is_null(values: pa.Array) -> pa.Array:
    """Return a mask of the NULL values."""
    return values.is_null()


is_null_of = udf(is_null, [pa.string()], pa.bool_(), "stable", name="is_null_of")
ctx.register_udf(is_null_of)
rows(ctx.table("pokemon").select(is_null_of(col('"Type 2"')).alias("single")))
rows(ctx.sql('SELECT is_null_of("Type 2") AS single, count(*) AS n FROM pokemon GROUP BY 1'))


class Largest(Accumulator):
    """The maximum value."""

    def __init__(self) -> None:
        self._largest = pa.scalar(0, pa.int64())

    def update(self, values: pa.Array) -> None:
        """Update the state with further values."""
        self._largest = pc.max(pa.array([self._largest.as_py(), *values.to_pylist()], pa.int64()))

    def merge(self, states: list[pa.Array]) -> None:
        """Merge the states of other accumulators."""
        self.update(states[0])

    def state(self) -> list[pa.Scalar]:
        """Return the state for other accumulators."""
        return [self._largest]

    def evaluate(self) -> pa.Scalar:
        """Return the result."""
        return self._largest


largest = udaf(Largest, pa.int64(), pa.int64(), [pa.int64()], "immutable", name="largest")
ctx.register_udaf(largest)
rows(ctx.table("pokemon").aggregate([], [largest(col('"HP"')).alias("hp")]))
rows(ctx.sql('SELECT "Type 1" AS t, largest("Attack") AS attack FROM pokemon GROUP BY 1'))


class Smooth(WindowEvaluator):
    """Exponential smoothing: each value with a fraction of the previous result."""

    def evaluate_all(self, values: list[pa.Array], num_rows: int) -> pa.Array:
        """Evaluate an entire partition."""
        result, before = [], 0.0
        for value in values[0].to_pylist():
            before = 0.5 * value + 0.5 * before
            result.append(before)
        return pa.array(result, pa.float64())


smooth = udwf(Smooth, pa.float64(), pa.float64(), "immutable", name="smooth")
ctx.register_udwf(smooth)
rows(ctx.sql("SELECT z, smooth(z) OVER (ORDER BY z) AS s FROM dataset"))


def counting(up_to: object) -> Table:
    """Return a table of the integers below a number."""
    return Table(ds.dataset(pa.table({"n": list(range(up_to.to_variant().value_i64()))})))


ctx.register_udtf(udtf(counting, "counting"))
rows(ctx.sql("SELECT n * n AS square FROM counting(4)"))
print(ctx.udf("is_null_of").name, "largest" in ctx.udafs(), "smooth" in ctx.udwfs())

# --- catalogs and schemas ----------------------------------------------------------------------------------

title("catalogs")
catalog = Catalog.memory_catalog()
schema = Schema.memory_schema()
catalog.register_schema("my_schema", schema)
ctx.register_catalog_provider("my_catalog", catalog)
schema.register_table("numbers", ctx.table("numbers"))
rows(ctx.sql("SELECT count(*) AS n FROM my_catalog.my_schema.numbers"))
ctx.catalog().register_schema("other", Schema.memory_schema())
ctx.catalog("datafusion").schema("other").register_table("t", ds.dataset(pa.table({"q": [1]})))
rows(ctx.sql("SELECT * FROM other.t"))
ctx.sql("CREATE SCHEMA third")
ctx.sql("CREATE TABLE third.t AS SELECT 3 AS q")
rows(ctx.table("third.t").union(ctx.table("datafusion.other.t")))
print(sorted(ctx.catalog().schema_names()), sorted(ctx.catalog("my_catalog").names()))
print(ctx.catalog().schema("other").table("t").schema.names, ctx.catalog().schema("third"))
ctx.catalog().schema("other").deregister_table("t")
print(ctx.catalog().schema("other").table_names())

# --- files -------------------------------------------------------------------------------------------------

title("files")
few = ctx.table("pokemon").select('"Name"', '"HP"').sort(col('"HP"')).limit(3)
few.write_parquet("few.parquet", compression="zstd")
few.write_csv("few.csv", with_header=True)
few.write_json("few.json")
rows(ctx.read_parquet("few.parquet"))
rows(ctx.read_csv("few.csv"))
rows(ctx.read_json("few.json"))
print(ctx.sql("COPY (SELECT 1 AS one) TO 'one.csv' STORED AS CSV").to_pydict())
ctx.sql("CREATE EXTERNAL TABLE one STORED AS CSV LOCATION 'one.csv' OPTIONS ('has_header' 'true')")
rows(ctx.table("one"))
ctx.register_csv("from_csv", "few.csv", schema_infer_max_records=10)
ctx.register_json("from_json", "few.json")
rows(ctx.sql('SELECT c."Name" FROM from_csv c JOIN from_json j ON c."HP" = j."HP"'))
rows(ctx.enable_url_table().sql("SELECT count(*) AS n FROM 'few.parquet'"))
print(sorted(str(path) for path in Path().iterdir()))

title("delta")
write_deltalake("delta", ctx.table("numbers"))
ctx.register_table("my_delta_table", DeltaTable("delta"))
ctx.table("my_delta_table").sort(col("id")).show()
write_deltalake("delta", ctx.sql("SELECT id + 10 AS id, word FROM my_delta_table"), mode="append")
ctx.deregister_table("my_delta_table")
ctx.register_table("my_delta_table", DeltaTable("delta"))
rows(ctx.sql("SELECT count(*) AS n, max(id) AS last FROM my_delta_table"))

# --- what frames export ---------------------------------------------------------------------------------------

title("exports")
df = ctx.table("numbers").sort(col("id"))
print(df.to_pydict(), df.to_pylist())
print(df.to_arrow_table()["word"].to_pylist(), pa.table(df).num_rows)
print(df.to_pandas().to_dict("list"), df.to_polars().to_dict(as_series=False))
print(df.collect_column("word"), [len(each) for each in df.collect_partitioned()])
print([each.to_pyarrow().num_rows for each in df], [b.num_rows for b in df.collect()])
print(df.execute_stream().next().to_pyarrow().to_pydict())
reader = pa.RecordBatchReader.from_stream(df)
print(reader.schema.names, reader.read_all().num_rows)
print(df._repr_html_().count("<tr>"))


async def streamed() -> int:
    """Count the rows of a stream."""
    return sum([each.to_pyarrow().num_rows async for each in df])


print(asyncio.run(streamed()))
print(copy.copy(df).count(), copy.copy(ctx).table("numbers").count())

# --- plans ------------------------------------------------------------------------------------------------------

title("plans")
df = ctx.table("numbers").filter(col("id") > lit(1)).select("word").cache()
rows(df)
df = ctx.table("numbers").filter(col("id") > lit(1)).select("word")
df.explain()
print(df.logical_plan().display_indent())
print(df.optimized_logical_plan().display_indent())
print(df.execution_plan().partition_count)
rows(ctx.sql("EXPLAIN FORMAT INDENT SELECT word FROM numbers"))
print(Unparser(Dialect.default()).plan_to_sql(df.logical_plan()))
rows(ctx.create_dataframe_from_logical_plan(df.logical_plan()))
rows(ctx.execute_logical_plan(df.logical_plan()))
few_plan = ctx.table("pokemon").select('"Name"').logical_plan()
rows(ctx.create_dataframe_from_logical_plan(LogicalPlan.from_bytes(ctx, few_plan.to_bytes(ctx))))

title("substrait")
substrait = Serde.serialize_to_plan("SELECT a, b FROM ab WHERE a > 1", ctx)
decoded = Serde.deserialize_bytes(substrait.encode())
rows(ctx.create_dataframe_from_logical_plan(Consumer.from_substrait_plan(ctx, decoded)))
produced = Producer.to_substrait_plan(ctx.sql("SELECT a FROM ab").logical_plan(), ctx)
rows(ctx.create_dataframe_from_logical_plan(Consumer.from_substrait_plan(ctx, produced)))
Serde.serialize("SELECT b FROM ab", ctx, "plan.substrait")
read = Consumer.from_substrait_plan(ctx, Serde.deserialize("plan.substrait"))
print(read.display_indent())

title("other handles")
derived = ctx.with_python_udf_inlining(enabled=True)
derived.from_pydict({"late": [1]}, name="late")
print(ctx.table_exist("late"), derived.session_id() == ctx.session_id())
print(SessionContext.global_ctx().sql("SELECT 1 AS one").to_pydict())
