"""Telemetry of a session's writes and queries: plan, schema, inputs, files, rows, operators."""

from __future__ import annotations

import asyncio

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    Settings,
    cache_context,
    flush,
    plan_hash,
    plan_shape_hash,
    read_commit_metadata,
    run,
    schema_hash,
    suppressed,
    table_id,
)
from deltawitness.events import Exported, Failed, Landed
from deltawitness.semconv import CacheResult, Operation
from deltawitness.telemetry.diagnostics import memory_diagnostics
from deltawitness.testing import InMemoryTelemetry


@pytest.fixture
def telemetry():
    """Providers of a real SDK with in-memory exporters."""
    return InMemoryTelemetry.create()


def observe(telemetry=None, **settings):
    """Observe the process with these settings."""
    providers = {} if telemetry is None else telemetry.providers()
    DeltaLakeInstrumentor().instrument(settings=Settings(**settings), **providers)


@pytest.fixture
def ctx(tmp_path):
    """A session with two Delta tables."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2], "x": [1.5, 2.5]}))
    write_deltalake(tmp_path / "src", pa.table({"id": [2, 3]}))
    write_deltalake(tmp_path / "src", pa.table({"id": [4]}), mode="append")
    context = ObservedSessionContext()
    context.register_delta("t", tmp_path / "t")
    context.register_delta("src", tmp_path / "src")
    return context


def inputs(event, tmp_path):
    names = {table_id(tmp_path / name): name for name in ("t", "src", "out")}
    return sorted((names[read.table_id], read.version) for read in event.intent.inputs)


@pytest.mark.slow
def test_a_write_has_the_attributes_of_its_session(ctx, tmp_path, captured_writes):
    """Commit and event have the plan hash, the shape hash, the schema hash and the inputs."""
    sql = "SELECT id, CAST(id AS DOUBLE) AS x FROM src WHERE id > 2"
    ctx.sql(f"INSERT INTO t {sql}").collect()
    event = captured_writes.last
    metadata = read_commit_metadata(tmp_path / "t").metadata
    assert inputs(event, tmp_path) == [("src", 1)]
    assert metadata["inputs"] == [{"table_id": table_id(tmp_path / "src"), "version": 1}]
    for key in ("plan_hash", "plan_shape_hash", "schema_hash"):
        assert metadata[key] == getattr(event.intent, key)
        assert len(metadata[key]) == 32
    again = [event.intent]
    for value in (2, 3):
        ctx.sql(
            f"INSERT INTO t SELECT id, CAST(id AS DOUBLE) AS x FROM src WHERE id > {value}"
        ).collect()
        again.append(captured_writes.last.intent)
    assert again[0].plan_hash == again[1].plan_hash != again[2].plan_hash
    assert again[0].plan_shape_hash == again[2].plan_shape_hash


def test_a_frames_write_has_the_hash_of_its_plan(ctx, tmp_path, captured_writes):
    """The hashes of a frame's write equal those of the public hash functions."""
    frame = ctx.table("src").filter("id > 2")
    frame.write_delta(tmp_path / "out")
    intent = captured_writes.last.intent
    assert intent.plan_hash == plan_hash(frame)
    assert intent.plan_shape_hash == plan_shape_hash(frame)
    assert intent.schema_hash == schema_hash(frame)
    assert inputs(captured_writes.last, tmp_path) == [("src", 1)]


READS = {
    "join": ("INSERT INTO t SELECT t.id, t.x FROM t JOIN src ON t.id = src.id", [("src", 1), ("t", 0)]),
    "subquery": ("INSERT INTO t SELECT id, x FROM t WHERE id IN (SELECT id FROM src)", [("src", 1), ("t", 0)]),
    "view of a view": ("INSERT INTO t SELECT id, 0.5 FROM w", [("src", 1)]),
    "CTE": ("INSERT INTO t WITH c AS (SELECT id FROM src) SELECT id, 0.5 FROM c", [("src", 1)]),
    "qualified": ("INSERT INTO t SELECT id, 0.5 FROM datafusion.public.src", [("src", 1)]),
    "values": ("INSERT INTO t VALUES (1, 0.5)", []),
    "update": ("UPDATE t SET x = 0 WHERE id = 1", [("t", 0)]),
    "update by subquery": ("UPDATE t SET x = (SELECT max(id) FROM src)", [("src", 1), ("t", 0)]),
    "delete": ("DELETE FROM t WHERE id IN (SELECT id FROM src)", [("src", 1), ("t", 0)]),
    "merge": ("MERGE INTO t USING v ON t.id = v.id WHEN MATCHED THEN DELETE", [("src", 1), ("t", 0)]),
    "merge, evaluated": ("MERGE INTO t USING v ON t.id = abs(v.id) WHEN MATCHED THEN DELETE", [("src", 1), ("t", 0)]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", READS)
def test_inputs_are_the_tables_that_the_plan_reads(ctx, tmp_path, captured_writes, case):
    """The inputs are the table versions that the plan reads, also through views; one event per statement."""
    ctx.sql("CREATE VIEW v AS SELECT id FROM src")
    ctx.sql("CREATE VIEW w AS SELECT id FROM v")
    sql, expected = READS[case]
    ctx.sql(sql).collect()
    (event,) = captured_writes
    assert inputs(event, tmp_path) == expected


@pytest.mark.slow
def test_inputs_keep_the_version_that_a_frame_was_planned_at(ctx, tmp_path, captured_writes):
    """Inputs keep the planned versions, also for joined frames and for `read_table`."""
    old = ctx.table("src")
    ctx.sql("INSERT INTO src VALUES (9)").collect()
    old.write_delta(tmp_path / "out")
    assert inputs(captured_writes.last, tmp_path) == [("src", 1)]
    old.join(ctx.table("t"), on="id").write_delta(
        tmp_path / "out", mode="overwrite", schema_mode="overwrite"
    )
    assert inputs(captured_writes.last, tmp_path) == [("src", 1), ("t", 0)]
    old.union(ctx.table("src")).write_delta(
        tmp_path / "out", mode="overwrite", schema_mode="overwrite"
    )
    assert inputs(captured_writes.last, tmp_path) == [("src", 1), ("src", 2)]
    ctx.read_table(DeltaTable(tmp_path / "src", version=0)).write_delta(
        tmp_path / "out", mode="append"
    )
    assert inputs(captured_writes.last, tmp_path) == [("src", 0)]
    ctx.table("src").cache().write_delta(tmp_path / "out", mode="append")
    assert inputs(captured_writes.last, tmp_path) == [("src", 2)]


def test_a_write_belongs_to_its_run_and_policy(ctx, captured_writes):
    """A write of a session has the run and the policy of its context."""
    with run("nightly") as this_run, cache_context(policy="staging", scope="view"):
        ctx.sql("DELETE FROM t WHERE id = 1").collect()
    (event,) = captured_writes
    assert (event.run.run_id, event.intent.policy, event.intent.scope) == (
        this_run.run_id,
        "staging",
        "view",
    )


def test_a_failure_is_recorded_once(ctx, captured_writes):
    """A failed write is one event with its error type."""
    with pytest.raises(Exception, match="multiple source rows"):
        ctx.sql(
            "MERGE INTO t USING (SELECT 1 AS k UNION ALL SELECT 1) s ON t.id = s.k WHEN MATCHED THEN UPDATE SET x = 0"
        ).collect()
    (event,) = captured_writes
    assert isinstance(event.outcome, Failed)
    assert event.intent.operation is Operation.MERGE


def test_suppressed_writes_are_made_and_not_recorded(ctx, tmp_path, captured_writes):
    """A suppressed write commits and makes no event."""
    with suppressed():
        ctx.sql("DELETE FROM t WHERE id = 1").collect()
        ctx.table("t").write_csv(tmp_path / "out.csv")
    assert len(captured_writes) == 0
    assert DeltaTable(tmp_path / "t").version() == 1


@pytest.mark.slow
def test_no_literal_or_path_of_a_statement_is_exported(ctx, tmp_path, telemetry):
    """No span, data point or log record has a literal or a path of a statement."""
    observe(telemetry)
    canary = "Secret-Canary"
    ctx.sql(f"INSERT INTO t SELECT id, 0.5 FROM src WHERE '{canary}' <> 'x'").collect()
    ctx.sql(f"UPDATE t SET x = 1 WHERE CAST(id AS VARCHAR) = '{canary}'").collect()
    ctx.sql(
        f"MERGE INTO t USING src ON t.id = src.id AND '{canary}' <> '' WHEN MATCHED THEN DELETE"
    ).collect()
    ctx.sql(f"COPY (SELECT '{canary}' AS c) TO '{tmp_path}/{canary}/o.csv' STORED AS CSV").collect()
    flush()
    told = repr([(s.name, s.attributes, s.status.description) for s in telemetry.spans()])
    told += repr([(r.log_record.body, r.log_record.attributes) for r in telemetry.log_records()])
    told += repr(telemetry.metric_points())
    assert canary not in told
    assert str(tmp_path) not in told
    assert "MERGE t" in told


# --- files -------------------------------------------------------------------------------------------------

EXPORTS = {
    "write_parquet": (lambda df, p: df.write_parquet(p / "out"), 3),
    "write_parquet to one file": (
        lambda df, p: df.write_parquet(p / "out.parquet", compression="snappy"),
        3,
    ),
    "write_csv": (lambda df, p: df.write_csv(p / "out", with_header=True), 3),
    "write_csv without a header": (lambda df, p: df.write_csv(p / "out"), 3),
    "write_json": (lambda df, p: df.write_json(p / "out"), 3),
    "COPY": (
        lambda df, p: df.sql(f"COPY (SELECT * FROM src) TO '{p}/out' STORED AS PARQUET").collect(),
        3,
    ),
}


@pytest.mark.parametrize("how", EXPORTS)
def test_files_outside_delta_are_recorded_with_their_counts(ctx, tmp_path, captured_writes, how):
    """An export records rows, files, bytes, plan and inputs, and leaves the engine's files unchanged."""
    write, rows = EXPORTS[how]
    write(ctx if how == "COPY" else ctx.table("src"), tmp_path)
    (event,) = captured_writes
    files = [path for path in tmp_path.glob("out*") if path.is_file()]
    files += (
        [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        if (tmp_path / "out").is_dir()
        else []
    )
    assert isinstance(event.outcome, Exported)
    assert event.outcome.metrics.known() == {
        "rows_added": rows,
        "files_added": len(files),
        "bytes_added": sum(path.stat().st_size for path in files),
    }
    assert (event.intent.operation, event.result) == (Operation.COPY, CacheResult.WRITE)
    assert inputs(event, tmp_path) == [("src", 1)]


def test_only_new_files_count_and_quoted_line_ends_are_no_rows(ctx, tmp_path, captured_writes):
    """A second export to a directory counts only its own files, and only line ends outside quotes."""
    frame = ctx.from_pydict({"a": ['one\ntwo "three"', "x"]})
    frame.write_csv(tmp_path / "out")
    frame.write_csv(tmp_path / "out")
    counts = [event.outcome.metrics.rows_added for event in captured_writes]
    assert counts == [2, 2]
    assert captured_writes.last.outcome.metrics.files_added == 1


def test_a_failed_export_is_recorded_and_raises_the_engines_error(ctx, tmp_path, captured_writes):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Exception, match=r"(?i)not a directory|file"):
        ctx.table("src").write_parquet(tmp_path / "file" / "out.parquet")
    (event,) = captured_writes
    assert isinstance(event.outcome, Failed)


def test_exports_have_metrics_and_spans(ctx, tmp_path, telemetry):
    """Exports have metrics and spans with names that differ from those of Delta writes."""
    observe(telemetry)
    ctx.table("src").write_parquet(tmp_path / "out.parquet")
    flush()
    (span,) = [s for s in telemetry.spans() if s.name.startswith("COPY")]
    assert span.attributes["db.system.name"] == "datafusion"
    assert span.attributes["deltawitness.export.rows"] == 3
    (point,) = telemetry.metric_points()["deltawitness.export.rows"]
    assert (point.value, dict(point.attributes)) == (3, {"db.operation.name": "COPY"})
    (files,) = telemetry.metric_points()["deltawitness.export.files"]
    (size,) = telemetry.metric_points()["deltawitness.export.size"]
    assert (files.value, size.value) == (1, (tmp_path / "out.parquet").stat().st_size)
    (duration,) = telemetry.metric_points()["db.client.operation.duration"]
    assert dict(duration.attributes) == {
        "db.system.name": "datafusion",
        "db.operation.name": "COPY",
    }


# --- queries -----------------------------------------------------------------------------------------------


async def _all(frame):
    return [batch async for batch in frame]


QUERIES = {
    "collect": (lambda df: df.collect(), 3),
    "collect_partitioned": (lambda df: df.collect_partitioned(), 3),
    "collect_column": (lambda df: df.collect_column("id"), 3),
    "to_arrow_table": (lambda df: df.to_arrow_table(), 3),
    "to_pandas": (lambda df: df.to_pandas(), 3),
    "to_polars": (lambda df: df.to_polars(), 3),
    "to_pydict": (lambda df: df.to_pydict(), 3),
    "to_pylist": (lambda df: df.to_pylist(), 3),
    "count": (lambda df: df.count(), 1),
    "show": (lambda df: df.show(), None),
    "execute_stream": (lambda df: list(df.execute_stream()), 3),
    "execute_stream_partitioned": (
        lambda df: [list(s) for s in df.execute_stream_partitioned()],
        3,
    ),
    "iteration": (list, 3),
    "async iteration": (lambda df: asyncio.run(_all(df)), 3),
    "arrow stream": (pa.table, 3),
    "a stream that is left": (lambda df: next(df.execute_stream()) and None, None),
}


@pytest.mark.parametrize("how", QUERIES)
def test_a_query_over_delta_tables_is_a_span_if_the_setting_is_on(ctx, tmp_path, telemetry, how):
    """With `capture_queries`, a query is a span in the run's trace with row count and read versions."""
    observe(telemetry, capture_queries=True)
    read, rows = QUERIES[how]
    with run("nightly"):
        read(ctx.sql("SELECT id FROM src"))
    spans = {span.name: span for span in telemetry.spans()}
    span = spans["SELECT src"]
    assert span.parent.span_id == spans["nightly"].context.span_id
    assert span.attributes["db.system.name"] == "datafusion"
    assert span.attributes["db.operation.name"] == "SELECT"
    assert list(span.attributes["delta.inputs"]) == [f"{table_id(tmp_path / 'src')}@1"]
    if rows is not None:
        assert span.attributes["db.response.returned_rows"] == rows
        (point,) = telemetry.metric_points()["db.client.response.returned_rows"]
        assert (point.count, point.sum) == (1, rows)


def test_a_query_ends_with_the_last_of_its_streams(ctx, telemetry):
    """A partitioned query ends with its last stream, in any order of reading or deletion."""
    observe(telemetry, capture_queries=True)
    union = " UNION ALL ".join(["SELECT id FROM src"] * 3)
    streams = ctx.sql(union).execute_stream_partitioned()
    assert len(streams) == 3
    while streams:
        assert telemetry.spans() == []
        list(streams.pop())
    (span,) = telemetry.spans()
    assert span.attributes["db.response.returned_rows"] == 9


def test_an_internal_error_during_an_export_changes_nothing(
    ctx, tmp_path, captured_writes, monkeypatch
):
    """An internal error during an export leaves the files and the program unaffected."""
    from deltawitness import internal_errors
    from deltawitness.session.sql import exports

    monkeypatch.setattr(exports._WrittenFiles, "find_written", lambda _: 1 / 0)
    ctx.table("src").write_parquet(tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").exists()
    assert internal_errors.error_counts() == {("export", "ZeroDivisionError"): 1}
    internal_errors.reset_counts()


def test_rows_are_not_counted_in_files_changed_by_others(ctx, tmp_path):
    """Rows are counted after the write, so files that changed since then are not counted."""
    from deltawitness.session.sql.exports import _WrittenFiles

    written = _WrittenFiles(str(tmp_path / "out.csv"), {}, 0)
    ctx.table("src").write_csv(tmp_path / "out.csv")
    written.find_written()
    assert written.metrics(None).rows_added == 3
    (tmp_path / "out.csv").write_text("another\n")
    assert written.metrics(None).rows_added is None


def test_queries_are_not_recorded_by_default_nor_those_over_other_tables(ctx, telemetry):
    """Query spans are off by default, and queries without Delta tables never have one."""
    observe(telemetry)
    ctx.sql("SELECT * FROM src").collect()
    DeltaLakeInstrumentor().uninstrument()
    observe(telemetry, capture_queries=True)
    ctx.sql("SELECT 1").collect()
    assert [span.name for span in telemetry.spans()] == []


def test_a_failed_query_is_recorded_with_its_error_type(ctx, telemetry):
    """A query that fails at once or within a stream has its error type; the exception is the engine's."""
    observe(telemetry, capture_queries=True)
    frame = ctx.sql("SELECT id / (id - id) AS boom FROM src")
    with pytest.raises(Exception, match=r"(?i)divide"):
        frame.collect()
    with pytest.raises(Exception, match=r"(?i)divide"):
        list(frame.execute_stream())
    with pytest.raises(Exception, match=r"(?i)divide"):
        pa.table(frame)
    spans = telemetry.spans()
    assert len(spans) == 3
    assert all(span.attributes["error.type"] for span in spans)


# --- operators ------------------------------------------------------------------------------------------------


def test_operator_metrics_of_a_write_are_left_as_an_artifact(ctx, tmp_path):
    """With the setting, the artifact has rows and compute time of each operator of the only run."""
    memory_diagnostics().clear()
    observe(capture_plan_metrics=True, diagnostics_sink="memory")
    ctx.sql("INSERT INTO t SELECT id, 0.5 AS x FROM src WHERE id > 2 ORDER BY id").collect()
    ((name, payload),) = memory_diagnostics().artifacts
    operators = {each["operator"]: each for each in payload["operators"]}
    assert name == "plan_metrics"
    assert operators["SortExec"]["output_rows"] == 2
    assert operators["SortExec"]["elapsed_compute_ns"] > 0
    assert operators["SortExec"]["spill_count"] == 0
    assert "2" not in " ".join(operators)
    assert payload["plan_hash"] == read_commit_metadata(tmp_path / "t").metadata["plan_hash"]
    assert DeltaTable(tmp_path / "t").version() == 1


@pytest.mark.slow
def test_operator_metrics_of_other_writes(ctx, tmp_path):
    """Writes of frames, COPY and MERGE have operator metrics with the setting, and none without it."""
    memory_diagnostics().clear()
    ctx.table("src").write_delta(tmp_path / "out")
    assert memory_diagnostics().artifacts == []
    observe(capture_plan_metrics=True, diagnostics_sink="memory")
    ctx.table("src").write_delta(tmp_path / "out", mode="append")
    ctx.sql("MERGE INTO t USING src ON t.id = src.id WHEN MATCHED THEN DELETE").collect()
    ctx.sql("DELETE FROM t WHERE id IN (SELECT id FROM src)").collect()
    assert len(memory_diagnostics().artifacts) == 3


def test_a_statement_runs_without_an_sdk_and_after_an_internal_error(ctx, tmp_path, monkeypatch):
    """An internal error is counted, and the statement still runs."""
    from deltawitness import internal_errors
    from deltawitness.session.core import frame_attributes

    def broken(*_):
        msg = "no hash"
        raise RuntimeError(msg)

    monkeypatch.setattr(frame_attributes, "hash_of_plan_text", broken)
    ctx.sql("DELETE FROM t WHERE id = 1").collect()
    assert internal_errors.error_counts() == {("session", "RuntimeError"): 1}
    internal_errors.reset_counts()
    assert DeltaTable(tmp_path / "t").version() == 1


UNPLANNABLE = "SELECT src.id FROM src WHERE src.id < t.id LIMIT 1"
"""A query that the engine plans logically and cannot execute."""


@pytest.mark.parametrize(
    "write",
    [
        lambda ctx, _: ctx.sql("INSERT INTO t SELECT * FROM gone").collect(),
        lambda ctx, _: ctx.table("gone").write_table("t"),
        lambda ctx, folder: ctx.table("gone").write_delta(folder / "t", mode="append"),
    ],
    ids=["INSERT", "write_table", "write_delta"],
)
def test_a_write_whose_source_cannot_be_opened_is_recorded(ctx, tmp_path, captured_writes, write):
    """The write is one failed event of its target table, and the error is the engine's."""
    ctx.register_view("gone", ctx.sql(f"SELECT id, x FROM t WHERE x > ({UNPLANNABLE})"))
    with pytest.raises(Exception, match="not implemented") as raised:
        write(ctx, tmp_path)
    (event,) = captured_writes.events
    assert isinstance(event.outcome, Failed)
    assert event.outcome.landed is Landed.NO
    assert (
        event.outcome.exception_type
        == f"{type(raised.value).__module__}.{type(raised.value).__qualname__}"
    )
    assert event.table_id == table_id(tmp_path / "t")
    assert event.intent.mode == "append"
    assert DeltaTable(tmp_path / "t").version() == 0
