"""A write from a session's frame, or from rows of one, has the attributes that the session has computed."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    Ledger,
    Settings,
    plan_hash,
    read_commit_metadata,
    run,
    schema_hash,
    table_id,
)
from deltawitness.observe import run_reads
from helpers.statement_sessions import session_of_kind


@pytest.fixture(params=["observed", "instrumented"])
def ctx(request, tmp_path):
    """A session over a Delta table `t` at version 1, in a process whose writes are all observed."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1], "v": [10]}))
    write_deltalake(tmp_path / "t", pa.table({"id": [2], "v": [20]}), mode="append")
    DeltaLakeInstrumentor().instrument()
    with session_of_kind(request.param) as context:
        context.register_delta("t", tmp_path / "t")
        yield context


def version(place, number):
    return {"table_id": table_id(place), "version": number}


def write(uri, source):
    write_deltalake(uri, source)


def write_by_keyword(uri, source):
    write_deltalake(table_or_uri=uri, data=source, mode="overwrite")


def merge(uri, source):
    write_deltalake(uri, pa.table({"id": [2], "v": [0]}))
    merger = DeltaTable(uri).merge(source, "a.id = b.id", source_alias="a", target_alias="b")
    merger.when_matched_update_all().when_not_matched_insert_all().execute()


@pytest.mark.slow
@pytest.mark.parametrize("act", [write, write_by_keyword, merge])
@pytest.mark.parametrize("given", ["the frame", "an Arrow table of it"])
def test_a_write_has_the_plan_and_inputs_of_its_frame(ctx, tmp_path, captured_writes, act, given):
    """Commit and event have the plan, the schema, and the inputs with their versions."""
    frame = ctx.sql("SELECT id, v + 1 AS v FROM t WHERE id > 1")
    uri = tmp_path / "new"
    act(uri, frame if given == "the frame" else frame.to_arrow_table())
    commit = read_commit_metadata(uri)
    assert commit.metadata["plan_hash"] == plan_hash(frame)
    assert commit.metadata["schema_hash"] == schema_hash(frame.schema())
    assert commit.metadata["inputs"] == [version(tmp_path / "t", 1)]
    assert "run_inputs" not in commit.metadata
    intent = list(captured_writes)[-1].intent
    assert intent.plan_hash == plan_hash(frame)
    assert [(read.table_id, read.version) for read in intent.inputs] == [
        (table_id(tmp_path / "t"), 1)
    ]
    assert DeltaTable(uri).to_pyarrow_table().to_pydict()["v"] == [21]


def test_a_frame_that_the_session_writes_is_observed_once(ctx, tmp_path, captured_writes):
    """The session's write is one event, with the same attributes."""
    frame = ctx.sql("SELECT id FROM t")
    frame.write_delta(tmp_path / "new")
    (event,) = captured_writes
    assert event.intent.plan_hash == plan_hash(frame)


def test_a_merge_has_the_attributes_of_its_own_source(ctx, tmp_path):
    """Each merge has the attributes of the source that it merges."""
    target = DeltaTable(tmp_path / "t")
    frame = ctx.sql("SELECT id, v FROM t")
    observed = target.merge(frame, "a.id = b.id", source_alias="a", target_alias="b")
    plain = target.merge(pa.table({"id": [9]}), "a.id = b.id", source_alias="a", target_alias="b")
    plain.when_matched_delete().execute()
    plain = DeltaTable(tmp_path / "t").merge(
        pa.table({"id": [1]}), "a.id = b.id", source_alias="a", target_alias="b"
    )
    plain.when_matched_delete().execute()
    assert "plan_hash" not in read_commit_metadata(tmp_path / "t").metadata
    del observed


READS = {
    "to_pyarrow_table": lambda uri: DeltaTable(uri).to_pyarrow_table(),
    "to_pandas": lambda uri: DeltaTable(uri).to_pandas(),
    "to_pyarrow_dataset": lambda uri: DeltaTable(uri).to_pyarrow_dataset().to_table(),
    "QueryBuilder": lambda uri: pa.table(
        QueryBuilder().register("x", DeltaTable(uri)).execute("SELECT * FROM x").read_all()
    ),
    "polars scan": lambda uri: pl.scan_delta(str(uri)).collect().to_arrow(),
    "polars read": lambda uri: pl.read_delta(str(uri)).to_arrow(),
}


@pytest.fixture
def source(tmp_path):
    """A Delta table at version 1."""
    for number in range(2):
        write_deltalake(tmp_path / "s", pa.table({"id": [number]}), mode="append")
    return tmp_path / "s"


@pytest.mark.slow
@pytest.mark.parametrize("how", READS)
def test_a_write_without_a_plan_has_inferred_inputs(source, tmp_path, captured_writes, how):
    """The tables that its run, and no other, has read are its inferred inputs, under a separate key."""
    DeltaLakeInstrumentor().instrument()
    with run("reads"):
        rows = READS[how](source)
        write_deltalake(tmp_path / "new", rows)
        assert read_commit_metadata(tmp_path / "new").metadata["run_inputs"] == [version(source, 1)]
        assert "inputs" not in read_commit_metadata(tmp_path / "new").metadata
    with run("writes"):
        write_deltalake(tmp_path / "new", rows, mode="append")
    assert "run_inputs" not in read_commit_metadata(tmp_path / "new").metadata
    first, second = captured_writes
    assert [read.version for read in first.intent.run_inputs] == [1]
    assert second.intent.run_inputs == ()


def test_rows_that_a_session_returned_count_as_read_by_the_run(ctx, tmp_path):
    """Where a frame cannot be traced to the write, its tables are inferred inputs."""
    with run("through pandas"):
        rows = ctx.sql("SELECT id FROM t").to_pandas()
        write_deltalake(tmp_path / "new", rows)
    assert read_commit_metadata(tmp_path / "new").metadata["run_inputs"] == [
        version(tmp_path / "t", 1)
    ]


@pytest.mark.slow
def test_the_ledger_separates_inferred_from_exact_inputs(source, tmp_path):
    """Inferred inputs have a separate column, also in rows rebuilt from the commit."""
    settings = Settings(cache_root=str(tmp_path / "ledger"))
    DeltaLakeInstrumentor().instrument(settings=settings)
    with run("reads"):
        write_deltalake(tmp_path / "new", DeltaTable(source).to_pyarrow_table())
    DeltaLakeInstrumentor().uninstrument()
    (row,) = Ledger(tmp_path / "ledger").inventory().to_arrow_table().to_pylist()
    assert [(read["table_id"], read["version"]) for read in row["run_inputs"]] == [
        (table_id(source), 1)
    ]
    assert row["inputs"] is None


def test_recorded_reads_of_a_run_are_bounded():
    """Only the latest tables are recorded, each at the version that was read last."""
    from deltawitness.events import InputVersion

    with run("many") as this:
        for number in range(run_reads.MAX_READS + 5):
            run_reads.record_reads(InputVersion(str(number), 0, None))
        run_reads.record_reads(InputVersion("7", 3, None))
        reads = run_reads.reads_of_run(this)
    assert len(reads) == run_reads.MAX_READS
    assert (reads[-1].table_id, reads[-1].version) == ("7", 3)


@pytest.mark.parametrize("target", ["a location", "a handle", "a merge"])
def test_a_plain_write_has_the_hash_of_its_schema_in_the_commit(tmp_path, captured_writes, target):
    """The hash follows a change of the schema, also where only the rows of the source are known."""
    DeltaLakeInstrumentor().instrument()
    rows = pa.table({"id": [1]})
    write_deltalake(tmp_path / "t", rows)
    wider = pa.table({"id": [2], "n": [5]})
    if target == "a location":
        write_deltalake(tmp_path / "t", wider, mode="append", schema_mode="merge")
    elif target == "a handle":
        table = DeltaTable(tmp_path / "t")
        write_deltalake(table, rows, mode="append")
        write_deltalake(table, wider, mode="append", schema_mode="merge")
    else:
        merger = DeltaTable(tmp_path / "t").merge(wider, "false", "a", "b", merge_schema=True)
        merger.when_not_matched_insert_all().execute()
    hashes = [event.intent.schema_hash for event in captured_writes]
    assert (hashes[0], hashes[-1]) == (schema_hash(rows), schema_hash(wider))
    assert read_commit_metadata(tmp_path / "t").metadata["schema_hash"] == schema_hash(wider)
