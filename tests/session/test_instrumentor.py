"""Instrumented sessions write Delta tables without changes to the program."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pytest
from datafusion import ParquetWriterOptions, SessionContext
from deltalake import DeltaTable, write_deltalake
from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

from deltawitness import (
    DataFusionInstrumentor,
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    Settings,
    read_commit_metadata,
)
from deltawitness.commit import history
from deltawitness.exceptions import RepeatedStatementWarning, StatementError
from deltawitness.semconv import Operation
from deltawitness.session.frame_handlers import TERMINAL
from deltawitness.testing import InMemoryTelemetry
from helpers.patched_sessions import ids, observed, rows

STATEMENTS = {
    "INSERT": ("INSERT INTO t VALUES (4, 'x')", 1, Operation.WRITE, [1, 2, 3, 4]),
    "UPDATE": ("UPDATE t SET id = id + 10 WHERE id > 1", 2, Operation.UPDATE, [1, 12, 13]),
    "DELETE": ("DELETE FROM t WHERE id = 2", 1, Operation.DELETE, [1, 3]),
    "MERGE": (
        """
        MERGE INTO t USING (SELECT 3 AS id UNION ALL SELECT 9) s ON t.id = s.id
        WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)
        """,
        2,
        Operation.MERGE,
        [1, 2, 9],
    ),
}


@pytest.fixture
def ctx(table, instrumented):
    """A plain session with the table registered as `t`."""
    context = SessionContext()
    context.register_delta("t", table)
    return context


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_plain_session_writes_delta_by_sql(name, ctx, table, captured_writes):
    """A write gives one event, one commit with the event's ids, and the engine's count."""
    statement, count, operation, left = STATEMENTS[name]
    assert type(ctx) is SessionContext
    assert ctx.sql(statement).to_pydict() == {"count": [count]}
    assert ids(table) == left
    assert sorted(ctx.table("t").to_pydict()["id"]) == left
    (event,) = captured_writes
    commit = read_commit_metadata(table)
    assert (event.intent.operation, event.outcome.versions) == (operation, (1,))
    assert (commit.write_id, commit.run_id) == (event.write_id, event.run.run_id)
    assert commit.metadata["plan_hash"] == event.intent.plan_hash


def test_a_statement_runs_at_the_terminal_call(ctx, table, captured_writes):
    """It runs once per call, and not when its frame is displayed."""
    frame = ctx.sql("INSERT INTO t VALUES (4, 'x')")
    assert "not run yet" in repr(frame)
    assert "not run yet" in frame._repr_html_()
    assert frame.limit(1).schema() == frame.schema()
    assert ids(table) == [1, 2, 3]
    frame.collect()
    with pytest.warns(RepeatedStatementWarning):
        assert frame.count() == 1
    assert ids(table) == [1, 2, 3, 4, 4]
    assert len(captured_writes) == 2


@pytest.mark.parametrize("name", TERMINAL)
def test_each_terminal_call_runs_a_statement_once(name, ctx, table, captured_writes, capsys):
    """A terminal method that calls another one in the engine runs it once, too."""
    frame = ctx.sql("INSERT INTO t VALUES (4, 'x')")
    called = getattr(frame, name)(*(["count"] if name == "collect_column" else []))
    if name == "__aiter__":
        asyncio.run(_exhausted(called))
    elif name in {"__iter__", "execute_stream"}:
        assert len(list(called)) == 1
    assert ids(table) == [1, 2, 3, 4]
    assert len(captured_writes) == 1


async def _exhausted(batches):
    return [batch async for batch in batches]


def test_a_frame_is_written_by_name_and_by_location(ctx, table, tmp_path, captured_writes):
    """`write_table` and `write_delta` record the inputs of the write."""
    frame = ctx.table("t").filter("id > 1")
    frame.write_table("t")
    result = frame.write_delta(tmp_path / "new", partition_by="word")
    again = ctx.table("t").write_delta(table, mode="append")
    assert (result.version, result.rows, again.version, again.rows) == (0, 2, 2, 5)
    assert DeltaTable(tmp_path / "new").metadata().partition_columns == ["word"]
    assert ctx.table("t").count() == 10
    told = [(e.intent.table_name, e.outcome.versions, e.intent.inputs) for e in captured_writes]
    assert [(name, versions) for name, versions, _ in told] == [
        ("table", (1,)),
        ("new", (0,)),
        ("table", (2,)),
    ]
    assert [[read.version for read in inputs] for _, _, inputs in told] == [[0], [0], [1]]


def test_registered_tables_are_refreshed_fixed_and_deregistered(ctx, table, captured_writes):
    """The added methods behave as on an observed session."""
    write_deltalake(table, rows(4), mode="append")
    assert ctx.table("t").count() == 3
    ctx.refresh("t")
    assert ctx.table("t").count() == 4
    ctx.register_delta("old", table, version=0)
    with pytest.raises(StatementError, match="read only"):
        ctx.sql("DELETE FROM old")
    ctx.deregister_table("t")
    with pytest.raises(StatementError, match="not registered"):
        ctx.refresh("t")
    assert len(captured_writes) == 1


def test_delta_tables_of_schemas_and_statements_are_written(table, instrumented, captured_writes):
    """`Schema.register_table`, `CREATE EXTERNAL TABLE` and a catalog's schema give writable tables."""
    ctx = SessionContext()
    ctx.sql("CREATE SCHEMA s")
    ctx.catalog().schema("s").register_table("t", DeltaTable(table))
    ctx.sql(f"CREATE EXTERNAL TABLE x STORED AS DELTATABLE LOCATION '{table}'")
    ctx.sql("INSERT INTO datafusion.s.t VALUES (4, 'x')").collect()
    ctx.refresh("x")
    ctx.sql("INSERT INTO x VALUES (5, 'x')").collect()
    assert ids(table) == [1, 2, 3, 4, 5]
    ctx.catalog().schema("s").deregister_table("t")
    with pytest.raises(Exception, match="not found"):
        ctx.sql("INSERT INTO s.t VALUES (6, 'x')")
    assert [event.outcome.versions for event in captured_writes] == [(1,), (2,)]


def test_a_table_in_memory_is_written_as_ever(instrumented, captured_writes):
    """DataFusion writes it, without an event."""
    ctx = SessionContext()
    ctx.from_pydict({"id": [1]}, "m")
    frame = ctx.sql("INSERT INTO m VALUES (2)")
    assert frame.to_pydict() == {"count": [1]}
    ctx.from_pydict({"id": [3]}).write_table("m")
    assert ctx.table("m").count() == 3
    assert len(captured_writes) == 0


def test_exported_files_are_one_event(ctx, tmp_path, captured_writes):
    """An export is one event, whichever of DataFusion's methods call each other."""
    frame = ctx.table("t")
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_parquet_with_options(tmp_path / "b.parquet", ParquetWriterOptions())
    frame.write_csv(tmp_path / "c.csv")
    frame.write_json(tmp_path / "d.json")
    ctx.sql(f"COPY t TO '{tmp_path / 'e.csv'}'").collect()
    told = [(e.intent.table_name, e.outcome.metrics.rows_added) for e in captured_writes]
    assert told == [
        (f"{name}", 3) for name in ("a.parquet", "b.parquet", "c.csv", "d.json", "e.csv")
    ]


@pytest.mark.parametrize(
    "form", ["file:{}/a.csv", "FILE:{}/a.csv", "{}/a://b.csv", "file:{}/c%20d"]
)
def test_files_are_counted_in_each_spelling_of_a_local_destination(
    form, ctx, tmp_path, captured_writes
):
    """A destination without `//` after `file:`, and a path that contains `://`, are local."""
    (tmp_path / "c d").mkdir()
    ctx.sql(f"COPY t TO '{form.format(tmp_path)}' STORED AS CSV").collect()
    (path,) = tmp_path.rglob("*.csv")
    (event,) = captured_writes
    metrics = event.outcome.metrics
    assert (metrics.rows_added, metrics.files_added) == (3, 1)
    assert metrics.bytes_added == path.stat().st_size


def test_an_export_with_writer_options_is_one_event(ctx, tmp_path, captured_writes):
    """`write_parquet` with options calls `write_parquet_with_options`, which is observed, too."""
    ctx.table("t").write_parquet(tmp_path / "a.parquet", ParquetWriterOptions())
    assert len(captured_writes) == 1


QUERIES = {
    "__aiter__": lambda frame: asyncio.run(_exhausted(frame)),
    "__iter__": list,
    "collect": lambda frame: frame.collect(),
    "count": lambda frame: frame.count(),
    "pyarrow": pa.table,
    "show": lambda frame: frame.show(),
    "tail": lambda frame: frame.tail(1).to_pydict(),
    "to_pandas": lambda frame: frame.to_pandas(),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_has_as_many_spans_as_through_the_proxy(name, ctx, table, capsys):
    """With captured queries there is one span for each time that rows are returned to the program."""
    telemetry = InMemoryTelemetry.create()
    DeltaLakeInstrumentor().instrument(
        settings=Settings(capture_queries=True), **telemetry.providers()
    )
    QUERIES[name](ctx.table("t"))
    plain = [span.name for span in telemetry.spans()]
    DataFusionInstrumentor().uninstrument()
    proxied = ObservedSessionContext()
    proxied.register_delta("t", table)
    QUERIES[name](proxied.table("t"))
    assert plain == [span.name for span in telemetry.spans()][len(plain) :] == ["SELECT table"]


# --- what was there before ----------------------------------------------------------------------------


def test_a_context_made_before_writes_delta(table, captured_writes):
    """Patching the class gives existing contexts the methods."""
    ctx = SessionContext()
    ctx.from_pydict({"id": [7], "word": ["x"]}, "m")
    with observed():
        ctx.register_delta("t", table)
        ctx.sql("INSERT INTO t SELECT * FROM m").collect()
        ctx.sql("DELETE FROM t WHERE id > 2").collect()
    assert ids(table) == [1, 2]
    assert [event.intent.operation.value for event in captured_writes] == ["WRITE", "DELETE"]


def test_a_frame_made_before_is_written_and_read(table, tmp_path, captured_writes, capsys):
    """An existing frame has no known session, so its writes have no inputs."""
    ctx = SessionContext()
    ctx.register_table("t", DeltaTable(table))
    frame = ctx.table("t").filter("id > 1").select("id")
    with observed():
        assert frame.write_delta(tmp_path / "new").rows == 2
        assert frame.select("id").sort("id").to_pydict() == {"id": [2, 3]}
        assert [len(batch.to_pyarrow()) for batch in frame] == [2]
        frame.show()
        frame.write_csv(tmp_path / "new.csv")
    assert ids(tmp_path / "new") == [2, 3]
    assert [event.intent.table_name for event in captured_writes] == ["new"]


def test_a_frame_of_the_modules_own_functions_is_written(tmp_path, instrumented, captured_writes):
    """`datafusion.read_csv` and similar functions use no session of the program."""
    import datafusion

    (tmp_path / "rows.csv").write_text("id\n1\n2\n")
    assert datafusion.read_csv(tmp_path / "rows.csv").write_delta(tmp_path / "new").rows == 2
    assert len(captured_writes) == 1


def test_a_delta_table_that_was_registered_before_is_written_once_it_is_registered_again(
    table, captured_writes
):
    """DataFusion does not reveal which Delta table a name has; before that it raises its own error."""
    ctx = SessionContext()
    ctx.register_table("t", DeltaTable(table))
    with observed():
        with pytest.raises(Exception, match="Insert into not implemented"):
            ctx.sql("INSERT INTO t VALUES (4, 'x')").collect()
        ctx.deregister_table("t")
        ctx.register_table("t", DeltaTable(table))
        ctx.sql("INSERT INTO t VALUES (4, 'x')").collect()
    assert ids(table) == [1, 2, 3, 4]
    assert len(captured_writes) == 1


def test_a_frame_is_unobserved_after_uninstrument(table, captured_writes):
    """A statement that has not run is passed to DataFusion, which rejects it."""
    with observed():
        ctx = SessionContext()
        ctx.register_delta("t", table)
        query, statement = ctx.table("t"), ctx.sql("INSERT INTO t VALUES (4, 'x')")
    assert query.filter("id > 1").count() == 2
    with pytest.raises(Exception, match="Insert into not implemented"):
        statement.collect()
    assert len(captured_writes) == 0


# --- as others start it ---------------------------------------------------------------------------------


def test_it_is_an_entry_point():
    """The entry point has the engine's name, and its requirements are the installed versions."""
    (point,) = importlib.metadata.entry_points(
        group="opentelemetry_instrumentor", name="datafusion"
    )
    instrumentor = point.load()()
    assert instrumentor is DataFusionInstrumentor()
    assert get_dependency_conflicts(instrumentor.instrumentation_dependencies()) is None


UNCHANGED = textwrap.dedent(
    """
    import sys
    from datafusion import SessionContext
    from deltalake import DeltaTable
    ctx = SessionContext()
    ctx.register_table("t", DeltaTable(sys.argv[1]))
    ctx.sql("INSERT INTO t SELECT id + 10, word FROM t").collect()
    print(ctx.sql("SELECT count(*) AS n FROM t").to_pydict())
    """
)


def run_auto_instrumented(table, *, traces, disabled):
    """Run the unchanged program under `opentelemetry-instrument`, with a trace exporter."""
    command = [Path(sys.executable).parent / "opentelemetry-instrument", sys.executable]
    return subprocess.run(
        [*command, "-c", UNCHANGED, table],
        capture_output=True,
        text=True,
        env={
            "OTEL_TRACES_EXPORTER": traces,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": disabled,
        },
    )


@pytest.mark.slow
def test_opentelemetry_instrument_finds_it(table):
    """An unchanged program writes Delta by SQL, and its commit has its trace."""
    done = run_auto_instrumented(table, traces="console", disabled="threading")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "{'n': [6]}"
    (commit, *_) = history(table)
    (span,) = [json.loads(done.stdout.split("\n", 1)[1])]
    assert span["name"] == "WRITE table"
    assert commit.metadata["traceparent"][3:35] == span["context"]["trace_id"].removeprefix("0x")
    assert "plan_hash" in commit.metadata


@pytest.mark.slow
def test_an_environment_that_disables_it_leaves_sessions_plain(table):
    """The variable has the name of the entry point."""
    done = run_auto_instrumented(table, traces="none", disabled="threading,datafusion")
    assert "Insert into not implemented" in done.stderr
    assert DeltaTable(table).version() == 0
