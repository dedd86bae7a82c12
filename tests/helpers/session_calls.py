"""A call of each method of a session, for a comparison of the engine with an observed session."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from datafusion import Accumulator, SessionContext, SQLOptions, col, udaf, udf, udtf, udwf
from datafusion.catalog import Catalog, CatalogProviderList, Schema, Table, TableProviderFactory
from datafusion.common import DFSchema
from datafusion.object_store import LocalFileSystem
from datafusion.user_defined import WindowEvaluator
from deltalake import DeltaTable

from helpers.observed_sessions import BATCH, DATA, spoken


class Total(Accumulator):
    """A user-defined aggregate function that sums."""

    def __init__(self):
        self.total = 0

    def update(self, values):
        self.total += pa.compute.sum(values).as_py() or 0

    def merge(self, states):
        self.update(states[0])

    def state(self):
        return [pa.scalar(self.total, pa.int64())]

    def evaluate(self):
        return pa.scalar(self.total, pa.int64())


class Numbered(WindowEvaluator):
    """A user-defined window function that numbers rows."""

    def evaluate_all(self, values, num_rows):
        return pa.array(range(1, num_rows + 1), pa.int64())


class Catalogs(CatalogProviderList):
    """A user-defined catalog list."""

    def __init__(self):
        self.catalogs = {}

    def catalog_names(self):
        return set(self.catalogs)

    def catalog(self, name):
        return self.catalogs.get(name)

    def register_catalog(self, name, catalog):
        self.catalogs[name] = catalog


class Rows(TableProviderFactory):
    """A user-defined table provider."""

    def create(self, cmd):
        return Table(ds.dataset(DATA))


twice = udf(lambda a: pa.compute.multiply(a, 2), [pa.int64()], pa.int64(), "immutable", "twice")

total = udaf(Total, pa.int64(), pa.int64(), [pa.int64()], "immutable", "total")

place = udwf(Numbered, pa.int64(), pa.int64(), "immutable", "place")

rows = udtf(lambda: Table(ds.dataset(DATA)), "rows")


def deprecated(call):
    """Make the call, for which the engine raises a deprecation warning."""

    def warned(*args):
        with pytest.warns(DeprecationWarning, match="Use"):
            return call(*args)

    return warned


def without(register, deregister, query):
    """The results of a query while a function is registered and after it was deregistered."""

    def call(ctx, at):
        register(ctx)
        before = ctx.sql(query).to_pydict()
        deregister(ctx)
        with pytest.raises(Exception, match=r"Invalid function|not found"):
            ctx.sql(query)
        return before

    return call


def filled_schema():
    schema = Schema.memory_schema()
    schema.register_table("n", ds.dataset(DATA))
    return schema


def filled_catalog():
    catalog = Catalog.memory_catalog()
    catalog.register_schema("s", filled_schema())
    return catalog


def refused(call):
    """The error of a call that Python code cannot make successfully."""
    with pytest.raises(Exception) as error:
        call()
    return error.type, str(error.value)


SESSION_CALLS = {
    "__datafusion_codec_id__": lambda ctx, at: ctx.__datafusion_codec_id__,
    "__datafusion_logical_extension_codec__": lambda ctx, at: (
        ctx.__datafusion_logical_extension_codec__()
    ),
    "__datafusion_physical_extension_codec__": lambda ctx, at: (
        ctx.__datafusion_physical_extension_codec__()
    ),
    "__datafusion_query_planner__": lambda ctx, at: ctx.__datafusion_query_planner__(),
    "__datafusion_task_context_provider__": lambda ctx, at: (
        ctx.__datafusion_task_context_provider__()
    ),
    "__repr__": lambda ctx, at: (repr(ctx), str(ctx)),
    "add_physical_optimizer_rule": lambda ctx, at: refused(
        lambda: ctx.add_physical_optimizer_rule(object())
    ),
    "catalog": lambda ctx, at: (ctx.catalog(), ctx.catalog(name="datafusion")),
    "catalog_names": lambda ctx, at: ctx.catalog_names(),
    "copied_config": lambda ctx, at: str(SessionContext(ctx.copied_config())),
    "create_dataframe": lambda ctx, at: (
        ctx.create_dataframe([[BATCH], [BATCH]]),
        ctx.create_dataframe([[BATCH]], name="n", schema=BATCH.schema),
        ctx.table("n"),
    ),
    "create_dataframe_from_logical_plan": lambda ctx, at: ctx.create_dataframe_from_logical_plan(
        ctx.table("t").limit(2).logical_plan()
    ),
    "deregister_object_store": lambda ctx, at: (
        ctx.register_object_store("own://", LocalFileSystem(), "host"),
        ctx.deregister_object_store("own://", "host"),
    ),
    "deregister_table": lambda ctx, at: (
        ctx.deregister_table("t"),
        ctx.deregister_table(name="t"),
        ctx.table_exist("t"),
    ),
    "deregister_udaf": without(
        lambda ctx: ctx.register_udaf(total),
        lambda ctx: ctx.deregister_udaf("total"),
        "SELECT total(a) FROM t",
    ),
    "deregister_udf": without(
        lambda ctx: ctx.register_udf(twice),
        lambda ctx: ctx.deregister_udf("twice"),
        "SELECT twice(a) FROM t",
    ),
    "deregister_udtf": without(
        lambda ctx: ctx.register_udtf(rows),
        lambda ctx: ctx.deregister_udtf("rows"),
        "SELECT a FROM rows()",
    ),
    "deregister_udwf": without(
        lambda ctx: ctx.register_udwf(place),
        lambda ctx: ctx.deregister_udwf("place"),
        "SELECT place(a) OVER (ORDER BY a) FROM t",
    ),
    "empty_table": lambda ctx, at: ctx.empty_table(),
    "enable_ident_normalization": lambda ctx, at: ctx.enable_ident_normalization(),
    "enable_spark_functions": lambda ctx, at: (
        ctx.enable_spark_functions(),
        ctx.sql("SELECT sha2('hello', 256) AS h"),
    ),
    "enable_url_table": lambda ctx, at: (
        ctx.enable_url_table(),
        ctx.enable_url_table().sql(f"SELECT * FROM '{at.files / 'rows.parquet'}'"),
    ),
    "execute": lambda ctx, at: ctx.execute(ctx.table("t").execution_plan(), 0),
    "execute_logical_plan": lambda ctx, at: ctx.execute_logical_plan(
        ctx.table("t").limit(2).logical_plan()
    ),
    "from_arrow": lambda ctx, at: (
        ctx.from_arrow(DATA),
        ctx.from_arrow(data=BATCH, name="n"),
        ctx.table("n"),
    ),
    "from_pandas": lambda ctx, at: ctx.from_pandas(DATA.to_pandas(), "n"),
    "from_polars": lambda ctx, at: ctx.from_polars(pl.from_arrow(DATA), name="n"),
    "from_pydict": lambda ctx, at: (
        ctx.from_pydict({"z": [1]}),
        ctx.from_pydict(data={"z": [1]}, name="n"),
        ctx.table("n"),
    ),
    "from_pylist": lambda ctx, at: ctx.from_pylist([{"z": 1}, {"z": None}]),
    "global_ctx": lambda ctx, at: type(ctx).global_ctx().sql("SELECT 1 AS one"),
    "logical_extension_codec_ids": lambda ctx, at: ctx.logical_extension_codec_ids(),
    "parse_capacity_limit": lambda ctx, at: (
        ctx.parse_capacity_limit("datafusion.runtime.memory_limit", "1M"),
        type(ctx).parse_capacity_limit("datafusion.runtime.memory_limit", limit="1K"),
    ),
    "parse_sql_expr": lambda ctx, at: ctx.parse_sql_expr("1 + 2", schema=DFSchema.empty()),
    "physical_extension_codec_ids": lambda ctx, at: ctx.physical_extension_codec_ids(),
    "read_arrow": lambda ctx, at: ctx.read_arrow(at.files / "rows.arrow", DATA.schema),
    "read_avro": lambda ctx, at: ctx.read_avro(str(at.files / "rows.avro")),
    "read_batch": lambda ctx, at: ctx.read_batch(BATCH),
    "read_batches": lambda ctx, at: ctx.read_batches(iter([BATCH, BATCH])),
    "read_csv": lambda ctx, at: (
        ctx.read_csv(at.files / "rows.csv"),
        ctx.read_csv(path=str(at.files / "rows.csv"), has_header=False),
    ),
    "read_empty": lambda ctx, at: ctx.read_empty(),
    "read_json": lambda ctx, at: ctx.read_json(at.files / "rows.json"),
    "read_parquet": lambda ctx, at: ctx.read_parquet(
        at.files / "rows.parquet", file_sort_order=[["a"]]
    ),
    "read_table": lambda ctx, at: (
        ctx.read_table(ds.dataset(DATA)),
        ctx.read_table(table=ctx.table("t")),
        ctx.read_table(ctx.table_provider("t")),
        ctx.read_table(DeltaTable(at.files / "delta")),
    ),
    "refresh_catalogs": lambda ctx, at: ctx.refresh_catalogs(),
    "register_arrow": lambda ctx, at: (
        ctx.register_arrow("n", at.files / "rows.arrow"),
        ctx.table("n"),
    ),
    "register_avro": lambda ctx, at: (
        ctx.register_avro("n", str(at.files / "rows.avro")),
        ctx.table("n"),
    ),
    "register_batch": lambda ctx, at: (ctx.register_batch("n", BATCH), ctx.table("n")),
    "register_catalog_provider": lambda ctx, at: (
        ctx.register_catalog_provider("k", filled_catalog()),
        ctx.table("k.s.n"),
        ctx.sql("SELECT a FROM k.s.n"),
        ctx.catalog("k"),
    ),
    "register_catalog_provider_list": lambda ctx, at: (
        ctx.register_catalog_provider_list(Catalogs()),
        ctx.register_catalog_provider("k", filled_catalog()),
        ctx.catalog_names(),
        ctx.table("k.s.n"),
    ),
    "register_csv": lambda ctx, at: (ctx.register_csv("n", at.files / "rows.csv"), ctx.table("n")),
    "register_dataset": lambda ctx, at: (
        ctx.register_dataset("n", ds.dataset(DATA)),
        ctx.sql("SELECT * FROM n WHERE a > 1"),
    ),
    "register_json": lambda ctx, at: (
        ctx.register_json("n", at.files / "rows.json"),
        ctx.table("n"),
    ),
    "register_listing_table": lambda ctx, at: (
        ctx.register_listing_table("n", at.files, file_extension=".parquet"),
        ctx.table("n"),
    ),
    "register_object_store": lambda ctx, at: (
        ctx.register_object_store("file://", LocalFileSystem()),
        ctx.read_parquet(f"file://{at.files / 'rows.parquet'}"),
    ),
    "register_parquet": lambda ctx, at: (
        ctx.register_parquet("n", at.files / "rows.parquet", file_sort_order=[[col("a")]]),
        ctx.table("n"),
    ),
    "register_record_batches": lambda ctx, at: (
        ctx.register_record_batches("n", [[BATCH], [BATCH]]),
        ctx.table("n"),
    ),
    "register_table": lambda ctx, at: (
        ctx.register_table("n", Table(ds.dataset(DATA))),
        ctx.register_table(name="m", table=ctx.table("t").filter("a > 1")),
        ctx.register_table("d", DeltaTable(at.files / "delta")),
        [ctx.table(name) for name in "nmd"],
    ),
    "register_table_factory": lambda ctx, at: (
        ctx.register_table_factory("ROWS", Rows()),
        ctx.sql("CREATE EXTERNAL TABLE n STORED AS rows LOCATION 'anywhere'"),
        ctx.table("n"),
    ),
    "register_table_provider": deprecated(
        lambda ctx, at: (ctx.register_table_provider("n", ds.dataset(DATA)), ctx.table("n"))
    ),
    "register_udaf": lambda ctx, at: (
        ctx.register_udaf(total),
        ctx.sql("SELECT b IS NULL AS k, total(a) AS z FROM t GROUP BY 1"),
    ),
    "register_udf": lambda ctx, at: (
        ctx.register_udf(twice),
        ctx.sql("SELECT twice(a) AS z FROM t"),
    ),
    "register_udtf": lambda ctx, at: (ctx.register_udtf(rows), ctx.sql("SELECT * FROM rows()")),
    "register_udwf": lambda ctx, at: (
        ctx.register_udwf(place),
        ctx.sql("SELECT a, place(a) OVER (ORDER BY a DESC) AS z FROM t"),
    ),
    "register_view": lambda ctx, at: (
        ctx.register_view("n", ctx.table("t").filter("a > 1")),
        ctx.register_view(df=ctx.table("n").limit(1), name="m"),
        ctx.table("m"),
    ),
    "remove_optimizer_rule": lambda ctx, at: (
        ctx.remove_optimizer_rule("push_down_filter"),
        ctx.remove_optimizer_rule("none"),
    ),
    "session_id": lambda ctx, at: ctx.session_id(),
    "session_start_time": lambda ctx, at: ctx.session_start_time(),
    "set_query_planner": lambda ctx, at: (
        ctx.set_query_planner(ctx.__datafusion_query_planner__()),
        spoken(ctx),
    ),
    "sql": lambda ctx, at: (
        spoken(ctx),
        ctx.sql("SELECT a FROM t WHERE a > $least", param_values={"least": 1}),
        ctx.sql("SELECT $column FROM $source", column="a", source=ctx.table("t")),
        ctx.sql("CREATE TABLE n AS SELECT a FROM t"),
        ctx.sql("INSERT INTO n VALUES (7)"),
        ctx.sql("CREATE VIEW m AS SELECT a + 1 AS z FROM n"),
        ctx.table("m"),
        ctx.sql("DROP VIEW m"),
        ctx.sql("DROP TABLE n"),
        ctx.sql("SET datafusion.execution.batch_size = 100"),
        ctx.sql("SHOW datafusion.execution.batch_size"),
        ctx.sql("EXPLAIN SELECT a FROM t"),
        ctx.sql("DESCRIBE t"),
        ctx.sql("SELECT 1;"),
    ),
    "sql_with_options": lambda ctx, at: (
        ctx.sql_with_options("SELECT 1 AS z", SQLOptions()),
        ctx.sql_with_options("SELECT $n AS z", SQLOptions(), {"n": 3}),
    ),
    "table": lambda ctx, at: (ctx.table("t"), ctx.table(name="datafusion.public.t")),
    "table_exist": lambda ctx, at: (ctx.table_exist("t"), ctx.table_exist("none")),
    "table_provider": lambda ctx, at: ctx.table_provider("t"),
    "udaf": lambda ctx, at: (
        ctx.udaf("sum"),
        ctx.table("t").aggregate([], [ctx.udaf("sum")(col("a")).alias("z")]),
    ),
    "udafs": lambda ctx, at: ctx.udafs(),
    "udf": lambda ctx, at: (
        ctx.udf("abs"),
        ctx.table("t").select(ctx.udf("abs")(col("a")).alias("z")),
    ),
    "udfs": lambda ctx, at: ctx.udfs(),
    "udwf": lambda ctx, at: (
        ctx.udwf("row_number"),
        ctx.table("t").select(ctx.udwf("row_number")().alias("z")),
    ),
    "udwfs": lambda ctx, at: ctx.udwfs(),
    "with_extensions": lambda ctx, at: ctx.with_extensions(),
    "with_logical_extension_codec": lambda ctx, at: (
        ctx.with_logical_extension_codec(SessionContext(), "own"),
        ctx.with_logical_extension_codec(SessionContext(), "own").logical_extension_codec_ids(),
    ),
    "with_physical_extension_codec": lambda ctx, at: (
        ctx.with_physical_extension_codec(SessionContext(), codec_id="own"),
        ctx.with_physical_extension_codec(SessionContext(), "own").physical_extension_codec_ids(),
    ),
    "with_python_udf_inlining": lambda ctx, at: ctx.with_python_udf_inlining(enabled=False),
}
