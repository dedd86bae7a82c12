"""Operator metrics of a frame that a program itself passes to delta-rs as the source of a write."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest
from datafusion import udf
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    Settings,
    plan_hash,
    read_commit_metadata,
)
from deltawitness.telemetry.diagnostics import memory_diagnostics
from deltawitness.testing import InMemoryTelemetry
from helpers.statement_sessions import session_of_kind

QUERY = "SELECT id, v + 1 AS v FROM t WHERE id > 1 ORDER BY id"


@pytest.fixture(params=["observed", "instrumented"])
def ctx(request, tmp_path):
    """A session over a Delta table `t` of two files; operators are captured."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2], "v": [10, 20]}))
    write_deltalake(tmp_path / "t", pa.table({"id": [3], "v": [30]}), mode="append")
    write_deltalake(tmp_path / "target", pa.table({"id": [2], "v": [0]}))
    memory_diagnostics().clear()
    settings = Settings(capture_plan_metrics=True, diagnostics_sink="memory")
    DeltaLakeInstrumentor().instrument(settings=settings)
    with session_of_kind(request.param) as context:
        context.register_delta("t", tmp_path / "t")
        yield context


def write(uri, source):
    write_deltalake(uri, source, mode="overwrite")


def built(uri, source, **options):
    merger = DeltaTable(uri).merge(
        source, "a.id = b.id", source_alias="a", target_alias="b", **options
    )
    return merger.when_matched_update_all().when_not_matched_insert_all()


def merge(uri, source):
    built(uri, source).execute()


def merge_without_streaming(uri, source):
    built(uri, source, streamed_exec=False).execute()


def merge_in_a_thread(uri, source):
    thread = threading.Thread(target=built(uri, source).execute)
    thread.start()
    thread.join(60)


WRITES = [write, merge, merge_without_streaming, merge_in_a_thread]
GIVEN = {"the frame": lambda frame: frame, "a table of it": lambda frame: frame.to_arrow_table()}


def operators_of(payload):
    return {
        each["operator"]: each["output_rows"]
        for each in payload["operators"]
        if "output_rows" in each
    }


def values(uri):
    table = DeltaTable(uri).to_pyarrow_table().sort_by("id")
    return table.to_pydict()


@pytest.mark.parametrize("act", WRITES)
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.one_case_in(3)
def test_the_operators_of_a_source_are_an_artifact(ctx, tmp_path, act, given):
    """One artifact, with the plan hash of the commit and the rows of each operator."""
    frame = ctx.sql(QUERY)
    act(tmp_path / "target", GIVEN[given](frame))
    ((name, payload),) = memory_diagnostics().artifacts
    assert name == "plan_metrics"
    assert payload["plan_hash"] == plan_hash(frame)
    assert payload["plan_hash"] == read_commit_metadata(tmp_path / "target").metadata["plan_hash"]
    assert operators_of(payload)["SortExec"] == 2
    assert values(tmp_path / "target") == {"id": [2, 3], "v": [21, 31]}


@pytest.mark.parametrize("given", GIVEN)
def test_another_run_of_the_frame_does_not_change_the_metrics_of_a_merge(ctx, tmp_path, given):
    """The frame runs twice more between the build of the merge and its end."""
    frame = ctx.sql(QUERY)
    merger = built(tmp_path / "target", GIVEN[given](frame))
    frame.limit(1).collect()
    frame.collect()
    merger.execute()
    ((_, payload),) = memory_diagnostics().artifacts
    assert operators_of(payload)["SortExec"] == 2


def test_a_merge_that_is_never_executed_has_no_artifact(ctx, tmp_path):
    """Its source is not read; a thread or a stream is not left open."""
    before = threading.active_count()
    merger = built(tmp_path / "target", ctx.sql(QUERY))
    del merger
    assert memory_diagnostics().artifacts == []
    assert threading.active_count() == before


def test_a_write_without_a_source_has_no_artifact(ctx, tmp_path):
    """Mode `ignore` returns before delta-rs reads the source."""
    write_deltalake(tmp_path / "target", ctx.sql(QUERY), mode="ignore")
    assert memory_diagnostics().artifacts == []


@pytest.mark.slow
@pytest.mark.parametrize("act", [write, merge])
def test_a_source_that_fails_raises_as_without_the_setting(ctx, tmp_path, act):
    """The same class of error, no commit, no artifact."""

    def fail(values):
        msg = "no rows today"
        raise RuntimeError(msg)

    ctx.register_udf(udf(fail, [pa.int64()], pa.int64(), "volatile", "failing"))
    errors = []
    for is_captured in (True, False):
        DeltaLakeInstrumentor().uninstrument()
        settings = Settings(capture_plan_metrics=is_captured, diagnostics_sink="memory")
        DeltaLakeInstrumentor().instrument(settings=settings)
        with pytest.raises(Exception, match="no rows today") as raised:
            act(tmp_path / "target", ctx.sql("SELECT failing(id) AS id, v FROM t"))
        errors.append(raised.type)
    assert errors[0] is errors[1]
    assert DeltaTable(tmp_path / "target").version() == 0
    assert memory_diagnostics().artifacts == []


def test_an_unplannable_source_raises_when_it_is_passed_on(ctx, tmp_path):
    """At `merge`, before anything is executed, and with the engine's own text."""
    frame = ctx.sql(
        "SELECT id, v FROM t WHERE id > (SELECT s.id FROM t AS s WHERE s.id < t.id LIMIT 1)"
    )
    with pytest.raises(Exception, match="not implemented"):
        DeltaTable(tmp_path / "target").merge(
            frame, "a.id = b.id", source_alias="a", target_alias="b"
        )


@pytest.mark.slow
def test_a_frame_that_declares_other_types_than_its_rows_is_written_as_without_the_setting(
    ctx, tmp_path
):
    """It is not measured: a copy that declares the types of its rows would be another source."""
    frame = ctx.sql("SELECT id, v FROM t UNION ALL SELECT 1.5, 2.5")
    assert frame.schema() != ctx.sql("SELECT 1.5 AS id, 1.5 AS v").schema()
    write_deltalake(tmp_path / "measured", frame)
    assert memory_diagnostics().artifacts == []
    DeltaLakeInstrumentor().uninstrument()
    write_deltalake(tmp_path / "plain", frame)
    tables = [DeltaTable(tmp_path / name).to_pyarrow_table() for name in ("measured", "plain")]
    assert tables[0].schema == tables[1].schema
    assert sorted(tables[0]["id"].to_pylist()) == sorted(tables[1]["id"].to_pylist())


def test_a_frame_read_through_a_foreign_stream_has_no_artifact(ctx, tmp_path):
    """The stream does not say which frame it came from; the run has read the table."""
    reader = pa.RecordBatchReader.from_stream(ctx.sql(QUERY))
    write(tmp_path / "target", reader)
    assert memory_diagnostics().artifacts == []
    assert "run_inputs" in read_commit_metadata(tmp_path / "target").metadata


def test_queries_are_captured_beside_operators(tmp_path):
    """The read of the source is a query, as without operator metrics."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2], "v": [10, 20]}))
    telemetry = InMemoryTelemetry.create()
    settings = Settings(capture_plan_metrics=True, capture_queries=True, diagnostics_sink="memory")
    memory_diagnostics().clear()
    DeltaLakeInstrumentor().instrument(settings=settings, **telemetry.providers())
    ctx = ObservedSessionContext()
    ctx.register_delta("t", tmp_path / "t")
    write_deltalake(tmp_path / "out", ctx.sql(QUERY))
    DeltaLakeInstrumentor().uninstrument()
    (query,) = [span for span in telemetry.spans() if "SELECT" in span.name]
    assert query.attributes["db.response.returned_rows"] == 1
    assert len(memory_diagnostics().artifacts) == 1
