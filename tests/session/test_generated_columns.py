"""delta-rs computes a generated column that a write leaves out, for every kind of write."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from deltawitness import ObservedSessionContext
from deltawitness.exceptions import StatementError

PLACES = {
    "first": ["twice", "id", "n"],
    "in the middle": ["id", "twice", "n"],
    "last": ["id", "n", "twice"],
}


def create(uri, columns, generated, partition_by=None):
    """Create a table; `generated` maps a column to its expression."""
    fields = [
        pa.field(
            name,
            kind,
            metadata={"delta.generationExpression": generated[name]} if name in generated else None,
        )
        for name, kind in columns.items()
    ]
    DeltaTable.create(str(uri), pa.schema(fields), partition_by=partition_by)


def create_doubling(uri, order=("id", "n", "twice"), partition_by=None):
    create(uri, dict.fromkeys(order, pa.int64()), {"twice": "n * 2"}, partition_by)


def session(uri):
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    return ctx


def rows(ctx):
    return [
        tuple(row.values())
        for row in ctx.sql("SELECT id, n, twice FROM t ORDER BY id, n").to_pylist()
    ]


INSERTS = {
    "values": ("INSERT INTO t (id, n) VALUES (2, 20), (3, NULL)", [(2, 20, 40), (3, None, None)]),
    "in another order": ("INSERT INTO t (n, id) VALUES (20, 2)", [(2, 20, 40)]),
    "of one column": ("INSERT INTO t (n) VALUES (20)", [(None, 20, 40)]),
    "without what it is computed from": ("INSERT INTO t (id) VALUES (2)", [(2, None, None)]),
    "query": ("INSERT INTO t (id, n) SELECT 2, 20", [(2, 20, 40)]),
    "query in parentheses": ("INSERT INTO t (id, n) (SELECT 2, 20)", [(2, 20, 40)]),
    "from itself": ("INSERT INTO t (id, n) SELECT id + 1, n FROM t", []),
    "NULL of a query for another column": ("INSERT INTO t (id, n) SELECT 2, NULL", [(2, None, None)]),
    "CTE": ("INSERT INTO t (id, n) WITH c AS (SELECT 2 AS a, 20 AS b) SELECT * FROM c", [(2, 20, 40)]),
    "overwrite": ("INSERT OVERWRITE t (id, n) SELECT 2, 20", [(2, 20, 40)]),
    "with casts": ("INSERT INTO t (id, n) VALUES ('2', '20')", [(2, 20, 40)]),
    "quoted names": ('INSERT INTO "t" ("id", "n") VALUES (2, 20)', [(2, 20, 40)]),
    "names in capitals": ("INSERT INTO T (ID, N) VALUES (2, 20)", [(2, 20, 40)]),
    "right value, by name": ("INSERT INTO t (id, n, twice) VALUES (2, 20, 40)", [(2, 20, 40)]),
}  # fmt: skip


@pytest.mark.parametrize("partition_by", [None, ["twice"]])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", INSERTS)
@pytest.mark.one_case_in(5)
def test_an_insert_computes_generated_columns_that_it_does_not_name(
    tmp_path, case, place, partition_by
):
    """A generated column is computed at any position, and as a partition column."""
    create_doubling(tmp_path / "t", PLACES[place], partition_by)
    ctx = session(tmp_path / "t")
    sql, expected = INSERTS[case]
    ctx.sql(sql).collect()
    assert rows(ctx) == expected


def test_values_by_position_are_checked(tmp_path):
    """An INSERT without a column list gives a value to each column, and delta-rs checks it."""
    create_doubling(tmp_path / "t")
    ctx = session(tmp_path / "t")
    ctx.sql("INSERT INTO t VALUES (1, 10, 20)").collect()
    assert rows(ctx) == [(1, 10, 20)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (2, 20, 41)",
        "INSERT INTO t VALUES (2, 20, NULL)",
        "INSERT INTO t SELECT 2, 20, NULL",
        "INSERT INTO t (id, n, twice) VALUES (2, 20, NULL)",
        "INSERT INTO t (id, twice, n) SELECT 2, NULL, 20",
    ],
)
def test_a_value_that_is_not_the_computed_one_is_the_engines_error(tmp_path, sql):
    """A value, also NULL, that differs from the expression raises the engine's error."""
    create_doubling(tmp_path / "t")
    ctx = session(tmp_path / "t")
    with pytest.raises(DeltaError, match="failed validation"):
        ctx.sql(sql).collect()
    assert DeltaTable(tmp_path / "t").version() == 0


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (2, 20)",
        "INSERT INTO t SELECT 2, 20",
        "INSERT INTO t (id, n, twice) VALUES (2, 20, DEFAULT)",
        "INSERT INTO t DEFAULT VALUES",
    ],
)
def test_an_unplannable_statement_raises_datafusions_error(tmp_path, sql):
    """Too few values without a column list and the keyword DEFAULT raise DataFusion's errors."""
    create_doubling(tmp_path / "t")
    with pytest.raises(ValueError, match=r"planning|Schema error") as caught:
        session(tmp_path / "t").sql(sql)
    assert not isinstance(caught.value, StatementError)


def test_a_prepared_insert_computes_as_well(tmp_path):
    """Each EXECUTE and an INSERT with parameters compute generated columns."""
    create_doubling(tmp_path / "t")
    ctx = session(tmp_path / "t")
    ctx.sql("PREPARE p AS INSERT INTO t (id, n) VALUES ($1, $2)")
    ctx.sql("EXECUTE p(1, 10)").collect()
    ctx.sql("EXECUTE p(2, 20)").collect()
    insert = "INSERT INTO t (id, n) VALUES ($id, $n)"
    ctx.sql(insert, param_values={"id": 3, "n": 30}).collect()
    assert rows(ctx) == [(1, 10, 20), (2, 20, 40), (3, 30, 60)]


def test_the_plan_of_an_insert_computes_as_well(tmp_path):
    """The plan of an INSERT keeps its column list, so generated columns are computed."""
    create_doubling(tmp_path / "t")
    ctx = session(tmp_path / "t")
    plan = ctx.sql("INSERT INTO t (id, n) VALUES (2, 20)").optimized_logical_plan()
    ctx.create_dataframe_from_logical_plan(plan).collect()
    assert rows(ctx) == [(2, 20, 40)]


def test_defaults_and_generated_columns_together(tmp_path):
    """A generated column is computed from another column's default."""
    create_doubling(tmp_path / "t")
    ctx = ObservedSessionContext()
    ctx.sql(
        "CREATE EXTERNAL TABLE t (id BIGINT, n BIGINT DEFAULT 7, twice BIGINT)"
        f" STORED AS DELTATABLE LOCATION '{tmp_path / 't'}'"
    )
    ctx.sql("INSERT INTO t (id) VALUES (1)").collect()
    ctx.sql("INSERT INTO t (id, n) VALUES (2, NULL), (3, 4)").collect()
    assert rows(ctx) == [(1, 7, 14), (2, None, None), (3, 4, 8)]


@pytest.mark.slow
def test_several_generated_columns_are_computed_one_by_one(tmp_path):
    """Named generated columns are checked, the others are computed."""
    create(
        tmp_path / "t",
        dict.fromkeys(["more", "n", "twice"], pa.int64()),
        {"twice": "n * 2", "more": "n + 1"},
    )
    ctx = session(tmp_path / "t")
    ctx.sql("INSERT INTO t (n) VALUES (1)").collect()
    ctx.sql("INSERT INTO t (n, twice) VALUES (2, 4)").collect()
    ctx.sql("INSERT INTO t (more, n) VALUES (4, 3)").collect()
    with pytest.raises(DeltaError, match="failed validation"):
        ctx.sql("INSERT INTO t (n, twice) VALUES (5, 11)").collect()
    assert ctx.sql("SELECT n, more, twice FROM t ORDER BY n").to_pydict() == {
        "n": [1, 2, 3],
        "more": [2, 3, 4],
        "twice": [2, 4, 6],
    }


MOMENT = dt.datetime(2024, 2, 29, 23, 30, tzinfo=dt.UTC)
TYPED = {
    "date of a timestamp": (pa.timestamp("us", "UTC"), pa.date32(), "CAST(n AS DATE)", "'2024-02-29T23:30:00Z'", MOMENT.date()),
    "narrower integer": (pa.int64(), pa.int32(), "n * 2", "4", 8),
    "text": (pa.string(), pa.string(), "upper(n)", "'a'", "A"),
    "number of text": (pa.string(), pa.int64(), "CAST(n AS BIGINT)", "'12'", 12),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPED)
def test_a_computed_value_is_of_the_columns_type(tmp_path, case):
    """A computed value has the column's type, for any type of the expression and its inputs."""
    kind, computed, expression, value, expected = TYPED[case]
    create(tmp_path / "t", {"g": computed, "n": kind}, {"g": expression})
    ctx = session(tmp_path / "t")
    ctx.sql(f"INSERT INTO t (n) VALUES ({value})").collect()
    table = DeltaTable(tmp_path / "t").to_pyarrow_table()
    assert table.schema.field("g").type == computed
    assert table["g"].to_pylist() == [expected]


def test_names_that_need_quotes(tmp_path):
    """Quoted names work in the statement and in the expression."""
    create(
        tmp_path / "t",
        {"Twice It": pa.int64(), "n b": pa.int64(), 'q"q': pa.int64()},
        {"Twice It": "`n b` * 2"},
    )
    ctx = session(tmp_path / "t")
    ctx.sql('INSERT INTO t ("q""q", "n b") VALUES (1, 2)').collect()
    assert ctx.sql("SELECT * FROM t").to_pylist() == [{"Twice It": 4, "n b": 2, 'q"q': 1}]


def test_a_frame_without_the_generated_columns_is_written(tmp_path):
    """`write_table` and `write_delta` compute generated columns that a frame lacks."""
    create_doubling(tmp_path / "t", PLACES["in the middle"])
    ctx = session(tmp_path / "t")
    ctx.sql("SELECT 1 AS a, 10 AS b").write_table("t")
    ctx.sql("SELECT 2, 40, 20").write_table("t")
    ctx.sql("SELECT 3 AS id, 30 AS n").write_delta(tmp_path / "t", mode="append")
    copy = f"COPY (SELECT 4 AS id, 40 AS n) TO '{tmp_path / 't'}' STORED AS DELTATABLE OPTIONS ('mode' 'append')"
    ctx.sql(copy).collect()
    assert rows(ctx) == [(1, 10, 20), (2, 20, 40), (3, 30, 60), (4, 40, 80)]
    with pytest.raises(StatementError, match="the table has 3 columns, the frame 1"):
        ctx.sql("SELECT 1 AS a").write_table("t")


@pytest.mark.slow
def test_a_merge_computes_generated_columns_that_its_insert_does_not_name(tmp_path):
    """A MERGE computes generated columns, translated for delta-rs and evaluated by the session."""
    create_doubling(tmp_path / "t")
    ctx = session(tmp_path / "t")
    merge = "MERGE INTO t USING (SELECT {} AS id, 5 AS n) s ON t.id = s.id WHEN NOT MATCHED {} THEN INSERT (id, n) VALUES (s.id, s.n)"
    ctx.sql(merge.format(1, "")).collect()
    ctx.sql(merge.format(2, "AND s.n > (SELECT 1)")).collect()
    assert rows(ctx) == [(1, 5, 10), (2, 5, 10)]


def test_an_update_gives_the_generated_column_its_value_itself(tmp_path):
    """An UPDATE that leaves a wrong generated value raises delta-rs's error: it computes nothing there."""
    create_doubling(tmp_path / "t")
    ctx = session(tmp_path / "t")
    ctx.sql("INSERT INTO t (id, n) VALUES (1, 10)").collect()
    with pytest.raises(DeltaError, match="failed validation"):
        ctx.sql("UPDATE t SET n = 11").collect()
    ctx.sql("UPDATE t SET n = 11, twice = 22").collect()
    assert rows(ctx) == [(1, 11, 22)]
