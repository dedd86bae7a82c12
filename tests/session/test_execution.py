"""A statement runs once per call of a terminal method, and never when its frame is displayed."""

from __future__ import annotations

import asyncio
import copy

import pyarrow as pa
import pytest
from datafusion import DataFrameWriteOptions, SessionContext, col
from datafusion.dataframe import InsertOp
from deltalake import CommitProperties, DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    Settings,
    read_commit_metadata,
)
from deltawitness.exceptions import RepeatedStatementWarning, StatementError


@pytest.fixture
def uri(tmp_path):
    """A Delta table."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2]}))
    return str(tmp_path / "t")


@pytest.fixture
def ctx(uri):
    """A session with the Delta table `t` and the in-memory table `m`."""
    context = ObservedSessionContext()
    context.register_delta("t", uri)
    context.sql("CREATE TABLE m AS SELECT CAST(1 AS BIGINT) AS id")
    return context


def size(ctx, name):
    return ctx.sql(f"SELECT count(*) AS n FROM {name}").to_pydict()["n"][0]


async def _gather(frame):
    return [batch.to_pyarrow() async for batch in frame]


TERMINAL = {
    "collect": lambda df: df.collect()[0].to_pydict()["count"][0],
    "collect_column": lambda df: df.collect_column("count")[0].as_py(),
    "collect_partitioned": lambda df: df.collect_partitioned()[0][0].to_pydict()["count"][0],
    "to_arrow_table": lambda df: df.to_arrow_table()["count"][0].as_py(),
    "to_pandas": lambda df: int(df.to_pandas()["count"][0]),
    "to_polars": lambda df: df.to_polars()["count"][0],
    "to_pydict": lambda df: df.to_pydict()["count"][0],
    "to_pylist": lambda df: df.to_pylist()[0]["count"],
    "count": lambda df: df.count(),
    "show": lambda df: df.show() or 1,
    "execute_stream": lambda df: next(iter(df.execute_stream())).to_pyarrow().to_pydict()["count"][0],
    "execute_stream_partitioned": lambda df: next(df.execute_stream_partitioned()[0]).to_pyarrow()["count"][0].as_py(),
    "iteration": lambda df: next(iter(df)).to_pyarrow()["count"][0].as_py(),
    "async iteration": lambda df: asyncio.run(_gather(df))[0]["count"][0].as_py(),
    "arrow stream": lambda df: pa.table(df)["count"][0].as_py(),
    "cache": lambda df: df.cache().to_pydict()["count"][0],
    "describe": lambda df: df.describe().count() // 7,
    "tail": lambda df: df.tail(1).to_pydict()["count"][0],
    "a derived frame": lambda df: df.select((col("count") * 1).alias("n")).limit(1).to_pydict()["n"][0],
    "a derived frame by name": lambda df: df["count"].with_column_renamed("count", "n").to_pydict()["n"][0],
}  # fmt: skip


@pytest.mark.parametrize("target", ["t", "m"])
@pytest.mark.parametrize("how", TERMINAL)
@pytest.mark.one_case_in(3)
def test_a_statement_runs_once_per_terminal_call(ctx, target, how):
    """Each terminal call runs the statement once, on a Delta table and on an in-memory table."""
    before = size(ctx, target)
    frame = ctx.sql(f"INSERT INTO {target} VALUES (7)")
    assert size(ctx, target) == before
    assert TERMINAL[how](frame) == 1
    assert size(ctx, target) == before + 1
    with pytest.warns(RepeatedStatementWarning):
        assert TERMINAL[how](frame) == 1
    assert size(ctx, target) == before + 2


STATEMENTS = [
    "INSERT INTO t VALUES (7)",
    "INSERT INTO m VALUES (7)",
    "OPTIMIZE t",
    "TRUNCATE TABLE t",
    "DELETE FROM m",
]


@pytest.mark.parametrize("sql", STATEMENTS)
def test_looking_at_a_frame_runs_nothing(ctx, uri, sql):
    """Display, schema, plan, EXPLAIN, copies and derived frames do not run a statement."""
    before = size(ctx, "t"), size(ctx, "m"), DeltaTable(uri).version()
    frame = ctx.sql(sql)
    derived = frame.limit(1)
    for each in (frame, derived, copy.copy(frame)):
        assert "not run yet" in repr(each)
        assert "not run yet" in each._repr_html_()
        assert "7" not in repr(each)
        each.schema()
        each.logical_plan()
    assert (size(ctx, "t"), size(ctx, "m"), DeltaTable(uri).version()) == before


def test_a_look_at_a_copy_writes_no_file(ctx, tmp_path):
    """COPY TO writes when its rows are requested, also through count(), and not when it is displayed."""
    frame = ctx.sql(f"COPY t TO '{tmp_path}/out.csv' STORED AS CSV")
    assert "COPY TO: not run yet" in repr(frame)
    assert not (tmp_path / "out.csv").exists()
    assert frame.to_pydict() == {"count": [2]}
    assert (tmp_path / "out.csv").exists()


def test_a_setting_lets_display_run_a_statement(ctx):
    """A setting makes the display of a frame run its statement, as plain DataFusion does."""
    DeltaLakeInstrumentor().instrument(settings=Settings(repr_runs_dml=True))
    frame = ctx.sql("INSERT INTO t VALUES (7)")
    assert "| 1" in repr(frame)
    with pytest.warns(RepeatedStatementWarning):
        assert "<table" in frame._repr_html_()
    assert size(ctx, "t") == 4


def test_explain_runs_nothing(ctx, uri, capsys):
    """EXPLAIN and explain() run no write of any kind."""
    ctx.sql("EXPLAIN INSERT INTO t VALUES (7)").collect()
    ctx.sql("EXPLAIN DELETE FROM t WHERE id IN (SELECT id FROM t)").show()
    ctx.sql("UPDATE t SET id = 0").explain()
    assert "Dml: op=[Update] table=[t]" in capsys.readouterr().out
    assert DeltaTable(uri).version() == 0


@pytest.mark.slow
@pytest.mark.parametrize("plan_of", ["logical_plan", "optimized_logical_plan"])
@pytest.mark.parametrize("method", ["execute_logical_plan", "create_dataframe_from_logical_plan"])
def test_the_plan_of_a_statement_is_the_statement(ctx, method, plan_of):
    """The plan of a statement's frame, optimized or not, runs the statement on current versions."""
    make = getattr(ctx, method)

    def plan(sql):
        return getattr(ctx.sql(sql), plan_of)()

    assert make(plan("DELETE FROM t WHERE id = 1 AND id IN (SELECT id FROM m)")).to_pydict() == {
        "count": [1]
    }
    assert make(plan("DELETE FROM t WHERE 1 = 2")).to_pydict() == {"count": [0]}
    update = plan("UPDATE t SET id = abs(id) + 1")
    assert make(update).to_pydict() == {"count": [1]}
    assert make(update).to_pydict() == {"count": [1]}
    assert ctx.sql("SELECT id FROM t").to_pydict() == {"id": [4]}
    merge = plan("MERGE INTO t USING (SELECT 4 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE")
    assert make(merge).to_pydict() == {"count": [1]}


def test_a_plan_of_an_unknown_statement_is_refused(ctx, uri):
    """A DML plan of unknown origin is refused: it may write another table of the same name."""
    plan = SessionContext()
    plan.register_table("t", DeltaTable(uri))
    plan = plan.sql("DELETE FROM t").logical_plan()
    with pytest.raises(StatementError, match="was not made by this session"):
        ctx.create_dataframe_from_logical_plan(plan)
    assert DeltaTable(uri).version() == 0


# --- frames that write -------------------------------------------------------------------------------------


def test_write_table_appends_or_overwrites(ctx, uri):
    """`write_table` writes Delta tables by position like INSERT, and other tables as the engine does."""
    rows = ctx.from_pydict({"other_name": [7]})
    rows.write_table("t")
    assert size(ctx, "t") == 3
    rows.write_table("t", DataFrameWriteOptions(insert_operation=InsertOp.APPEND))
    rows.write_table("t", DataFrameWriteOptions(insert_operation=InsertOp.OVERWRITE))
    assert ctx.table("t").to_pydict() == {"id": [7]}
    ctx.from_pydict({"id": [7]}).write_table("m")
    assert size(ctx, "m") == 2
    assert DeltaTable(uri).version() == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"insert_operation": InsertOp.REPLACE}, "no primary key"),
        ({"sort_by": col("id")}, "sort_by"),
    ],
)
def test_write_options_that_delta_does_not_support_are_refused(ctx, uri, options, text):
    """An unsupported write option raises before anything is written."""
    with pytest.raises(StatementError, match=text):
        ctx.table("m").write_table("t", DataFrameWriteOptions(**options))
    with pytest.raises(StatementError, match="the table has 1 column, the frame 2"):
        ctx.from_pydict({"a": [1], "b": [2]}).write_table("t")
    assert DeltaTable(uri).version() == 0


def test_write_delta_makes_and_extends_a_table(ctx, tmp_path):
    """`write_delta` supports the modes and the options of `write_deltalake`."""
    target = tmp_path / "out"
    rows = ctx.from_pydict({"id": [1, 2], "p": ["a", "b"]})
    made = rows.write_delta(
        target, partition_by="p", name="out", configuration={"delta.appendOnly": "false"}
    )
    assert (made.version, made.rows, made.skipped) == (0, 2, False)
    assert DeltaTable(target).metadata().partition_columns == ["p"]
    assert rows.write_delta(target, mode="ignore").skipped
    with pytest.raises(Exception, match="already exists"):
        rows.write_delta(target)
    with pytest.raises(StatementError, match="expected one of error, append"):
        rows.write_delta(target, mode="replace")
    wider = ctx.from_pydict({"id": [3], "p": ["c"], "x": [1.5]})
    properties = CommitProperties(custom_metadata={"team": "ops"})
    assert (
        wider.write_delta(
            target, mode="append", schema_mode="merge", commit_properties=properties
        ).version
        == 1
    )
    assert read_commit_metadata(target).metadata["team"] == "ops"
    assert wider.write_delta(target, mode="overwrite", predicate="p = 'c'").version == 2


def test_a_table_that_is_written_by_its_location_is_served_at_its_new_version(ctx, uri):
    """A write by location makes the session serve the new version under the table's name."""
    ctx.from_pydict({"id": [7]}).write_delta(uri, mode="append")
    assert size(ctx, "t") == 3


def test_the_result_of_a_statement_can_be_written(ctx, tmp_path):
    """Writing a statement's frame runs the statement and writes its count as one row."""
    ctx.sql("INSERT INTO t VALUES (7)").write_delta(tmp_path / "counts")
    assert DeltaTable(tmp_path / "counts").to_pyarrow_table().to_pydict() == {"count": [1]}
    assert size(ctx, "t") == 3


def test_a_plain_frame_is_written_too(uri, tmp_path):
    """A frame of a context that is not observed can be written."""
    plain = SessionContext().from_pydict({"id": [7]})
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    ctx.register_view("fresh", plain)
    assert ctx.sql("INSERT INTO t SELECT * FROM fresh").to_pydict() == {"count": [1]}
