"""Prepared statements and optimized plans write what the text of the statement says."""

from __future__ import annotations

import pyarrow as pa
import pytest
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake

from deltawitness import ObservedSessionContext
from deltawitness.exceptions import StatementError
from helpers.statement_sessions import ids, rows, session_of_kind


@pytest.fixture(params=["observed", "instrumented"])
def ctx(request):
    """An observed session: a proxy, or a plain context whose class is patched."""
    with session_of_kind(request.param) as session:
        yield session


# --- optimized plans -----------------------------------------------------------------------------------


def as_text(ctx, sql):
    return ctx.sql(sql)


def as_execute(ctx, sql):
    ctx.sql(f"PREPARE p AS {sql}")
    return ctx.sql("EXECUTE p")


def as_optimized(ctx, sql):
    return ctx.create_dataframe_from_logical_plan(ctx.sql(sql).optimized_logical_plan())


@pytest.mark.parametrize("way", [as_text, as_execute, as_optimized])
@pytest.mark.parametrize(
    "where",
    ["a IS NULL", "1 = 2", "a = NULL", "a IN (1) AND a IN (2)", "b > 5 AND false", "false"],
)
@pytest.mark.one_case_in(5)
def test_a_filter_that_never_holds_deletes_nothing(ctx, tmp_path, way, where):
    """A DELETE whose filter the optimizer folds to an empty relation deletes no row."""
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.int64())])
    write_deltalake(tmp_path / "t", pa.table({"a": [1, 2], "b": [10, 20]}, schema=schema))
    ctx.register_delta("t", tmp_path / "t")
    for statement in (f"DELETE FROM t WHERE {where}", f"UPDATE t SET b = 0 WHERE {where}"):
        assert way(ctx, statement).to_pydict() == {"count": [0]}
        if way is as_execute:
            ctx.sql("DEALLOCATE p")
    assert rows(tmp_path / "t") == [(1, 10), (2, 20)]


FILTERS = {
    "length(s) > 5 OR length(s) < 3": [2, 3],
    "st.x = 1": [2, 3],
    "st.x IS NULL": [1, 2],
    "CASE WHEN a > 1 THEN b ELSE a < 0 END": [1, 2, 3],
    "abs(a) = 1 AND abs(a) < 9": [2, 3],
    "(a + 1) * (a + 1) = 4": [2, 3],
    "a IN (SELECT a FROM o WHERE a > 1)": [1, 3],
    "s IN (SELECT 'abc') OR a = 3": [1],
    "EXISTS (SELECT 1 FROM o WHERE o.a = t.a) AND a <> 1": [1, 3],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", [as_text, as_execute, as_optimized])
@pytest.mark.parametrize("where", FILTERS)
@pytest.mark.one_case_in(5)
def test_a_prepared_delete_applies_its_filter(ctx, tmp_path, way, where):
    """A DELETE whose filter the optimizer moves into a projection, join or scan deletes the right rows."""
    schema = pa.schema(
        [
            ("a", pa.int64()),
            ("s", pa.string()),
            ("b", pa.bool_()),
            ("st", pa.struct([("x", pa.int64())])),
        ]
    )
    data = [
        {"a": 1, "s": "abcdef", "b": True, "st": {"x": 1}},
        {"a": 2, "s": "abc", "b": False, "st": {"x": 2}},
        {"a": 3, "s": "abcd", "b": None, "st": None},
    ]
    write_deltalake(tmp_path / "t", pa.Table.from_pylist(data, schema=schema))
    ctx.register_delta("t", tmp_path / "t")
    ctx.from_pydict({"a": [1, 2]}, name="o")
    way(ctx, f"DELETE FROM t WHERE {where}").collect()
    assert ctx.sql("SELECT a FROM t ORDER BY a").to_pydict()["a"] == FILTERS[where]


@pytest.mark.parametrize("way", [as_text, as_execute, as_optimized])
def test_an_update_writes_the_columns_that_it_names(ctx, make, way):
    """An UPDATE assigns the named columns, though the optimizer removes columns from the plan."""
    uri = make("t", a=[1, 2], b=[10, 20], c=[100, 200])
    ctx.register_delta("t", uri)
    ctx.from_pydict({"a": [1, 9], "b": [7, 8]}, name="s")
    way(ctx, "UPDATE t SET b = (SELECT max(b) FROM s WHERE s.a = t.a), c = 5 WHERE a = 1").collect()
    assert rows(uri) == [(1, 7, 5), (2, 20, 200)]


# --- prepared statements ---------------------------------------------------------------------------------

PREPARED = {
    "DELETE FROM t WHERE st.x = $1": ("(1)", [2, 3]),
    "DELETE FROM t WHERE length(s) > $1 OR length(s) < 2": ("(5)", [2, 3]),
    "DELETE FROM t WHERE a = $1 AND a IN (SELECT a FROM o)": ("(1)", [2, 3]),
    "DELETE FROM t WHERE a = $1": ("('1')", [2, 3]),
    "DELETE FROM t WHERE a IN (SELECT $1)": ("(1)", [2, 3]),
    "DELETE FROM t WHERE a = $1 AND 1 = 2": ("(1)", [1, 2, 3]),
    "UPDATE t SET a = a + $1 WHERE length(s) > 5 OR length(s) < 2": ("(10)", [2, 3, 11]),
    "UPDATE t SET a = $1 WHERE a = $2": ("(10, 1)", [2, 3, 10]),
    "UPDATE t SET s = 'k', a = 4 WHERE a = $1": ("(1)", [2, 3, 4]),
    "INSERT INTO t (a, s) VALUES ($1, $2)": ("(4, 'x')", [1, 2, 3, 4]),
    "INSERT INTO t (a) SELECT max(a) + $1 FROM t": ("(2)", [1, 2, 3, 5]),
}


@pytest.mark.parametrize("statement", PREPARED)
@pytest.mark.one_case_in(3)
def test_a_prepared_statement_has_the_values_that_it_is_executed_with(ctx, tmp_path, statement):
    """EXECUTE casts its values to the inferred types and is planned from the text of PREPARE each time."""
    schema = pa.schema(
        [("a", pa.int64()), ("s", pa.string()), ("st", pa.struct([("x", pa.int64())]))]
    )
    data = [
        {"a": 1, "s": "abcdef", "st": {"x": 1}},
        {"a": 2, "s": "abc", "st": {"x": 2}},
        {"a": 3, "s": "abcd", "st": None},
    ]
    write_deltalake(tmp_path / "t", pa.Table.from_pylist(data, schema=schema))
    ctx.register_delta("t", tmp_path / "t")
    ctx.from_pydict({"a": [1, 2]}, name="o")
    values, left = PREPARED[statement]
    ctx.sql(f"PREPARE p AS {statement}")
    ctx.sql(f"EXECUTE p{values}").collect()
    assert ctx.sql("SELECT a FROM t ORDER BY a").to_pydict()["a"] == left


def test_a_pending_execute_uses_the_statement_that_was_prepared_then(ctx, make):
    """A pending EXECUTE runs the statement prepared when it was created, though the name is prepared again."""
    uri = make("t", id=[1, 2, 3])
    ctx.register_delta("t", uri)
    ctx.sql("PREPARE p AS INSERT INTO t VALUES (9)")
    pending = ctx.sql("EXECUTE p")
    ctx.sql("DEALLOCATE p")
    ctx.sql("PREPARE p AS DELETE FROM t WHERE id < 3")
    ctx.sql("INSERT INTO t VALUES (4)").collect()
    pending.collect()
    assert rows(uri) == [(1,), (2,), (3,), (4,), (9,)]


def test_a_prepared_query_reads_the_new_version_of_the_table_that_it_named(ctx, make):
    """A prepared query reads new versions of its Delta table and keeps its in-memory table."""
    ctx.register_delta("t", make("t", id=[1, 2]))
    ctx.from_pydict({"id": [1, 5]}, name="m")
    ctx.sql("PREPARE q(BIGINT) AS SELECT id FROM t WHERE id IN (SELECT id FROM m) AND id >= $1")
    ctx.deregister_table("m")
    ctx.from_pydict({"id": [2]}, name="m")
    ctx.sql("INSERT INTO t VALUES (5)").collect()
    assert ids(ctx, "EXECUTE q(1)") == [1, 5]
    assert ids(ctx, "EXECUTE q(2)") == [5]
    with pytest.raises(Exception, match="expects 1 parameters"):
        ctx.sql("EXECUTE q")


def test_a_prepared_merge_has_its_values(ctx, make):
    """A prepared MERGE needs declared parameter types: a clause alone does not show them."""
    uri = make("t", id=[1, 2], v=[0, 0])
    ctx.register_delta("t", uri)
    merge = "MERGE INTO t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v ="
    ctx.sql(f"PREPARE p(BIGINT) AS {merge} $1")
    ctx.sql("EXECUTE p('7')").collect()
    assert rows(uri) == [(1, 7), (2, 0)]
    ctx.sql(f"PREPARE q AS {merge} abs(0 - 3)")
    ctx.sql("EXECUTE q").collect()
    assert rows(uri) == [(1, 3), (2, 0)]
    ctx.sql(f"PREPARE r AS {merge} t.v + $1")
    with pytest.raises(StatementError, match="needs the types of its parameters"):
        ctx.sql("EXECUTE r(1)").collect()
    assert rows(uri) == [(1, 3), (2, 0)]


def test_execute_of_an_unobserved_prepare_is_refused(make):
    """EXECUTE is refused if PREPARE was not observed: the text is unknown and the plan is optimized."""
    uri = make("t", id=[1, 2])
    plain = SessionContext()
    plain.register_table("t", DeltaTable(uri))
    plain.sql("PREPARE p AS DELETE FROM t WHERE 1 = 2")
    plain.deregister_table("t")
    ctx = ObservedSessionContext(plain)
    ctx.register_delta("t", uri)
    with pytest.raises(StatementError, match="prepare it here"):
        ctx.sql("EXECUTE p").collect()
    assert rows(uri) == [(1,), (2,)]
