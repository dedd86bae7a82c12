"""A statement's names are resolved when it is created; only the versions of Delta tables change later."""

from __future__ import annotations

import datafusion
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from datafusion import Accumulator, SessionConfig, SessionContext, udaf, udf, udtf
from datafusion.catalog import Table
from deltalake import DeltaTable, write_deltalake

from deltawitness import ObservedSessionContext
from deltawitness.exceptions import StatementError
from helpers.statement_sessions import ids, rows, session_of_kind


@pytest.fixture(params=["observed", "instrumented"])
def ctx(request):
    """An observed session: a proxy, or a plain context whose class is patched."""
    with session_of_kind(request.param) as session:
        yield session


# --- names that are registered again ----------------------------------------------------------------------


@pytest.mark.parametrize("by_then", ["another Delta table", "a table in memory", "nothing"])
def test_a_statement_writes_the_table_that_it_named(ctx, make, by_then):
    """A pending statement writes the table that its name resolved to at creation, as in DataFusion."""
    first, second = make("first", id=[1, 2]), make("second", id=[5, 6])
    ctx.register_delta("t", first)
    pending = ctx.sql("DELETE FROM t WHERE id < 2 OR id = 6")
    ctx.deregister_table("t")
    if by_then == "another Delta table":
        ctx.register_delta("t", second)
    elif by_then == "a table in memory":
        ctx.from_pydict({"id": [1]}, name="t")
    assert pending.to_pydict() == {"count": [1]}
    assert (rows(first), rows(second)) == ([(2,)], [(5,), (6,)])


def test_the_plan_of_another_session_writes_its_own_table(make):
    """A plan from another session does not write this session's table of the same name."""
    first, second = make("first", id=[1, 2]), make("second", id=[1, 5])
    one, two = ObservedSessionContext(), ObservedSessionContext()
    one.register_delta("t", first)
    two.register_delta("t", second)
    plan = one.sql("DELETE FROM t WHERE id = 1").logical_plan()
    two.create_dataframe_from_logical_plan(plan).collect()
    assert (rows(first), rows(second)) == ([(2,)], [(1,), (5,)])
    assert ids(one, "SELECT id FROM t") == [2]


T = [(1, 10), (2, 20), (3, 30)]

UNDER_ANOTHER_SCHEMA = {
    "DELETE FROM t WHERE id IN (SELECT id FROM s)": T[1:],
    "DELETE FROM t WHERE id = 1": T[1:],
    "INSERT INTO t SELECT * FROM s": [(1, 10), *T],
    "INSERT OVERWRITE t SELECT * FROM s": [(1, 10)],
    "UPDATE t SET v = (SELECT max(v) FROM t)": [(1, 30), (2, 30), (3, 30)],
    "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE": T[1:],
    "MERGE INTO t USING s ON t.id = abs(s.id) WHEN MATCHED THEN DELETE": T[1:],
    "TRUNCATE TABLE t": [],
    "EXECUTE p": T[1:],
    "RESTORE t TO VERSION 0": [(1, 10), (2, 20)],
}


@pytest.mark.slow
@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("statement", UNDER_ANOTHER_SCHEMA)
@pytest.mark.one_case_in(3)
def test_a_statement_means_the_default_schema_that_it_was_made_under(
    ctx, make, statement, is_written
):
    """A pending statement uses the default schema of its creation, also when it is planned again."""
    ctx.sql("CREATE SCHEMA b")
    uris = {}
    for schema, own, source in (("public", [1, 2], [1]), ("b", [1, 2, 3, 4], [2, 3])):
        for name, values in (("t", own), ("s", source)):
            uri = make(f"{schema}_{name}", id=values, v=[value * 10 for value in values])
            uris[schema, name] = uri
            ctx.register_delta(f"{schema}.{name}", uri)
    ctx.sql("INSERT INTO public.t VALUES (3, 30)").collect()
    ctx.sql("PREPARE p AS DELETE FROM t WHERE id IN (SELECT id FROM s)")
    pending = ctx.sql(statement)
    before = rows(uris["b", "t"])
    ctx.sql("SET datafusion.catalog.default_schema = 'b'")
    if is_written:
        ctx.sql("UPDATE public.t SET v = v WHERE id = 3").collect()
        ctx.sql("DELETE FROM public.s WHERE id = 99").collect()
    pending.collect()
    assert rows(uris["public", "t"]) == UNDER_ANOTHER_SCHEMA[statement]
    assert rows(uris["b", "t"]) == before


@pytest.mark.slow
@pytest.mark.parametrize("way", ["table", "view", "frame"])
def test_statements_that_were_made_first_and_run_later_read_what_each_named(ctx, make, way):
    """Pending statements read the tables of their creation; no row is lost or doubled."""
    uri = make("t", id=[0])
    ctx.register_delta("t", uri)
    pending = []
    for number in (1, 2, 3):
        if way == "table":
            ctx.sql(f"CREATE OR REPLACE TABLE tmp AS SELECT {number} AS id")
        elif way == "view":
            ctx.sql(f"CREATE OR REPLACE VIEW tmp AS SELECT max(id) * 0 + {number} AS id FROM t")
        else:
            if number > 1:
                ctx.deregister_table("tmp")
            ctx.register_view("tmp", ctx.sql(f"SELECT max(id) * 0 + {number} AS id FROM t"))
        pending.append(ctx.sql("INSERT INTO t SELECT id FROM tmp"))
    for each in pending:
        each.collect()
    assert rows(uri) == [(0,), (1,), (2,), (3,)]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM t WHERE id = $x",
        "DELETE FROM t WHERE id IN (SELECT $x)",
        "MERGE INTO t USING (SELECT 1 AS k) s ON t.id = $x WHEN MATCHED THEN DELETE",
        "INSERT OVERWRITE t SELECT id FROM t WHERE id <> $x",
    ],
)
def test_parameters_are_copied_when_a_statement_is_made(ctx, make, statement):
    """Later changes of the caller's parameter dict have no effect."""
    uri = make("t", id=[1, 2, 3])
    ctx.register_delta("t", uri)
    given = {"x": 1}
    pending = ctx.sql(statement, param_values=given)
    given["x"] = 2
    ctx.sql("INSERT INTO t VALUES (4)").collect()
    pending.collect()
    assert rows(uri) == [(2,), (3,), (4,)]


@pytest.mark.parametrize("value", ["s.v", "abs(s.v)"])
def test_a_merge_reads_the_source_that_it_named(ctx, make, value):
    """A pending MERGE reads the source of its creation, whichever engine evaluates it."""
    uri = make("t", id=[1, 2], v=[0, 0])
    ctx.register_delta("t", uri)
    ctx.sql("CREATE TABLE tmp AS SELECT 1 AS id, 5 AS v")
    pending = ctx.sql(
        f"MERGE INTO t USING tmp AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = {value}"
    )
    ctx.sql("CREATE OR REPLACE TABLE tmp AS SELECT 2 AS id, 7 AS v")
    pending.collect()
    assert rows(uri) == [(1, 5), (2, 0)]


def test_a_statement_means_the_dialect_and_the_time_zone_that_it_was_made_under(ctx, make):
    """A pending statement uses the dialect and the time zone of its creation."""
    uri = make("t", id=[1], s=["q"])
    ctx.register_delta("t", uri)
    rename = ctx.sql('UPDATE t SET s = "id"')
    in_zone = ctx.sql("UPDATE t SET s = CAST(to_timestamp('2024-01-01T00:00:00') AS VARCHAR)")
    ctx.sql("SET datafusion.sql_parser.dialect = 'mysql'")
    ctx.sql("SET datafusion.execution.time_zone = '+05:00'")
    ctx.sql("INSERT INTO t VALUES (4, 'z')").collect()
    rename.collect()
    assert rows(uri) == [(1, "1"), (4, "4")]
    in_zone.collect()
    assert {text for _, text in rows(uri)} == {"2024-01-01T00:00:00"}


def test_a_statement_calls_the_function_that_it_named(ctx, make):
    """A pending statement calls the function of its creation, though the name was registered again."""

    def shift(by):
        return udf(
            lambda values: pa.array([v.as_py() + by for v in values], pa.int64()),
            [pa.int64()],
            pa.int64(),
            "immutable",
            "shift",
        )

    uri = make("t", id=[1])
    ctx.register_delta("t", uri)
    ctx.register_udf(shift(10))
    pending = ctx.sql("INSERT INTO t SELECT shift(id) FROM t WHERE id = 1")
    ctx.sql("PREPARE p AS INSERT INTO t SELECT shift(id) FROM t WHERE id = 2")
    ctx.register_udf(shift(100))
    ctx.sql("INSERT INTO t VALUES (2)").collect()
    pending.collect()
    ctx.sql("EXECUTE p").collect()
    assert rows(uri) == [(1,), (2,), (11,), (12,)]


def test_functions_of_every_kind_are_called_again(ctx, make):
    """Aggregate and table functions are available when a statement is planned again."""

    class Total(Accumulator):
        def __init__(self):
            self.total = 0

        def update(self, values):
            self.total += sum(value.as_py() for value in values)

        def merge(self, states):
            self.total += sum(value.as_py() for value in states[0])

        def state(self):
            return [pa.scalar(self.total)]

        def evaluate(self):
            return pa.scalar(self.total)

    uri = make("t", id=[1])
    ctx.register_delta("t", uri)
    ctx.register_udaf(udaf(Total, pa.int64(), pa.int64(), [pa.int64()], "stable", name="total"))
    for value in (7, 8):
        numbers = Table(ds.dataset(pa.table({"id": [value]})))
        ctx.register_udtf(udtf(lambda numbers=numbers: numbers, "numbers"))
        if value == 7:
            pending = ctx.sql(
                "INSERT INTO t SELECT s.id * 100 + total(t.id) FROM numbers() AS s, t GROUP BY s.id"
            )
    ctx.sql("INSERT INTO t VALUES (2)").collect()
    pending.collect()
    assert rows(uri) == [(1,), (2,), (703,)]


def test_a_function_from_before_the_session_was_observed_is_called_again(make):
    """A UDF registered before the session was observed is available when a statement is planned again."""
    plain = SessionContext()
    plain.register_udf(udf(lambda v: pc.add(v, 100), [pa.int64()], pa.int64(), "immutable", "plus"))
    ctx = ObservedSessionContext(plain)
    uri = make("t", id=[1])
    ctx.register_delta("t", uri)
    pending = ctx.sql("INSERT INTO t SELECT plus(max(id)) FROM t")
    ctx.sql("INSERT INTO t VALUES (2)").collect()
    pending.collect()
    assert rows(uri) == [(1,), (2,), (102,)]


def test_a_file_that_is_named_by_its_path_is_read_again(ctx, make, tmp_path):
    """A file path as a table name works when a statement is planned again."""
    pq.write_table(pa.table({"id": [9]}), tmp_path / "f.parquet")
    ctx = ctx.enable_url_table()
    uri = make("t", id=[1])
    ctx.register_delta("t", uri)
    pending = ctx.sql(f"INSERT INTO t SELECT f.id FROM '{tmp_path}/f.parquet' AS f, t")
    ctx.sql("INSERT INTO t VALUES (2)").collect()
    pending.collect()
    assert rows(uri) == [(1,), (2,), (9,), (9,)]


@pytest.mark.parametrize("how", ["dropped", "replaced"])
def test_a_view_reads_the_table_in_memory_that_it_named(ctx, make, how):
    """A view keeps its in-memory table and follows its Delta table: an overwrite from it loses no row."""
    uri = make("t", id=[1, 2])
    ctx.register_delta("t", uri)
    ctx.from_pydict({"id": [2]}, name="tmp")
    ctx.sql("CREATE VIEW v AS SELECT * FROM t WHERE id NOT IN (SELECT id FROM tmp)")
    ctx.register_view("w", ctx.sql("SELECT * FROM t WHERE id NOT IN (SELECT id FROM tmp)"))
    ctx.deregister_table("tmp")
    if how == "replaced":
        ctx.from_pydict({"id": [1]}, name="tmp")
    ctx.sql("INSERT INTO t VALUES (9)").collect()
    assert ids(ctx, "SELECT id FROM v") == ids(ctx, "SELECT id FROM w") == [1, 9]
    ctx.sql("INSERT OVERWRITE t SELECT * FROM v").collect()
    assert rows(uri) == [(1,), (9,)]


def test_a_view_follows_its_table_to_another_name(ctx, make):
    """A view follows its Delta table if the session serves the table under another name."""
    uri = make("t", id=[1])
    ctx.register_delta("t", uri)
    ctx.sql("CREATE VIEW v AS SELECT id FROM t")
    ctx.deregister_table("t")
    ctx.register_delta("renamed", uri)
    ctx.sql("INSERT INTO renamed VALUES (2)").collect()
    assert ids(ctx, "SELECT id FROM v") == [1, 2]


@pytest.mark.parametrize(
    "target", ["a table in memory", "a Delta table by its location", "Parquet files"]
)
def test_a_pending_copy_reads_the_newest_version(ctx, make, tmp_path, target):
    """A pending COPY reads the newest version of the tables that it named."""
    ctx.register_delta("t", make("t", id=[1]))
    ctx.from_pydict({"id": [1, 2]}, name="m")
    query = "SELECT id FROM t WHERE id IN (SELECT id FROM m)"
    ctx.sql("CREATE TABLE copy (id BIGINT)")
    pending = ctx.sql(
        {
            "a table in memory": f"INSERT INTO copy {query}",
            "a Delta table by its location": f"COPY ({query}) TO '{tmp_path}/d' STORED AS DELTATABLE",
            "Parquet files": f"COPY ({query}) TO '{tmp_path}/d/' STORED AS PARQUET",
        }[target]
    )
    ctx.sql("INSERT INTO t VALUES (2)").collect()
    ctx.deregister_table("m")
    ctx.from_pydict({"id": []}, name="m")
    assert pending.to_pydict() == {"count": [2]}
    if target == "a Delta table by its location":
        assert rows(tmp_path / "d") == [(1,), (2,)]
    elif target == "Parquet files":
        assert sorted(ctx.read_parquet(f"{tmp_path}/d/").to_pydict()["id"]) == [1, 2]
    else:
        assert ids(ctx, "SELECT id FROM copy") == [1, 2]


# --- tables that change ------------------------------------------------------------------------------------


def test_a_recreated_table_is_not_written_by_an_older_statement(ctx, make, tmp_path):
    """A statement does not write a table recreated after it; a newer statement does."""
    import shutil

    uri = make("t", id=[1, 2])
    ctx.register_delta("t", uri)
    pending = ctx.sql("DELETE FROM t WHERE id = 1")
    optimize = ctx.sql("OPTIMIZE t")
    shutil.rmtree(uri)
    write_deltalake(uri, pa.table({"id": [1, 2, 3]}))
    for statement in (pending, optimize):
        with pytest.raises(StatementError, match="created again"):
            statement.collect()
    assert DeltaTable(uri).version() == 0
    ctx.sql("DELETE FROM t WHERE id = 3").collect()
    assert rows(uri) == [(1,), (2,)]
    assert ids(ctx, "SELECT id FROM t") == [1, 2]


def test_a_statement_whose_tables_have_other_columns_by_then_is_refused(ctx, make):
    """A statement is refused after a schema change: its author must decide on a new column's value."""
    uri = make("t", id=[1])
    ctx.register_delta("t", uri)
    pending = ctx.sql("INSERT INTO t SELECT * FROM t")
    write_deltalake(uri, pa.table({"id": [2], "n": [5]}), mode="append", schema_mode="merge")
    with pytest.raises(StatementError, match=r"columns .* have changed"):
        pending.collect()
    assert DeltaTable(uri).version() == 1


def test_a_statement_that_reads_information_schema_is_not_planned_again(make):
    """A statement on information_schema is refused: it would list the scratch session's tables."""
    ctx = ObservedSessionContext(SessionConfig().with_information_schema(enabled=True))
    uri = make("t", id=[1])
    ctx.register_delta("t", uri)
    sql = "INSERT INTO t SELECT count(*) FROM information_schema.tables WHERE table_name = 't'"
    ctx.sql(sql).collect()
    assert rows(uri) == [(1,), (1,)]
    pending = ctx.sql("INSERT INTO t SELECT max(id) FROM t, information_schema.tables")
    ctx.sql("INSERT INTO t VALUES (3)").collect()
    with pytest.raises(StatementError, match="information_schema"):
        pending.collect()


# --- statements that the engine accepts ------------------------------------------------------------------


def test_columns_of_one_name_from_two_tables_are_inserted(ctx, tmp_path):
    """An INSERT from a join works if both tables have columns of one name."""
    schema = pa.schema([("p", pa.string()), ("q", pa.string())])
    DeltaTable.create(tmp_path / "t", schema=schema)
    ctx.register_delta("t", tmp_path / "t")
    for name, value in (("a", "s"), ("b", "z")):
        ctx.from_arrow(pa.table({"id": [1], "x": pa.array([value])}), name=name)
    ctx.sql("INSERT INTO t SELECT a.x, b.x FROM a JOIN b ON a.id = b.id").collect()
    assert rows(tmp_path / "t") == [("s", "z")]


DIALECTS = ("generic", "postgres", "mysql", "bigquery", "databricks", "mssql", "sqlite", "duckdb")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.one_case_in(3)
def test_a_merge_is_evaluated_in_every_dialect(ctx, make, dialect):
    """The SQL that an evaluated MERGE generates is valid in every dialect."""
    uri = make("t", id=[1, 2, 3], v=[10, 20, 30])
    ctx.register_delta("t", uri)
    ctx.sql(f"SET datafusion.sql_parser.dialect = '{dialect}'")
    ctx.sql(
        "MERGE INTO t USING (SELECT 1 AS id, 5 AS v UNION ALL SELECT 9, 6) AS n ON t.id = n.id"
        " WHEN MATCHED AND n.v > 4 THEN UPDATE SET v = abs(n.v)"
        " WHEN MATCHED THEN DELETE"
        " WHEN NOT MATCHED THEN INSERT (id, v) VALUES (n.id, abs(n.v))"
        " WHEN NOT MATCHED BY SOURCE AND abs(t.v) > 25 THEN DELETE"
    ).collect()
    assert rows(uri) == [(1, 5), (2, 20), (9, 6)]


def test_a_text_ends_where_the_dialect_ends_it(ctx, make):
    """Backslashes, backticks and comment signs in a statement are parsed in the session's dialect."""
    uri = make("t", id=[1], s=["a"])
    ctx.register_delta("t", uri)
    merge = "MERGE INTO t USING (SELECT 1 AS id) AS n ON abs(t.id) = n.id WHEN MATCHED THEN "
    ctx.sql("SET datafusion.sql_parser.dialect = 'mysql'")
    ctx.sql(merge + r"UPDATE SET `s` = 'it\'s, WHEN (' # WHEN NOT MATCHED THEN DELETE").collect()
    assert rows(uri) == [(1, "it's, WHEN (")]
    ctx.sql("SET datafusion.sql_parser.dialect = 'generic'")
    ctx.sql(merge + r"""UPDATE SET "s" = 'back\', `id` = 2""").collect()
    assert rows(uri) == [(2, "back\\")]


@pytest.mark.parametrize("value", ["n.v", "abs(n.v)"])
@pytest.mark.parametrize("alias", ["AS n", "n", ""])
def test_a_frame_is_the_source_of_a_merge_by_its_parameter_alone(ctx, make, alias, value):
    """A frame as the source of a MERGE works with and without an alias."""
    uri = make("t", id=[1, 2], v=[10, 20])
    ctx.register_delta("t", uri)
    news = ctx.from_pydict({"k": [1, 2], "w": [5, 6]}).filter("k < 2")
    text = f"MERGE INTO t USING $news {alias} ON t.id = k WHEN MATCHED THEN UPDATE SET v = {value}"
    ctx.sql(text.replace("n.v", "n.w" if alias else "w"), news=news).collect()
    assert rows(uri) == [(1, 5), (2, 20)]


def test_a_source_may_have_any_columns(ctx, make):
    """A source may have the column names that an evaluated MERGE uses internally."""
    uri = make("t", id=[1, 2], v=[10, 20])
    ctx.register_delta("t", uri)
    ctx.from_pydict(
        {"id": [1], "deltawitness_row": [5], "clause": [6], "key_0": [7], "value_0": [8]}, name="s"
    )
    ctx.sql(
        "MERGE INTO t USING s ON abs(t.id) = s.id WHEN MATCHED THEN"
        " UPDATE SET v = deltawitness_row + clause + key_0 + value_0"
        " WHEN NOT MATCHED THEN INSERT (id) VALUES (0)"
    ).collect()
    assert rows(uri) == [(1, 26), (2, 20)]


@pytest.mark.slow
def test_the_session_is_left_as_it_was(ctx, make):
    """Planning again leaves no name in the program's session."""
    ctx.register_delta("t", make("t", id=[1, 2]))
    ctx.sql("CREATE VIEW v AS SELECT id FROM t")
    before = ctx.catalog().schema().names()
    pending = ctx.sql("MERGE INTO t USING v ON abs(t.id) = v.id + 1 WHEN MATCHED THEN DELETE")
    ctx.sql("PREPARE p AS DELETE FROM t WHERE id IN (SELECT max(id) FROM v)")
    ctx.sql("INSERT INTO t VALUES (7)").collect()
    ctx.sql("EXECUTE p").collect()
    pending.collect()
    assert ctx.catalog().schema().names() == before
    assert ids(ctx, "SELECT id FROM v") == [1]
    assert isinstance(ctx, datafusion.SessionContext)
