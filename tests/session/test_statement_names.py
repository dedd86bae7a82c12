"""A statement writes the table that it names, for every spelling; views return no rows of other tables."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest
from datafusion import SessionConfig
from deltalake import DeltaTable, write_deltalake

from deltawitness import ObservedSessionContext
from deltawitness.exceptions import StatementError


@pytest.fixture
def ctx():
    """An observed session."""
    return ObservedSessionContext()


def session(**options):
    config = SessionConfig()
    for name, value in options.items():
        config = config.set(f"datafusion.sql_parser.{name}", value)
    return ObservedSessionContext(config)


def rows(uri):
    return sorted(tuple(row.values()) for row in DeltaTable(uri).to_pyarrow_table().to_pylist())


def values(ctx, sql):
    return sorted(tuple(row.values()) for row in ctx.sql(sql).to_pylist())


@pytest.mark.parametrize(
    ("delta", "memory"), [("raw.t2", '"raw.t2"'), ('"raw.t2"', "raw.t2"), ('"public.t2"', "t2")]
)
def test_an_in_memory_table_is_distinguished_from_a_delta_table_with_the_same_text(
    ctx, make, delta, memory
):
    """An in-memory table and a Delta table with the same unquoted name are two tables."""
    ctx.sql("CREATE SCHEMA raw")
    uri = make("d", id=[1, 2, 3])
    ctx.register_table(delta, DeltaTable(uri))
    ctx.sql(f"CREATE TABLE {memory} (id BIGINT) AS VALUES (1), (2)")
    qualified = f"public.{memory}" if delta == '"public.t2"' else memory
    ctx.sql(f"INSERT INTO {qualified} VALUES (9)").collect()
    for statement in (f"INSERT OVERWRITE {qualified} VALUES (5)", f"TRUNCATE TABLE {qualified}"):
        with pytest.raises(Exception, match=r"(?i)not implemented|not supported"):
            ctx.sql(statement).collect()
    assert (DeltaTable(uri).version(), rows(uri)) == (0, [(1,), (2,), (3,)])
    assert values(ctx, f"SELECT id FROM {qualified}") == [(1,), (2,), (9,)]
    ctx.sql(f"DELETE FROM {delta} WHERE id = 1").collect()
    assert rows(uri) == [(2,), (3,)]


def test_names_of_prepared_statements_are_folded_always(make):
    """Names of prepared statements are folded for every setting, as in the engine."""
    ctx = session(enable_ident_normalization="false")
    uri = make("t", id=[1, 2])
    ctx.register_delta("t", uri)
    ctx.sql("PREPARE Job AS DELETE FROM t")
    ctx.sql("DEALLOCATE job")
    ctx.sql("PREPARE job AS SELECT count(*) AS n FROM t")
    assert ctx.sql("EXECUTE Job").to_pydict() == {"n": [2]}
    ctx.sql("PREPARE Foo(BIGINT) AS DELETE FROM t WHERE id = $1")
    ctx.sql("EXECUTE foo(1)").collect()
    assert rows(uri) == [(2,)]


@pytest.mark.slow
def test_only_letters_of_ascii_are_folded(ctx, make, tmp_path):
    """Only ASCII letters are folded, as in the engine, in names of tables, columns and views."""
    ctx.sql(
        'CREATE EXTERNAL TABLE d (id BIGINT, "Übung" BIGINT DEFAULT 7) STORED AS DELTATABLE'
        f" LOCATION '{tmp_path}/d'"
    )
    ctx.sql("INSERT INTO d (id, Übung) VALUES (1, 5)").collect()
    assert rows(tmp_path / "d") == [(1, 5)]
    upper, lower = make("upper", id=[1]), make("lower", id=[10])
    for uri in (upper, lower):
        write_deltalake(uri, pa.table({"id": [20]}), mode="append")
    ctx.register_table('"Ä"', DeltaTable(upper))
    ctx.register_table('"ä"', DeltaTable(lower))
    ctx.sql("RESTORE Ä TO VERSION 0").collect()
    assert (rows(upper), rows(lower)) == ([(1,)], [(10,), (20,)])
    uri = make("t", id=[1, 2])
    ctx.register_delta("t", uri)
    ctx.sql('CREATE VIEW "Ü" AS SELECT * FROM t')
    ctx.sql("DROP VIEW Ü")
    ctx.sql("CREATE TABLE Ü AS VALUES ('mine')")
    ctx.sql("CREATE VIEW Öl AS SELECT * FROM t")
    ctx.sql("INSERT INTO t VALUES (3)").collect()
    assert values(ctx, "SELECT * FROM Ü") == [("mine",)]
    assert values(ctx, "SELECT * FROM Öl") == [(1,), (2,), (3,)]


def test_a_minus_sign_before_a_negative_number_starts_no_comment(make):
    """In dialects whose comments need white space after --, `--1` hides no clause of a MERGE."""
    ctx = session(dialect="mysql")
    target, source = make("t", id=[1], v=[10]), make("s", id=[1, 9], v=[100, 900])
    ctx.register_delta("t", target)
    ctx.register_delta("s", source)
    merge = (
        "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v{}1"
        " WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, s.v)"
    )
    with pytest.raises(StatementError, match="space after --"):
        ctx.sql(merge.format("--")).collect()
    assert DeltaTable(target).version() == 0
    ctx.sql(merge.format("- -")).collect()
    assert rows(target) == [(1, 101), (9, 900)]


@pytest.mark.parametrize("drop", ["DROP VIEW [v]", 'DROP VIEW "v"'])
def test_names_in_brackets_are_names(make, drop):
    """A view dropped by a name in brackets does not come back in place of another table."""
    ctx = session(dialect="mssql")
    uri = make("t", id=[1, 2])
    ctx.register_delta("t", uri)
    ctx.sql("CREATE VIEW v AS SELECT * FROM t")
    ctx.sql("CREATE VIEW [w x] AS SELECT * FROM t")
    ctx.sql("CREATE OR ALTER VIEW z AS SELECT * FROM t")
    ctx.sql(drop)
    ctx.sql("CREATE TABLE [v] AS VALUES ('mine')")
    ctx.sql("INSERT INTO t VALUES (3)").collect()
    assert values(ctx, "SELECT * FROM v") == [("mine",)]
    assert len(values(ctx, "SELECT * FROM [w x]")) == 3
    assert len(values(ctx, "SELECT * FROM z")) == 3


@pytest.mark.slow
def test_a_reader_waits_for_a_view_that_is_being_replaced(ctx, make):
    """A reader waits while a view is replaced, and so sees earlier writes of the same thread."""
    ctx.register_delta("t", make("t", id=[0]))
    union = " UNION ALL ".join(["SELECT id FROM t"] * 40)
    ctx.sql(f"CREATE VIEW v AS SELECT count(*) AS n FROM ({union})")
    seen = []
    for number in range(1, 9):
        ctx.sql(f"INSERT INTO t VALUES ({number})").collect()
        other = threading.Thread(target=lambda: ctx.sql("SELECT n FROM v").collect())
        other.start()
        seen.append(ctx.sql("SELECT n FROM v").to_pydict()["n"][0] // 40)
        other.join(60)
    assert seen == list(range(2, 10))


@pytest.mark.slow
def test_a_table_without_a_name_is_read_at_the_version_that_was_served_last(ctx, make, tmp_path):
    """Views, prepared and pending statements read a deregistered table at the last served version."""
    uri = make("t", id=[1])
    ctx.register_delta("t", uri)
    ctx.register_delta("k", make("k", id=[0]))
    ctx.sql("CREATE VIEW b AS SELECT id FROM t")
    ctx.sql("PREPARE p AS SELECT id FROM t")
    pending = ctx.sql("INSERT INTO k SELECT id FROM t")
    copy = ctx.sql(f"COPY t TO '{tmp_path}/copy' STORED AS DELTATABLE")
    ctx.sql("INSERT INTO t VALUES (2)").collect()
    ctx.sql("DROP TABLE t")
    ctx.register_delta("t", make("other", id=[500]))
    assert values(ctx, "SELECT * FROM b") == values(ctx, "EXECUTE p") == [(1,), (2,)]
    pending.collect()
    assert values(ctx, "SELECT * FROM k") == [(0,), (1,), (2,)]
    copy.collect()
    assert rows(tmp_path / "copy") == [(1,), (2,)]


TEXTS = {
    "a lone quote": """SELECT '"' AS q, "id" FROM t WHERE "id" > 0""",
    "quotes and a pattern": """SELECT id, replace('"', '"', '') AS q FROM t WHERE 'a' NOT LIKE '%"%'""",
    "an array": "SELECT id, [(SELECT max(id) FROM t)] AS q FROM t",
    "a comment": "SELECT id /* \" */ FROM /* it's */ t",
}


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_hides_the_names_in_a_query(ctx, make, text):
    """Strings and comments do not hide a name: views and prepared queries read the newest version."""
    uri = make("t", id=[1, 2])
    ctx.register_delta("t", uri)
    ctx.sql(f"PREPARE p AS {TEXTS[text]}")
    ctx.sql(f"CREATE VIEW v AS {TEXTS[text]}")
    ctx.register_view("f", ctx.sql(TEXTS[text]))
    ctx.sql("INSERT INTO t VALUES (3)").collect()
    assert [
        len(values(ctx, sql)) for sql in ("EXECUTE p", "SELECT * FROM v", "SELECT * FROM f")
    ] == [3] * 3


@pytest.mark.parametrize("name", ["t$1", "src#1", '"a b"', '"select"', '"x""y"', '"x`y"'])
def test_names_with_odd_characters_are_found(ctx, make, name):
    """Names with special characters work in views, prepared queries and MERGE."""
    uri = make("d", id=[1, 2])
    ctx.register_delta(name if name.startswith('"') else f'"{name}"', uri)
    spelled = name if name.startswith('"') or "$" in name else f'"{name}"'
    ctx.sql(f"CREATE VIEW v AS SELECT id FROM {spelled}")
    ctx.sql(f"PREPARE p AS SELECT id FROM {spelled}")
    ctx.sql(f"INSERT INTO {spelled} VALUES (3)").collect()
    assert len(values(ctx, "SELECT * FROM v")) == len(values(ctx, "EXECUTE p")) == 3
    ctx.register_delta("target", make("t", id=[3]))
    merge = (
        f"MERGE INTO target AS t USING {spelled} AS s ON abs(t.id) = s.id WHEN MATCHED THEN DELETE"
    )
    ctx.sql(merge).collect()
    assert values(ctx, "SELECT * FROM target") == []


@pytest.mark.parametrize(
    "statement", ["UPDATE t SET id = 99 WHERE v > '3'", "DELETE FROM t WHERE v > '3'"]
)
def test_a_statement_whose_columns_have_other_types_is_refused(ctx, make, statement):
    """A statement is refused if a column's type changed: its filter could select other rows."""
    uri = make("t", id=[1, 2], v=["3", "10"])
    ctx.register_delta("t", uri)
    pending = ctx.sql(statement)
    other = pa.table({"id": [1, 2], "v": [3, 10]})
    write_deltalake(uri, other, mode="overwrite", schema_mode="overwrite")
    with pytest.raises(StatementError, match="have changed"):
        pending.collect()
    assert rows(uri) == [(1, 3), (2, 10)]


def test_columns_and_tables_may_be_called_by_keywords(ctx, tmp_path, make):
    """Keywords can be names of columns and of the target in an INSERT."""
    ctx.sql(
        'CREATE EXTERNAL TABLE d ("values" BIGINT, id BIGINT DEFAULT 7) STORED AS DELTATABLE'
        f" LOCATION '{tmp_path}/d'"
    )
    ctx.sql("INSERT INTO d (values) VALUES (1)").collect()
    assert rows(tmp_path / "d") == [(1, 7)]
    uri = make("o", a=[1])
    ctx.register_delta("overwrite", uri)
    ctx.sql("INSERT INTO overwrite (a) VALUES (2)").collect()
    assert rows(uri) == [(1,), (2,)]


def test_a_prepared_statement_keeps_the_frame_of_its_parameter(ctx, make):
    """A prepared statement keeps the frame that replaces one of its `$name` parameters."""
    uri = make("t", id=[1])
    ctx.register_delta("t", uri)
    frame = ctx.from_pydict({"id": [5]})
    ctx.sql("PREPARE p AS INSERT INTO t SELECT id FROM $rows", rows=frame)
    ctx.sql("EXECUTE p").collect()
    assert rows(uri) == [(1,), (5,)]
