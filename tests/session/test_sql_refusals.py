"""A statement that cannot be executed raises an error that says why, and writes nothing."""

from __future__ import annotations

import pyarrow as pa
import pytest
from datafusion import SQLOptions, udf
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from deltawitness.exceptions import StatementError
from helpers.people_tables import ANN, BOB, CAT, PEOPLE, people, people_session, run


@pytest.fixture
def ctx(tmp_path):
    """A session with two Delta tables."""
    return people_session(tmp_path)


REFUSED = {
    "several source rows for one target": (
        "MERGE INTO people p USING (VALUES (1, 'a'), (1, 'b')) AS s(k, v) ON p.id = s.k WHEN MATCHED THEN DELETE",
        StatementError,
        "alias with a list of columns",
    ),
    "several source rows update one row": (
        "MERGE INTO people p USING (SELECT 1 AS k, 'a' AS v UNION ALL SELECT 1, 'b') s ON p.id = s.k WHEN MATCHED THEN UPDATE SET name = s.v",
        DeltaError,
        "multiple source rows",
    ),
    "several source rows, evaluated": (
        "MERGE INTO people p USING (SELECT 1 AS k, 'a' AS v UNION ALL SELECT 1, 'a') s ON p.id = abs(s.k) WHEN MATCHED THEN UPDATE SET name = upper(s.v)",
        DeltaError,
        "multiple source rows",
    ),
    "a subquery with several rows": (
        "UPDATE people SET score = (SELECT score FROM news)",
        Exception,
        "more than one",
    ),
    "DELETE with LIMIT": ("DELETE FROM people LIMIT 1", StatementError, "LIMIT"),
    "REPLACE INTO": ("REPLACE INTO people VALUES (1, 'x', 0.0)", StatementError, "no primary key"),
    "a value that cannot be cast": ("UPDATE people SET id = 'x'", Exception, "(?i)cast"),
    "no such column": ("DELETE FROM people WHERE nope = 1", ValueError, "No field named nope"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_unsupported_statement_is_an_error_and_writes_nothing(ctx, tmp_path, case):
    """An unsupported statement raises an error with the reason, and nothing is written."""
    sql, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text):
        ctx.sql(sql).collect()
    assert DeltaTable(tmp_path / "people").version() == 0
    assert people(ctx) == [ANN, BOB, CAT]


def test_a_source_that_fails_in_the_middle_writes_nothing(ctx, tmp_path):
    """An error within the stream of a source leaves no commit, and the engine's error is raised."""

    def broken(values):
        msg = "no more"
        raise RuntimeError(msg)

    ctx.register_udf(udf(broken, [pa.int64()], pa.int64(), "volatile", "broken"))
    with pytest.raises(Exception, match="no more"):
        ctx.sql("INSERT INTO people SELECT broken(id), name, score FROM news").collect()
    assert DeltaTable(tmp_path / "people").version() == 0


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO people VALUES (9, 'x', 0.5)",
        "OPTIMIZE people",
        "VACUUM people",
        "RESTORE people TO VERSION 0",
        "COPY people TO 'elsewhere' STORED AS DELTATABLE",
    ],
)
def test_a_session_may_forbid_dml(ctx, sql):
    """`SQLOptions` that forbid DML apply to our own statements too."""
    with pytest.raises(Exception, match="DML not supported"):
        ctx.sql(sql, SQLOptions().with_allow_dml(allow=False)).collect()


def test_the_query_inside_a_statement_may_only_read(ctx, tmp_path):
    """The query inside a statement may only read, for any options of the statement."""
    for sql in (
        f"CREATE TABLE n STORED AS DELTATABLE LOCATION '{tmp_path}/n' AS INSERT INTO people VALUES (9, 'x', 0)",
        f"COPY (DROP TABLE people) TO '{tmp_path}/n' STORED AS DELTATABLE",
    ):
        with pytest.raises(Exception, match="not supported"):
            ctx.sql(sql)
    assert people(ctx) == [ANN, BOB, CAT]


def test_the_frame_of_a_statement_is_no_source(ctx, tmp_path):
    """A statement's frame is refused as a table: it would run the statement, or fail in the middle."""
    pending = ctx.sql("INSERT INTO people VALUES (9, 'x', 0.5)")
    for use in (
        lambda: ctx.sql("SELECT 1 AS count").union(pending),
        lambda: pending.union(pending),
        lambda: ctx.sql("SELECT * FROM $f", f=pending),
        lambda: ctx.register_view("v", pending),
    ):
        with pytest.raises(StatementError, match="not a source of rows"):
            use()
    assert "not run yet" in f"{pending}"
    assert "not run yet" in str(pending)
    assert DeltaTable(tmp_path / "people").version() == 0


def test_explain_analyze_of_a_write_is_refused(ctx):
    """EXPLAIN ANALYZE of a write is refused, because it runs the write."""
    with pytest.raises(StatementError, match="EXPLAIN ANALYZE"):
        ctx.sql("EXPLAIN ANALYZE DELETE FROM people")


@pytest.mark.parametrize(
    "words", ["EXPLAIN", "explain analyze", "EXPLAIN VERBOSE", "EXPLAIN /* x */ FORMAT TREE"]
)
@pytest.mark.parametrize(
    "statement",
    [
        "OPTIMIZE people",
        "OPTIMIZE people ZORDER BY (id)",
        "VACUUM people RETAIN 0 HOURS",
        "RESTORE people TO VERSION 0",
        "DESCRIBE HISTORY people",
        "COPY (SELECT 1 AS id) TO '{folder}/new' STORED AS DELTATABLE",
        "CREATE EXTERNAL TABLE new STORED AS DELTATABLE LOCATION '{folder}/new' AS SELECT 1 AS id",
    ],
)
def test_explain_of_a_command_is_refused(words, statement, ctx, tmp_path):
    """EXPLAIN of a statement that delta-rs runs is refused in one line, and runs nothing."""
    with pytest.raises(StatementError, match=r"^EXPLAIN of [A-Z]+ is not supported: .*$"):
        ctx.sql(f"{words} {statement.format(folder=tmp_path)}")
    assert people(ctx) == [ANN, BOB, CAT]
    assert DeltaTable(tmp_path / "people").version() == 0
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM people",
        "UPDATE people SET id = 9",
        "TRUNCATE TABLE people",
        "INSERT INTO people VALUES (9, 'x', 0.5)",
        "INSERT OVERWRITE people VALUES (9, 'x', 0.5)",
        "MERGE INTO people t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE",
        "DROP TABLE people",
    ],
)
def test_explain_of_a_write_shows_its_plan_and_runs_nothing(statement, ctx, tmp_path):
    """DataFusion has the logical plan of a DML statement; the rows, the table and its name stay."""
    plan = ctx.sql(f"EXPLAIN {statement}").to_pydict()
    assert plan["plan_type"][0] == "logical_plan"
    assert people(ctx) == [ANN, BOB, CAT]
    assert DeltaTable(tmp_path / "people").version() == 0


@pytest.mark.slow
def test_a_prepared_statement_uses_the_names_of_its_preparation(ctx, tmp_path):
    """A prepared statement keeps its names under another default schema, after a drop and on threads."""
    from concurrent.futures import ThreadPoolExecutor

    ctx.sql("PREPARE p AS INSERT INTO people VALUES ($1, 'p', 0.0)")
    ctx.sql("CREATE SCHEMA other")
    write_deltalake(tmp_path / "o", PEOPLE)
    ctx.register_delta("other.people", tmp_path / "o")
    ctx.sql("SET datafusion.catalog.default_schema = 'other'")
    assert run(ctx, "EXECUTE p(7)") == 1
    assert DeltaTable(tmp_path / "o").version() == 0
    ctx.sql("SET datafusion.catalog.default_schema = 'public'")
    ctx.deregister_table("people")
    assert run(ctx, "EXECUTE p(8)") == 1
    assert DeltaTable(tmp_path / "people").version() == 2
    ctx.register_delta("people", tmp_path / "people")
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda n: run(ctx, f"EXECUTE p({n})"), range(20))) == 20


def test_parameters_by_number_and_by_name_do_not_mix_in_an_insert(ctx):
    """Numbered and named parameters together raise DataFusion's error, and no value is mixed up."""
    with pytest.raises(ValueError, match="placeholder"):
        ctx.sql("INSERT INTO people VALUES ($1, $n, 0.5)", param_values={"1": 7, "n": "x"})


def test_a_constraint_holds_for_sql_too(ctx, tmp_path):
    """delta-rs checks constraints in SQL writes, and its error is raised."""
    DeltaTable(tmp_path / "people").alter.add_constraint({"positive": "id > 0"})
    with pytest.raises(Exception, match=r"(?i)check|constraint|invariant"):
        ctx.sql("INSERT INTO people VALUES (-1, 'x', 0.0)").collect()
    assert people(ctx) == [ANN, BOB, CAT]
