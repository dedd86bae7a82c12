"""Contract tests of undocumented DataFusion behaviour: a release that changes it fails here."""

from __future__ import annotations

import json
import threading
from contextlib import suppress

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from datafusion import DataFrameWriteOptions, SessionConfig, SessionContext, SQLOptions, udf
from datafusion.catalog import Table, TableProviderFactory
from datafusion.dataframe import InsertOp
from datafusion.expr import Expr
from datafusion.plan import ExecutionPlan
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from deltawitness.scan.dataset import KEEP_FILTERS_ABOVE
from deltawitness.scan.filters import parse_filter, to_sql
from deltawitness.session.core.private_api import (
    BOUND_TO_ZONE,
    CONSTANT_FILTER,
    ENGINE_ERROR,
    FAILED_SOURCE,
    FILE_CACHE_LIMIT,
    FILTER_RULE,
    FILTER_UNJOINED,
    NAME_UNKNOWN,
    OUTER_REFERENCE,
    OVERWRITE_REFUSED,
    REPLACE_REFUSED,
    SCAN,
    UNOPTIMIZED,
    VIEW_OF_FRAME,
    calls_volatile,
    cast_type,
    dml_kind,
    is_of_kind,
    table_of_class,
    wrapped_plan,
)
from deltawitness.session.fingerprint.scans import LeafKind, leaves_of, read_files, scans_of
from helpers.deletion_vectors import delete_rows
from helpers.remote_parts import running_server


@pytest.fixture
def ctx(tmp_path):
    """A session with a Delta table `t` and a Delta table whose name needs quotes."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2]}))
    context = SessionContext()
    context.register_table("t", DeltaTable(tmp_path / "t"))
    context.register_table('"A.b c"', DeltaTable(tmp_path / "t"))
    return context


def scans(ctx, sql):
    return SCAN.findall(ctx.sql(sql).logical_plan().display_indent())


def test_a_plans_text_names_its_tables(ctx):
    """Bare, qualified and quoted names, subqueries and the inside of views are in the text."""
    ctx.sql("CREATE VIEW v AS SELECT id FROM t")
    assert scans(ctx, "SELECT * FROM t WHERE id IN (SELECT id FROM public.t)") == ["public.t", "t"]
    assert scans(ctx, 'SELECT * FROM "A.b c"') == ["A.b c"]
    assert scans(ctx, "SELECT * FROM v") == ["t"]


def test_outer_references_are_visible_in_the_plan_text(ctx):
    """Outer references are visible in the plan's text."""
    plan = ctx.sql("SELECT * FROM t WHERE EXISTS (SELECT 1 FROM t AS o WHERE o.id = t.id)")
    assert f"{OUTER_REFERENCE}t.id)" in plan.logical_plan().display_indent()


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("INSERT INTO t VALUES (1)", "Append"),
        ("INSERT OVERWRITE t VALUES (1)", "Overwrite"),
        ("REPLACE INTO t VALUES (1)", "Replace"),
        ("UPDATE t SET id = 1", "Update"),
        ("DELETE FROM t", "Delete"),
        ("TRUNCATE TABLE t", "Truncate"),
        ("MERGE INTO t USING (SELECT 1 AS k) s ON t.id = s.k WHEN MATCHED THEN DELETE", "Merge"),
    ],
)
def test_a_dml_plan_names_its_operation(ctx, sql, kind):
    """The kind of a MERGE is in the error for its missing Python class."""
    plan = ctx.sql(sql).logical_plan()
    assert is_of_kind(plan, "DmlStatement")
    assert dml_kind(plan) == kind
    assert plan.to_variant().table_name() == "t"


def test_the_text_of_a_cast_has_its_type(ctx):
    """The type of a cast is only in its text."""
    node = ctx.sql("SELECT CAST(id AS VARCHAR) FROM t").logical_plan().to_variant()
    assert cast_type(Expr(node.projections()[0])) == "Utf8View"


def test_a_node_hands_out_plans_that_a_context_takes(ctx):
    """The plans have to be wrapped first."""
    node = ctx.sql("SELECT id FROM t WHERE id = 1").logical_plan().to_variant()
    frame = ctx.create_dataframe_from_logical_plan(wrapped_plan(node.input()[0]))
    assert frame.to_pydict() == {"id": [1]}


@pytest.mark.parametrize(
    ("operation", "text"),
    [(InsertOp.OVERWRITE, OVERWRITE_REFUSED), (InsertOp.REPLACE, REPLACE_REFUSED)],
)
def test_an_in_memory_table_names_the_insert_operation_that_it_refuses(operation, text):
    """Write options are read from this error."""
    ctx = SessionContext()
    ctx.sql("CREATE TABLE m AS SELECT 1 AS x WHERE false")
    with pytest.raises(Exception, match=text):
        ctx.table("m").write_table("m", DataFrameWriteOptions(insert_operation=operation))
    ctx.table("m").write_table("m", DataFrameWriteOptions(insert_operation=InsertOp.APPEND))


@pytest.mark.parametrize("plan", [lambda c: c.sql("SELECT * FROM nope"), lambda c: c.table("nope")])
def test_the_error_for_an_unknown_name_has_known_text(ctx, plan):
    """By this error a reader detects that a table may be being replaced at that time."""
    with pytest.raises((ValueError, KeyError)) as raised:
        plan(ctx)
    assert any(text in str(raised.value) for text in NAME_UNKNOWN)


def test_delta_rs_takes_a_null_predicate_for_none(tmp_path):
    """So delta-rs gets no literal NULL: DELETE WHERE id = NULL empties the table."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2]}))
    assert DeltaTable(tmp_path / "t").delete("id = NULL")["num_deleted_rows"] == 2


def test_delta_rs_does_not_find_nan_by_statistics(tmp_path):
    """So delta-rs gets no filter over floats."""
    write_deltalake(tmp_path / "t", pa.table({"x": [1.5, float("nan")]}))
    table = DeltaTable(tmp_path / "t")
    assert table.delete("x = arrow_cast('NaN', 'Float64')")["num_deleted_rows"] == 0


def test_frames_contexts_and_catalogs_take_attributes():
    """The state of sessions and frames is stored in attributes."""
    ctx = SessionContext()
    for owner in (ctx, ctx.sql("SELECT 1"), ctx.catalog(), ctx.catalog().schema()):
        owner._deltawitness_probe = 1
        assert vars(owner)["_deltawitness_probe"] == 1


def test_the_volatility_of_a_function_is_readable(ctx):
    """The volatility is in the error for the missing Python class, for UDFs and for built-in functions."""
    for volatility in ("volatile", "immutable"):
        ctx.register_udf(udf(lambda x: x, [pa.int64()], pa.int64(), volatility, f"f_{volatility}"))
    sql = "SELECT random(), abs(id), f_volatile(id), f_immutable(id) FROM t"
    node = ctx.sql(sql).logical_plan().to_variant()
    assert [calls_volatile(Expr(raw)) for raw in node.projections()] == [True, False, True, False]


def test_a_table_wraps_the_engines_table(ctx):
    """A `Table` wraps exactly one object, which is the engine's."""

    class Own(Table):
        __slots__ = ()

    ctx.register_table("own", table_of_class(Own, ctx.table("t").into_view()))
    assert ctx.table("own").count() == 2


def test_an_optimized_plan_declares_the_types_of_its_batches(ctx):
    """The plan before optimization does not, where types are decided late."""
    mixed = ctx.sql("SELECT CAST(1 AS INT) AS x UNION ALL SELECT 3000000000")
    assert mixed.schema().field("x").type == pa.int32()
    truthful = ctx.create_dataframe_from_logical_plan(mixed.optimized_logical_plan())
    assert truthful.schema().field("x").type == pa.int64()
    assert sorted(truthful.to_pydict()["x"]) == [1, 3000000000]


def test_the_factory_is_called_on_the_thread_that_plans(tmp_path):
    """By the thread the factory finds the statement that it is called for."""
    threads = []

    class Factory(TableProviderFactory):
        def create(self, cmd):
            threads.append(threading.current_thread())
            return Table(DeltaTable(tmp_path / "t"))

    write_deltalake(tmp_path / "t", pa.table({"id": [1]}))
    context = SessionContext()
    context.register_table_factory("PROBE", Factory())
    context.sql("CREATE EXTERNAL TABLE x STORED AS PROBE LOCATION 'somewhere'")
    assert threads == [threading.current_thread()]


def test_planning_a_copy_under_options_writes_nothing(tmp_path):
    """Planning shows whether our statement is allowed."""
    context = SessionContext()
    context.sql(f"COPY (SELECT 1) TO '{tmp_path}/x.csv' STORED AS CSV", SQLOptions())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Exception, match="DML not supported"):
        context.sql(
            f"COPY (SELECT 1) TO '{tmp_path}/x.csv' STORED AS CSV",
            SQLOptions().with_allow_dml(allow=False),
        )


def test_the_physical_plan_names_the_files_of_a_scan(ctx, tmp_path):
    """The leaves of a plan have distinct prefixes, and contain path, size and time of each file."""
    (tmp_path / "p").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "p" / "a.parquet")
    ctx.register_parquet("files", tmp_path / "p")
    ctx.from_pydict({"a": [1]}, name="memory")
    ctx.register_dataset("dataset", ds.dataset(pa.table({"a": [1]})))
    kinds = {
        "files": LeafKind.FILES,
        "memory": LeafKind.MEMORY,
        "t": LeafKind.DELTA,
        "dataset": LeafKind.DATASET,
        "generate_series(1, 2)": LeafKind.SERIES,
    }
    for name, kind in kinds.items():
        (scan,) = scans_of(ctx.sql(f"SELECT * FROM {name}").logical_plan())
        _, (leaf,) = leaves_of(ctx, scan)
        assert leaf.is_of(kind), leaf.line
        if kind == LeafKind.FILES:
            assert read_files(leaf)[0] == [str(tmp_path / "p" / "a.parquet")]


def test_a_session_caches_directory_listings(ctx, tmp_path):
    """The session caches a directory listing until the size limit of its list cache is set to 0 and back."""
    (tmp_path / "p").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "p" / "a.parquet")
    ctx.register_parquet("files", tmp_path / "p")
    assert ctx.table("files").count() == 1
    pq.write_table(pa.table({"a": [1]}), tmp_path / "p" / "b.parquet")
    assert ctx.table("files").count() == 1
    for size in ("0K", "1M"):
        ctx.sql(f"SET {FILE_CACHE_LIMIT} = '{size}'")
    assert ctx.table("files").count() == 2


def test_errors_of_a_source_and_of_a_table_have_different_texts(ctx, tmp_path):
    """The engine's text distinguishes them."""
    ctx.from_pydict({"a": [0]}, name="m")
    with pytest.raises(Exception, match=FAILED_SOURCE):
        write_deltalake(tmp_path / "failed", ctx.sql("SELECT 1 / a AS b FROM m"))


def test_a_query_that_cannot_be_planned_is_an_error_of_no_class(ctx):
    """It is a plain exception, whose text has a prefix that delta-rs does not use."""
    with pytest.raises(Exception, match=f"^{ENGINE_ERROR}") as error:
        ctx.sql("SELECT TIMESTAMP '1500-01-01' AS b FROM t").to_pydict()
    assert type(error.value) is Exception


def test_calls_are_bound_to_the_time_zone_when_they_are_planned():
    """A view keeps the session's time zone of its creation, and its text is the same under another."""
    shown = []
    for zones in ([], ["+05:00"]):
        ctx = SessionContext()
        for zone in zones:
            ctx.sql(f"SET datafusion.execution.time_zone = '{zone}'")
        ctx.sql("CREATE VIEW v AS SELECT to_timestamp('2020-01-01') AS at")
        ctx.sql("SET datafusion.execution.time_zone = '+05:00'")
        frame = ctx.table("v")
        shown.append((frame.logical_plan().display_indent(), str(frame.schema().field("at").type)))
    assert BOUND_TO_ZONE.search(shown[0][0])
    assert shown[0][0] == shown[1][0]
    assert [kind for _, kind in shown] == ["timestamp[ns]", "timestamp[ns, tz=+05:00]"]


def test_prepare_keeps_a_plan_as_written_where_nothing_is_optimized():
    """EXECUTE casts its values to the types that the statement declares."""
    config = SessionConfig().set(*UNOPTIMIZED)
    ctx = SessionContext(config)
    ctx.from_pydict({"id": [1, 2]}, name="t")
    ctx.sql("PREPARE p AS DELETE FROM t WHERE 1 = 2 AND id = $1 AND id IN (SELECT 1)")
    text = ctx.sql("EXECUTE p('1')").logical_plan().display_indent()
    assert "Filter: Int64(1) = Int64(2) AND t.id = Int64(1) AND t.id IN (<subquery>)" in text
    optimized = SessionContext()
    optimized.from_pydict({"id": [1, 2]}, name="t")
    optimized.sql("PREPARE p AS DELETE FROM t WHERE 1 = 2")
    assert "EmptyRelation" in optimized.sql("EXECUTE p").logical_plan().display_indent()


def test_a_session_can_copy_the_configuration_of_another(ctx):
    """A new session can copy another one's settings, tables and functions."""
    ctx.sql("SET datafusion.sql_parser.dialect = 'mysql'")
    shout = udf(lambda values: values, [pa.int64()], pa.int64(), "immutable", "shout")
    ctx.register_udf(shout)
    other = SessionContext(ctx.copied_config())
    other.register_table("t", ctx.table_provider('"datafusion"."public"."t"'))
    other.register_udf(ctx.udf("shout"))
    plan = other.sql('SELECT shout(id), "id" FROM t').logical_plan()
    rows = ctx.create_dataframe_from_logical_plan(plan).to_pydict()
    assert list(rows.values()) == [[1, 2], ["id", "id"]]


def test_a_frame_parameter_gets_a_random_name(ctx):
    """The name is random."""
    frame = ctx.table("t")
    texts = [
        ctx.sql("SELECT * FROM $rows", rows=frame).logical_plan().display_indent() for _ in range(2)
    ]
    assert texts[0] != texts[1]
    assert VIEW_OF_FRAME.sub("view", texts[0]) == VIEW_OF_FRAME.sub("view", texts[1])


def test_a_scan_has_name_projection_and_filters(ctx):
    """Its projection is empty in a plan that is not optimized."""
    plan = ctx.sql("DELETE FROM public.t WHERE id = 1").logical_plan()
    scan = plan.to_variant().input().to_variant().input()[0].to_variant()
    assert (scan.fqn(), scan.projection(), scan.filters(), scan.fetch()) == (
        (None, "public", "t"),
        [],
        [],
        None,
    )
    scan = ctx.sql("SELECT * FROM t LIMIT 1").optimized_logical_plan().to_variant().input()[0]
    scan = scan.to_variant()
    assert (scan.projection(), scan.fetch()) == ([(0, "id")], 1)


# --- tables that the engine's provider does not read -------------------------------------------------


@pytest.mark.slow
def test_the_engines_provider_does_not_read_an_object_store(tmp_path):
    """This is why `deltawitness.scan` exists: if this fails, `provider_of` can pass on remote tables."""
    with running_server(tmp_path) as server:
        write_deltalake("s3://lake/t", pa.table({"x": [1, 2]}), storage_options=server.options)
        context = SessionContext()
        context.register_table("t", DeltaTable("s3://lake/t", storage_options=server.options))
        with pytest.raises(Exception, match="No suitable object store found"):
            context.sql("SELECT x FROM t WHERE x > 0").collect()


def test_the_engines_provider_does_not_read_deletion_vectors(tmp_path):
    """This is why local tables with deletion vectors use `deltawitness.scan` as well."""
    write_deltalake(tmp_path / "t", pa.table({"x": [1, 2]}))
    delete_rows(tmp_path / "t", [[0]])
    context = SessionContext()
    context.register_table("t", DeltaTable(tmp_path / "t"))
    with pytest.raises(Exception, match="deletion vector"):
        context.table("t").collect()


class Probe(ds.Dataset):
    """A dataset of three rows that records the requests it gets, and filters nothing."""

    def __init__(self):
        self.filters = []
        self.calls = []

    @property
    def schema(self):
        return pa.schema([("i", pa.int64()), ("x", pa.float64()), ("s", pa.string_view())])

    def scanner(self, schema=None, **how):
        self.calls.append(how)
        return Rows(self.schema, how["columns"])

    def get_fragments(self, filter=None):  # noqa: A002 - Arrow's name
        self.filters.append(filter)
        return iter([self])


class Rows:
    """The scanner of a probe."""

    def __init__(self, schema, columns):
        self.projected_schema = pa.schema([schema.field(name) for name in columns])

    def to_batches(self):
        rows = [{"i": 1, "x": 1.0, "s": "a"}] * 3
        return iter([pa.RecordBatch.from_pylist(rows, schema=self.projected_schema)])


@pytest.fixture
def probed():
    context, probe = SessionContext(), Probe()
    context.register_table("t", Table(probe))
    return context, probe


def test_only_the_dataset_applies_pushed_down_filters(probed):
    """It has to apply them exactly; filters without an Arrow expression stay in the plan above it."""
    context, probe = probed
    assert len(context.sql("SELECT s FROM t WHERE i > 5").to_pylist()) == 3
    assert context.sql("SELECT s FROM t WHERE i > 5 AND i % 2 = 0").to_pylist() == []
    assert [to_sql(parse_filter(each)) for each in probe.filters] == [
        "(\"i\" > arrow_cast('5', 'Int64'))"
    ] * 2
    assert [sorted(call) for call in probe.calls] == [
        ["columns", "filter"],
        ["batch_size", "columns", "filter"],
    ] * 2


@pytest.mark.parametrize(
    ("condition", "sql"),
    [
        ("x > 1", "(\"x\" > arrow_cast('1.0', 'Float64'))"),
        ("s < 'b'", "(\"s\" < arrow_cast('b', 'Utf8View'))"),
        ("x IS NULL", '("x" IS NULL)'),
        (
            "NOT (i IN (1, 2, 3, 4))",
            "(NOT (\"i\" IN (arrow_cast('1', 'Int64'), arrow_cast('2', 'Int64'), arrow_cast('3', 'Int64'), arrow_cast('4', 'Int64'))))",
        ),
        ("x = x", "((\"x\" IS NOT NULL) OR arrow_cast(NULL, 'Boolean'))"),
    ],
)
def test_a_filter_reaches_a_dataset_node_by_node(probed, condition, sql):
    """So it can be translated back to SQL with the same meaning."""
    context, probe = probed
    context.sql(f"SELECT i FROM t WHERE {condition}").execution_plan()
    assert [to_sql(parse_filter(each)) for each in probe.filters] == [sql]


def test_a_constant_filter_before_others_cannot_be_joined_to_them(probed):
    """If this fails, remove `filter_fallback`; without the optimizer's rule the filter stays in the plan."""
    context, probe = probed
    frame = context.sql("SELECT i FROM t WHERE i = NULL AND x > 1")
    assert CONSTANT_FILTER.search(frame.optimized_logical_plan().display_indent())
    with pytest.raises(Exception, match=FILTER_UNJOINED.replace("(", "[(]").replace(")", "[)]")):
        frame.execution_plan()
    other = SessionContext(context.copied_config())
    assert other.remove_optimizer_rule(FILTER_RULE)
    again = other.create_dataframe_from_logical_plan(wrapped_plan(frame.logical_plan()))
    assert again.count() == 0
    assert probe.filters == [None]


def test_a_limit_prevents_filter_pushdown_in_a_query_builder(tmp_path):
    """Without a limit, files are skipped by statistics that ignore NaN."""
    write_deltalake(tmp_path / "t", pa.table({"x": [1.0, float("nan")]}))
    builder = QueryBuilder().register("t", DeltaTable(tmp_path / "t"))

    def count(sql):
        return pa.table(builder.execute(sql).read_all()).num_rows

    assert count("SELECT x FROM t WHERE x > 1") == 0
    assert count(f"SELECT x FROM (SELECT * FROM t {KEEP_FILTERS_ABOVE}) AS t WHERE x > 1") == 1


def test_a_query_builder_reads_the_registered_version(tmp_path):
    """Later changes of the handle do not matter."""
    write_deltalake(tmp_path / "t", pa.table({"x": [1]}))
    opened = DeltaTable(tmp_path / "t")
    builder = QueryBuilder().register("t", opened)
    write_deltalake(opened, pa.table({"x": [2]}), mode="append")
    assert pa.table(builder.execute("SELECT x FROM t").read_all()).num_rows == 1


def test_a_partition_of_a_serialized_plan_reads_its_own_files(tmp_path):
    """With two settings off, executing each partition alone, in a new session, reads each row once."""
    for number in range(4):
        pq.write_table(pa.table({"id": [number]}), tmp_path / f"{number}.parquet")
    settings = {
        "datafusion.execution.target_partitions": "4",
        "datafusion.optimizer.enable_round_robin_repartition": "false",
    }
    stealing = "datafusion.execution.enable_file_stream_work_stealing"
    with suppress(Exception):  # DataFusion 54 has no such setting
        SessionConfig({stealing: "false"})
        settings[stealing] = "false"
    ctx = SessionContext(SessionConfig(settings))
    ctx.register_parquet("t", str(tmp_path))
    plan = ctx.sql("SELECT id FROM t").execution_plan()
    found = []
    for partition in range(plan.partition_count):
        other = SessionContext(SessionConfig(settings))
        stream = other.execute(ExecutionPlan.from_bytes(other, plan.to_bytes()), partition)
        found += [row for batch in stream for row in batch.to_pyarrow()["id"].to_pylist()]
    assert plan.partition_count > 1
    assert sorted(found) == [0, 1, 2, 3]


def test_a_delta_table_reads_files_of_another_folder(tmp_path):
    """An add action with an absolute URI names a file of another table."""
    write_deltalake(tmp_path / "a", pa.table({"id": [1]}))
    lines = (tmp_path / f"a/_delta_log/{0:020d}.json").read_text().splitlines()
    actions = [json.loads(line) for line in lines]
    (add,) = [action["add"] for action in actions if "add" in action]
    add["path"] = f"{(tmp_path / 'a').as_uri()}/{add['path']}"
    log = tmp_path / "b/_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020d}.json").write_text("\n".join(map(json.dumps, actions)))
    ctx = SessionContext()
    ctx.register_table("t", DeltaTable(tmp_path / "b"))
    assert ctx.sql("SELECT id FROM t WHERE id > 0").to_pydict() == {"id": [1]}
