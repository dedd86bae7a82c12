"""A statement on other tables than Delta tables has the engine's result, and runs as often as in the engine."""

from __future__ import annotations

import asyncio

import pyarrow as pa
import pytest
from datafusion import SessionContext, col
from datafusion import functions as f

from deltawitness import ObservedSessionContext
from helpers.engine_calls import batches_of
from helpers.observed_sessions import CONFIG, WAYS, comparable, lasting

STATEMENTS = (
    "", "-- nothing but this", "/* c */ SELECT 1 AS a", "-- c\nSELECT 1 AS a", "SELECT 1 AS a;",
    'select 1 as "A b"', "(SELECT 1 AS a)", "VALUES (1), (2)", "SELECT 1; SELECT 2", "TABLE m",
    "WITH x AS (SELECT 1 AS a) SELECT * FROM x", "SELECT a FROM m WHERE a IN (SELECT a FROM m)",
    "SELECT * FROM none", "SELECT $1", "SHOW TABLES", "SHOW COLUMNS FROM m", "DESC m",
    "EXPLAIN INSERT INTO m VALUES (9)", "INSERT INTO m VALUES (9)", "INSERT INTO m (a) VALUES (9)",
    "INSERT INTO m SELECT a + 1 FROM m", "INSERT OVERWRITE m VALUES (9)", "INSERT INTO M VALUES (9)",
    'INSERT INTO "M" VALUES (9)', "INSERT INTO none VALUES (9)", "INSERT INTO m VALUES ('x')",
    "INSERT INTO m VALUES (1, 2)", "UPDATE m SET a = 9", "UPDATE m SET a = 9 WHERE a = 2",
    "UPDATE none SET a = 9", "DELETE FROM m", "DELETE FROM m WHERE a = 1", "DELETE FROM none",
    "TRUNCATE TABLE m", "MERGE INTO m USING (SELECT 1 AS a) s ON m.a = s.a WHEN MATCHED THEN DELETE",
    "CREATE TABLE n AS SELECT 1 AS a", "CREATE TABLE m AS SELECT 7 AS a",
    "CREATE TABLE IF NOT EXISTS m AS SELECT 7 AS a", "CREATE OR REPLACE TABLE m AS SELECT 7 AS a",
    "CREATE TABLE n (a INT DEFAULT 3)", 'CREATE TABLE "M n" AS SELECT 1 AS "a B"',
    "CREATE VIEW v AS SELECT * FROM m", "CREATE OR REPLACE VIEW v AS SELECT * FROM m",
    "CREATE TEMPORARY VIEW v AS SELECT 1", "CREATE EXTERNAL TABLE e STORED AS NONE LOCATION 'x'",
    "CREATE SCHEMA s", "CREATE SCHEMA IF NOT EXISTS public", "CREATE DATABASE d",
    "CREATE INDEX i ON m (a)", "CREATE FUNCTION g(INT) RETURNS INT RETURN $1", "DROP TABLE m",
    "DROP TABLE none", "DROP TABLE IF EXISTS none", "DROP VIEW IF EXISTS none", "DROP SCHEMA public",
    "DROP SCHEMA public CASCADE", "SET datafusion.execution.batch_size = 7",
    "RESET datafusion.execution.batch_size", "SET none = 1", "USE s", "BEGIN", "ROLLBACK",
    "PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p", "ALTER TABLE m ADD COLUMN b INT",
    "COPY (SELECT 1 AS a) TO '{out}/copied.csv'", "GRANT all",
)  # fmt: skip


def result_of(ctx, statement):
    """The result of a statement and the rows of its table afterwards, or the engine's errors."""

    def given(make):
        try:
            return comparable(make())
        except Exception as error:  # noqa: BLE001 - the errors are compared
            return type(error), lasting(str(error))

    ctx.sql("CREATE TABLE m AS SELECT * FROM (VALUES (1), (2)) AS v (a)")
    result = given(lambda: ctx.sql(statement))
    return result, given(lambda: ctx.table("m")), given(ctx.catalog)


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.one_case_in(3)
def test_a_statement_that_is_not_about_delta_is_the_engines(statement, tmp_path):
    """A statement without Delta tables has the plain engine's result, error and effect."""
    statement = statement.replace("{out}", str(tmp_path))
    expected = result_of(SessionContext(CONFIG), statement)
    for way in WAYS.values():
        with way() as make:
            assert result_of(make(CONFIG), statement) == expected


ENDINGS = {
    "__aiter__": lambda frame: asyncio.run(batches_of(frame)),
    "__arrow_c_stream__": pa.table,
    "__iter__": list,
    "aggregate": lambda frame: frame.aggregate([], [f.sum(col("count"))]).to_pydict(),
    "cache": lambda frame: frame.cache().to_pydict(),
    "collect": lambda frame: frame.collect(),
    "collect_column": lambda frame: frame.collect_column("count"),
    "collect_partitioned": lambda frame: frame.collect_partitioned(),
    "count": lambda frame: frame.count(),
    "execute_stream": lambda frame: frame.execute_stream(),
    "execute_stream_partitioned": lambda frame: frame.execute_stream_partitioned(),
    "execution_plan": lambda frame: frame.execution_plan(),
    "explain": lambda frame: frame.explain(),
    "filter": lambda frame: frame.filter("count > 5").count(),
    "into_view": lambda frame: frame.into_view(),
    "limit": lambda frame: frame.limit(1).to_pydict(),
    "logical_plan": lambda frame: frame.logical_plan(),
    "schema": lambda frame: frame.schema(),
    "select": lambda frame: frame.select((col("count") * 2).alias("z")).to_pydict(),
    "show": lambda frame: frame.show(),
    "to_arrow_table": lambda frame: frame.to_arrow_table(),
    "to_pandas": lambda frame: frame.to_pandas(),
    "to_polars": lambda frame: frame.to_polars(),
    "to_pydict": lambda frame: frame.to_pydict(),
    "to_pylist": lambda frame: frame.to_pylist(),
    "transform": lambda frame: frame.transform(lambda inner: inner.collect()),
}
"""What is done with the frame of a statement: the engine runs it once for each of these, or not."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.one_case_in(3)
def test_a_statement_runs_as_often_as_the_engine_runs_it(name, way, capsys):
    """A statement runs as often as in the plain engine, with the same results."""

    def ended(make):
        ctx = make(CONFIG)
        ctx.sql("CREATE TABLE m AS SELECT 1 AS a")
        result = comparable(ENDINGS[name](ctx.sql("INSERT INTO m VALUES (2)")))
        return result, comparable(ctx.table("m")), capsys.readouterr().out

    expected = ended(SessionContext)
    with WAYS[way]() as make:
        assert ended(make) == expected


@pytest.mark.parametrize("name", ["describe", "tail"])
def test_a_statement_that_the_engine_runs_several_times_runs_once(name):
    """Methods that run their frame several times in the plain engine run the statement once here."""
    ctx = ObservedSessionContext()
    ctx.sql("CREATE TABLE m AS SELECT 1 AS a")
    getattr(ctx.sql("INSERT INTO m VALUES (2)"), name)().collect()
    assert ctx.table("m").count() == 2
