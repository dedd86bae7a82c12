"""Inputs that look the same in a plan but differ are never a hit."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from datafusion import SessionContext, col, functions, lit, udaf, udf, udtf
from datafusion.catalog import SchemaProvider, Table
from datafusion.user_defined import Accumulator
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaCache, ObservedSessionContext


@pytest.fixture
def ctx():
    return ObservedSessionContext()


@pytest.fixture
def cache(ctx, tmp_path):
    return DeltaCache(ctx, tmp_path / "cache")


def seen(cache, query, **more):
    """Request a view; return its rows and whether it would be a hit next time."""
    found = cache.view("seen", query, **more).to_pydict()
    return found, cache.explain("seen").result.value


def replace_table(ctx, name, **columns):
    if ctx.table_exist(name):
        ctx.deregister_table(name)
    ctx.from_pydict(columns, name=name)


@pytest.mark.slow
def test_a_view_reads_the_tables_it_was_created_over(ctx, cache):
    """A view reads the earlier table of a name, so the name's current content does not decide the hit."""
    replace_table(ctx, "m", k=[1])
    ctx.sql("CREATE VIEW v AS SELECT * FROM m")
    assert seen(cache, "SELECT * FROM v") == ({"k": [1]}, "hit")
    replace_table(ctx, "m", k=[2])
    assert seen(cache, "SELECT * FROM v") == ({"k": [1]}, "hit")
    ctx.sql("CREATE OR REPLACE VIEW v AS SELECT * FROM m")
    assert seen(cache, "SELECT * FROM v") == ({"k": [2]}, "hit")


@pytest.mark.slow
def test_a_view_over_a_replaced_table_is_not_cached(ctx, cache, tmp_path):
    """A view over a replaced table is not cached until it is created again."""
    for name, value in (("one", 1), ("two", 2)):
        write_deltalake(tmp_path / name, pa.table({"k": [value]}))
    ctx.register_delta("t", tmp_path / "one")
    ctx.sql("CREATE VIEW v AS SELECT * FROM t")
    assert seen(cache, "SELECT * FROM v") == ({"k": [1]}, "hit")
    ctx.deregister_table("t")
    ctx.register_delta("t", tmp_path / "two")
    assert seen(cache, "SELECT * FROM v") == ({"k": [1]}, "miss")
    assert "the view v reads a table that was replaced or deregistered" in str(
        cache.explain("seen")
    )
    ctx.sql("CREATE OR REPLACE VIEW v AS SELECT * FROM t")
    assert seen(cache, "SELECT * FROM v") == ({"k": [2]}, "hit")


@pytest.mark.parametrize("way", ["a table of a frame", "a session that was plain"])
def test_a_view_at_a_fixed_version_is_not_cached(way, tmp_path):
    """A view that the session cannot refresh is not cached, although its plan text looks like a refreshed one."""
    write_deltalake(tmp_path / "t", pa.table({"k": [1]}))
    ctx = SessionContext()
    if way == "a session that was plain":
        ctx.register_table("t", DeltaTable(tmp_path / "t"))
        ctx.sql("CREATE VIEW v AS SELECT * FROM t")
        ctx.deregister_table("t")
        ctx = ObservedSessionContext(ctx)
        ctx.register_delta("t", tmp_path / "t")
    else:
        ctx = ObservedSessionContext(ctx)
        ctx.register_delta("t", tmp_path / "t")
        ctx.register_table("v", Table(ctx.table("t")))
    cache = DeltaCache(ctx, tmp_path / "cache")
    for _ in range(2):
        assert seen(cache, "SELECT * FROM v") == ({"k": [1]}, "miss")
        assert "the view v may read its tables at older versions" in str(cache.explain("seen"))
        write_deltalake(tmp_path / "t", pa.table({"k": [2]}), mode="append")
    ctx.deregister_table("v")
    ctx.sql("CREATE VIEW v AS SELECT * FROM t")
    assert seen(cache, "SELECT * FROM v ORDER BY k") == ({"k": [1, 2, 2]}, "hit")


def register_unobserved(ctx, name, *values):
    """Register an in-memory table past the observed session."""
    ctx.register_record_batches(name, [[pa.record_batch({"k": values})]])


@pytest.mark.slow
def test_two_tables_with_one_name_in_the_plan_are_both_inputs(ctx, cache):
    """Two tables with the same name in the plan text are both inputs.

    For example table b of schema a and table "a.b", a recursive query, and a view over another schema.
    """
    ctx.sql("CREATE SCHEMA a")
    register_unobserved(ctx, "a.b", 1)
    register_unobserved(ctx, '"a.b"', 10)
    both = 'SELECT x.k + y.k AS k FROM a.b AS x CROSS JOIN "a.b" AS y ORDER BY 1'
    assert seen(cache, both) == ({"k": [11]}, "hit")
    ctx.sql('INSERT INTO "a.b" VALUES (11)').collect()
    assert seen(cache, both) == ({"k": [11, 12]}, "hit")
    register_unobserved(ctx, "m", 10)
    ctx.sql("CREATE VIEW v AS SELECT k FROM m")
    recursive = (
        "WITH RECURSIVE m AS (SELECT 1 AS k UNION ALL SELECT k + 1 FROM m WHERE k < 2)"
        " SELECT m.k + v.k AS k FROM m CROSS JOIN v ORDER BY 1"
    )
    assert seen(cache, recursive) == ({"k": [11, 12]}, "hit")
    ctx.sql("INSERT INTO m VALUES (20)").collect()
    assert seen(cache, recursive) == ({"k": [11, 12, 21, 22]}, "hit")


def test_a_temporary_view_that_computes_is_not_cached(ctx, cache, tmp_path):
    """A temporary view is not cached: it is scanned like a table, and no plan shows what it computes."""
    pq.write_table(pa.table({"k": [1, 3]}), tmp_path / "p.parquet")
    ctx.register_parquet("p", tmp_path / "p.parquet")
    table = ctx.table("p")
    for frame in (
        table.aggregate([], [functions.min(col("k")).alias("k")]),
        table.aggregate([], [functions.max(col("k")).alias("k")]),
        table.select((col("k") + functions.random()).alias("k")),
        table.filter(functions.random() < col("k")),
    ):
        if ctx.table_exist("v"):
            ctx.deregister_table("v")
        ctx.register_table("v", frame.into_view(temporary=True))
        cache.view("seen", "SELECT k FROM v")
        assert "cannot detect changes of v" in str(cache.explain("seen"))


class Changing(SchemaProvider):
    """A user-defined schema in which a name resolves to different tables over time."""

    def __init__(self, **tables):
        self.shown = None
        self.tables = tables

    def table_names(self):
        return {"t"}

    def table_exist(self, name):
        return name == "t"

    def table(self, name):
        return self.tables[self.shown] if name == "t" else None


def test_a_view_over_a_user_defined_schema_is_read_again(ctx, cache):
    """A view over a user-defined schema is read again: the session gets no event when its table changes."""
    register_unobserved(ctx, "one", 1)
    register_unobserved(ctx, "two", 2)
    schema = Changing(**{name: ctx.catalog().schema().table(name) for name in ("one", "two")})
    ctx.catalog().register_schema("s", schema)
    for shown in ("one", "two"):
        schema.shown = shown
        ctx.sql("CREATE OR REPLACE VIEW v AS SELECT k FROM s.t")
        schema.shown = "one"
        wanted = 2 if shown == "one" else 3
        found = seen(cache, "SELECT x.k + v.k AS k FROM s.t AS x CROSS JOIN v")
        assert found == ({"k": [wanted]}, "hit")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT k FROM m WHERE k IN (SELECT k FROM v)",
        "SELECT k FROM m WHERE k = (SELECT max(k) FROM v)",
    ],
)
def test_the_tables_of_a_view_in_a_subquery_count(query, ctx, cache):
    """A view in a subquery may read an earlier table of a name that the query also uses."""
    for value in (1, 3):
        replace_table(ctx, "m", k=[value])
        ctx.sql("CREATE OR REPLACE VIEW v AS SELECT k FROM m")
        replace_table(ctx, "m", k=[1, 2, 3])
        assert seen(cache, query)[0] == {"k": [value]}


@pytest.mark.slow
def test_a_view_of_another_default_schema_is_not_cached(ctx, cache, tmp_path):
    """A view created under another default schema is not cached: equal names in its plan are other tables."""
    write_deltalake(tmp_path / "t", pa.table({"k": [1]}))
    reason = "was created under another default schema"
    for schema in ("s1", "s2"):
        ctx.sql(f"CREATE SCHEMA {schema}")
        ctx.sql(f"SET datafusion.catalog.default_schema = '{schema}'")
        ctx.register_delta("t", tmp_path / "t")
        register_unobserved(ctx, "m", 1)
        if schema == "s1":
            ctx.sql("CREATE VIEW over_t AS SELECT k FROM t")
            ctx.sql("CREATE VIEW over_m AS SELECT k FROM m")
            cache.view("kept", "SELECT k FROM t")
    for view in ("over_t", "over_m", "kept"):
        assert seen(cache, f"SELECT k FROM s1.{view}") == ({"k": [1]}, "miss")
        assert f"the view s1.{view} {reason}" in str(cache.explain("seen"))
    ctx.sql("CREATE VIEW mine AS SELECT k FROM m")
    assert seen(cache, "SELECT a.k FROM mine AS a") == ({"k": [1]}, "hit")
    write_deltalake(tmp_path / "t", pa.table({"k": [2]}), mode="append")
    assert seen(cache, "SELECT k FROM t ORDER BY k") == ({"k": [1, 2]}, "hit")
    ctx.sql("SET datafusion.catalog.default_schema = 's1'")
    for view in ("over_t", "kept"):
        assert seen(cache, f"SELECT k FROM {view} ORDER BY k") == ({"k": [1, 2]}, "hit")


@pytest.mark.slow
def test_a_frame_keeps_the_tables_it_was_created_over(ctx, cache):
    """A frame keeps its tables, as without a cache; SQL text resolves its names on each request."""
    replace_table(ctx, "m", k=[1, 2])
    frame = ctx.table("m").filter(col("k") > lit(1))
    assert seen(cache, frame) == ({"k": [2]}, "hit")
    replace_table(ctx, "m", k=[3])
    assert frame.to_pydict() == {"k": [2]}
    assert seen(cache, frame)[0] == {"k": [2]}
    assert seen(cache, ctx.table("m").filter(col("k") > lit(1))) == ({"k": [3]}, "hit")
    assert seen(cache, "SELECT * FROM m WHERE k > 1") == ({"k": [3]}, "hit")


@pytest.mark.slow
def test_swapped_names_are_detected(ctx, cache, tmp_path):
    """Swapping the names of two Delta tables, in-memory tables or files is detected."""
    for name, value in (("one", 1), ("two", 2)):
        write_deltalake(tmp_path / name, pa.table({"k": [value]}))
        pq.write_table(pa.table({"k": [value]}), tmp_path / f"{name}.parquet")
    ctx.sql("CREATE SCHEMA s1")
    ctx.sql("CREATE SCHEMA s2")
    for first, second in (("one", "two"), ("two", "one")):
        ctx.register_delta("s1.t", tmp_path / first)
        ctx.register_delta("s2.t", tmp_path / second)
        ctx.register_parquet("f", tmp_path / f"{first}.parquet")
        ctx.register_parquet("g", tmp_path / f"{second}.parquet")
        wanted = 1 if first == "one" else 2
        tables = "SELECT a.k AS a, b.k AS b FROM s1.t AS a CROSS JOIN s2.t AS b"
        assert seen(cache, tables) == ({"a": [wanted], "b": [3 - wanted]}, "hit")
        files = "SELECT f.k AS a, g.k AS b FROM f CROSS JOIN g"
        assert seen(cache, files) == ({"a": [wanted], "b": [3 - wanted]}, "hit")
        for name in ("s1.t", "s2.t", "f", "g"):
            ctx.deregister_table(name)


@pytest.mark.slow
def test_one_table_at_two_versions_is_two_inputs(ctx, cache, tmp_path):
    """One table at two versions is two inputs, and a change of either is detected."""
    write_deltalake(tmp_path / "t", pa.table({"k": [1]}))
    ctx.register_delta("old", tmp_path / "t", version=0)
    ctx.register_delta("new", tmp_path / "t")
    query = "SELECT (SELECT count(*) FROM new) - (SELECT count(*) FROM old) AS n"
    assert seen(cache, query) == ({"n": [0]}, "hit")
    write_deltalake(tmp_path / "t", pa.table({"k": [2]}), mode="append")
    assert seen(cache, query) == ({"n": [1]}, "hit")
    ctx.deregister_table("old")
    ctx.register_delta("old", tmp_path / "t", version=1)
    assert seen(cache, query) == ({"n": [0]}, "hit")


@pytest.mark.slow
def test_a_table_restored_from_a_copy_is_another_input(tmp_path):
    """A table restored from a copy and written since is another input, although the version number is equal."""
    table = tmp_path / "t"
    write_deltalake(table, pa.table({"k": [1]}))
    shutil.copytree(table, tmp_path / "copy")
    for value in (2, 3):
        write_deltalake(table, pa.table({"k": [value]}), mode="append")
        ctx = ObservedSessionContext()
        ctx.register_delta("t", table)
        cache = DeltaCache(ctx, tmp_path / "cache")
        found, _ = seen(cache, "SELECT k FROM t ORDER BY k")
        assert found == {"k": [1, value]}
        shutil.rmtree(table)
        shutil.copytree(tmp_path / "copy", table)


@pytest.mark.slow
def test_details_that_plans_do_not_print_count(ctx, cache):
    """VALUES after the fifth row, bounds of a series and quotes in literals are part of the fingerprint."""
    for last in (6, 7):
        assert seen(cache, f"VALUES (1), (2), (3), (4), (5), ({last})") == (
            {"column1": [1, 2, 3, 4, 5, last]},
            "hit",
        )
        assert seen(cache, f"SELECT max(value) AS m FROM generate_series(1, {last})") == (
            {"m": [last]},
            "hit",
        )
    assert seen(cache, "SELECT concat('a', 'b') AS c") == ({"c": ["ab"]}, "hit")
    other = "SELECT concat('a\"), Utf8(\"b') AS c"
    assert seen(cache, other) == ({"c": ['a"), Utf8("b']}, "hit")
    rows = "VALUES (1), (2), (3), (4), (5), (random())"
    assert seen(cache, rows)[1] == "miss"


@pytest.mark.slow
def test_the_null_handling_of_a_frame_counts(ctx, cache):
    """The null handling of UNNEST and EXCEPT is part of the fingerprint, although plans do not print it."""
    ctx.from_pydict({"a": [1, None], "l": [[1], None]}, name="m")
    frame = ctx.table("m").select("a")
    without = {"left_on": "a", "right_on": "a", "how": "anti", "coalesce_duplicate_keys": False}
    lists = ctx.table("m")
    for query, expected in (
        (frame.except_all(frame.alias("m")), []),
        (frame.join(frame.alias("m"), **without), [None]),
        (lists.unnest_columns("l"), [1, None]),
        (lists.unnest_columns("l", preserve_nulls=False), [1]),
    ):
        found, result = seen(cache, query)
        assert (sorted(found["a"], key=str), result) == (expected, "hit")


@pytest.mark.slow
@pytest.mark.parametrize("one", [["a, b"], [None], [1.0], {"k": ["a, b"]}])
def test_a_literal_that_plans_print_inexactly_is_not_cached(one, ctx, cache):
    """A list or struct literal is not cached: plans print its members without quotes, types and NULL."""
    replace_table(ctx, "m", k=[1])
    frame = ctx.table("m").select(lit(pa.scalar(one)).alias("l"))
    assert seen(cache, frame) == ({"l": [one]}, "miss")
    assert "the plan text is not exact for a list, struct or map literal" in str(
        cache.explain("seen")
    )
    assert seen(cache, frame, version="1") == ({"l": [one]}, "hit")
    assert seen(cache, "SELECT ['a, b'] AS l") == ({"l": [["a, b"]]}, "hit")


@pytest.mark.slow
def test_the_options_of_files_count(ctx, cache, tmp_path):
    """The delimiter and the header of a CSV are part of the fingerprint."""
    (tmp_path / "a.csv").write_text("1;2,3\n4;5,6\n")
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    found = []
    for options in (
        {"delimiter": ";", "has_header": False},
        {"delimiter": ",", "has_header": False},
        {"delimiter": ",", "has_header": True},
    ):
        ctx.register_csv("lines", tmp_path / "a.csv", schema=schema, **options)
        rows, result = seen(cache, "SELECT a, b FROM lines")
        found.append(rows["a"])
        assert result == "hit"
        ctx.deregister_table("lines")
    assert found == [["1", "4"], ["1;2", "4;5"], ["4;5"]]


@pytest.mark.slow
def test_every_file_of_a_large_directory_counts(ctx, cache, tmp_path):
    """All files of a directory are inputs, also those that plans omit, hidden ones and odd names."""
    (tmp_path / "p").mkdir()

    def write(name, value):
        pq.write_table(pa.table({"k": [value]}), tmp_path / "p" / f"{name}.parquet")

    for number in range(300):
        write(f"{number:03}", 1)
    ctx.register_parquet("p", tmp_path / "p")
    query, total = "SELECT sum(k) AS s FROM p", 300
    assert seen(cache, query) == ({"s": [total]}, "hit")
    for name in ("150", "299", "_hidden", "a b%20#é", "new"):
        total += 6 if name not in {"150", "299"} else 5
        write(name, 6)
        assert seen(cache, query) == ({"s": [total]}, "hit"), name
    assert cache.dataset("staged", tmp_path / "p").count() == 303
    write("_hidden", 7)
    assert str(cache.explain("staged")) == (
        "staged: miss (input changed: file changed: _hidden.parquet)"
    )


def test_a_function_that_replaces_a_built_in_is_user_defined(ctx, cache):
    """A user-defined function with a built-in name, or one not registered, needs a version."""
    replace_table(ctx, "m", k=[-1])
    assert seen(cache, "SELECT abs(k) AS a FROM m") == ({"a": [1]}, "hit")
    ctx.register_udf(udf(lambda v: v, [pa.int64()], pa.int64(), "immutable", "abs"))
    assert seen(cache, "SELECT abs(k) AS a FROM m") == ({"a": [-1]}, "miss")
    found = seen(cache, "SELECT abs(k) AS a FROM m", functions={"abs": "1"})
    assert found == ({"a": [-1]}, "hit")
    unknown = udf(lambda v: v, [pa.int64()], pa.int64(), "immutable", "Int64")
    assert seen(cache, ctx.table("m").select(unknown(col("k")).alias("a")))[1] == "miss"


class Sum(Accumulator):
    """An aggregate that sums."""

    def __init__(self):
        self.total = 0

    def update(self, values):
        self.total += sum(values.to_pylist())

    def merge(self, states):
        self.total += sum(states[0].to_pylist())

    def state(self):
        return [pa.scalar(self.total)]

    def evaluate(self):
        return pa.scalar(self.total)


@pytest.mark.slow
def test_python_sources_need_a_version(ctx, cache):
    """An Arrow dataset, a table function and a Python aggregate each need a version."""
    replace_table(ctx, "m", k=[1, 2])
    ctx.register_udaf(udaf(Sum, pa.int64(), pa.int64(), [pa.int64()], "immutable", "summed"))
    assert seen(cache, "SELECT summed(k) AS s FROM m") == ({"s": [3]}, "miss")
    assert seen(cache, "SELECT summed(k) AS s FROM m", functions={"summed": "1"})[1] == "hit"
    ctx.register_dataset("d", ds.dataset(pa.table({"k": [1]})))
    assert seen(cache, "SELECT * FROM d") == ({"k": [1]}, "miss")
    assert "cannot detect changes of d" in str(cache.explain("seen"))
    assert seen(cache, "SELECT * FROM d", version="1")[1] == "hit"
    ctx.register_udtf(udtf(lambda: Table(ds.dataset(pa.table({"k": [1]}))), "made"))
    assert seen(cache, "SELECT * FROM made()") == ({"k": [1]}, "miss")


@pytest.mark.slow
def test_a_large_in_memory_table_needs_a_version(ctx, cache):
    """An in-memory table of more than 64 MiB is not hashed, and needs a version."""
    ctx.from_arrow(pa.table({"k": np.arange(9 << 20)}), name="large")
    query = "SELECT count(*) AS n FROM large WHERE k > 1"
    assert seen(cache, query)[1] == "miss"
    reason = "large holds more than 64 MiB in memory: pass version="
    assert reason in str(cache.explain("seen"))
    assert seen(cache, query, version="1")[1] == "hit"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pa.string(), pa.string_view()])
def test_the_batches_of_an_in_memory_table_do_not_count(kind, ctx, cache):
    """The hash of an in-memory table depends on neither batch sizes nor shared string buffers."""
    table = pa.table({"k": pa.array([f"{n:01000}" for n in range(20_000)], kind)})
    ctx.from_arrow(table, name="m")
    query = "SELECT count(k) AS n FROM m"
    assert seen(cache, query) == ({"n": [20_000]}, "hit")
    ctx.sql("SET datafusion.execution.batch_size = 100")
    assert str(cache.explain("seen")) == "seen: hit"
    ctx.deregister_table("m")
    ctx.from_arrow(table.slice(0, 19_999), name="m")
    assert seen(cache, query) == ({"n": [19_999]}, "hit")


def test_settings_that_change_a_result_count(ctx, cache):
    """Settings that change a result are part of the fingerprint; other settings are not."""
    replace_table(ctx, "m", at=["2020-01-01T00:00:00"])
    query = "SELECT date_part('hour', to_timestamp(at)) AS h FROM m"
    assert seen(cache, query) == ({"h": [0]}, "hit")
    ctx.sql("SET datafusion.execution.time_zone = '+05:00'")
    assert seen(cache, query) == ({"h": [19]}, "hit")
    for setting in ("execution.batch_size = 17", "optimizer.prefer_hash_join = false"):
        ctx.sql(f"SET datafusion.{setting}")
        assert str(cache.explain("seen")) == "seen: hit"


@pytest.mark.slow
def test_plans_of_another_time_zone_are_not_cached(ctx, cache):
    """A view or frame created under another time zone is not cached: it keeps that zone invisibly."""
    replace_table(ctx, "m", at=["2020-01-01T00:00:00"])
    hour = "SELECT date_part('hour', to_timestamp(at)) AS h FROM m"
    ctx.sql(f"CREATE VIEW v AS {hour}")
    assert seen(cache, "SELECT h FROM v") == ({"h": [0]}, "hit")
    ctx.sql("SET TIME ZONE = '+05:00'")
    assert seen(cache, "SELECT h FROM v") == ({"h": [0]}, "miss")
    assert "the view v was created before the session's time zone was set" in str(
        cache.explain("seen")
    )
    since = functions.to_timestamp(col("at"))
    frame = ctx.table("m").select(functions.date_part("hour", since).alias("h"))
    assert seen(cache, frame) == ({"h": [0]}, "miss")
    assert "may use another time zone: pass the query as SQL text" in str(cache.explain("seen"))
    ctx.sql(f"CREATE OR REPLACE VIEW v AS {hour}")
    for query in ("SELECT h FROM v", hour):
        assert seen(cache, query) == ({"h": [19]}, "hit")


@pytest.mark.slow
def test_a_cte_may_have_the_name_of_an_entry(ctx, cache):
    """A CTE may have the name of the entry, or of another table."""
    replace_table(ctx, "m", k=[1])
    recursive = (
        "WITH RECURSIVE seen AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM seen WHERE n < 3)"
        " SELECT max(n) AS top FROM seen"
    )
    for _ in range(2):
        assert seen(cache, recursive) == ({"top": [3]}, "hit")
    for query in (
        "SELECT seen.k FROM m AS seen",
        "WITH seen AS (SELECT k FROM m) SELECT * FROM seen",
    ):
        for _ in range(2):
            assert seen(cache, query) == ({"k": [1]}, "hit")


@pytest.mark.slow
def test_cached_views_that_a_query_reads_are_refreshed(ctx, cache, tmp_path):
    """Cached views that a query reads are refreshed, also through plain views and uncached ones."""
    write_deltalake(tmp_path / "t", pa.table({"k": [1]}))
    ctx.register_delta("t", tmp_path / "t")
    cache.view("one", "SELECT k FROM t")
    cache.view("two", "SELECT k + 1 AS k FROM one")
    ctx.sql("CREATE VIEW plain AS SELECT k + 1 AS k FROM two")
    query = "SELECT max(k) AS top FROM plain WHERE k > (SELECT min(k) FROM one)"
    assert seen(cache, query) == ({"top": [3]}, "hit")
    write_deltalake(tmp_path / "t", pa.table({"k": [2]}), mode="append")
    assert str(cache.explain("seen")) == "seen: miss (input changed: one must be recomputed)"
    assert seen(cache, query) == ({"top": [4]}, "hit")
    cache.view("one", "SELECT k + 0 * random() AS k FROM t")
    write_deltalake(tmp_path / "t", pa.table({"k": [3]}), mode="append")
    found, result = seen(cache, query)
    assert (found, result) == ({"top": [5.0]}, "miss")
    cache.view("one", "SELECT k FROM t")
    assert seen(cache, query) == ({"top": [5]}, "hit")


@pytest.mark.slow
def test_the_key_is_the_same_in_another_process(ctx, cache, tmp_path):
    """The fingerprint does not depend on names that the engine generates."""
    write_deltalake(tmp_path / "t", pa.table({"k": [1]}))
    script = f"""if True:
        import pyarrow as pa
        from deltawitness import DeltaCache, ObservedSessionContext
        ctx = ObservedSessionContext()
        ctx.register_delta("t", {str(tmp_path / "t")!r})
        cache = DeltaCache(ctx, {str(tmp_path / "cache")!r})
        frame = ctx.from_pydict({{"k": [1, 2]}}).join(ctx.table("t"), on="k")
        print(cache.view("seen", frame).count(), [entry.version for entry in cache.list()])
    """
    for _ in range(2):
        found = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        assert found.stdout == "1 [0]\n", found.stderr
