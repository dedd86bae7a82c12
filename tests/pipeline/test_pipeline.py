"""A pipeline streams the rows of a request into its destination, or raises an error that says why not."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import deltalake
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from datafusion import SessionContext
from deltalake import CommitProperties, DeltaTable, write_deltalake

from deltawitness import (
    ObservedWritePipeline,
    WriteFormat,
    WriteMode,
    WritePipeline,
    WriteRequest,
    plan_hash,
    plan_shape_hash,
    read_commit_metadata,
    schema_hash,
)
from deltawitness.events import Failed, NoCommitReason
from deltawitness.exceptions import ConfigurationError, WriteRequestError
from deltawitness.semconv import CacheResult, Operation

DATA = pa.table({"id": [1, 2, 3], "p": ["a", "b", "a"]})


@pytest.fixture
def ctx():
    """A session with the data as `t`."""
    context = SessionContext()
    context.from_arrow(DATA, name="t")
    return context


def ids(uri):
    return sorted(pa.table(DeltaTable(uri).scan())["id"].to_pylist())


SOURCES = {
    "table": lambda ctx: DATA,
    "batch": lambda ctx: DATA.to_batches()[0],
    "batches": lambda ctx: DATA.to_batches(),
    "reader": lambda ctx: pa.RecordBatchReader.from_batches(DATA.schema, DATA.to_batches()),
    "dataset": lambda ctx: ds.dataset(DATA),
    "frame": lambda ctx: ctx.table("t"),
    "sql": lambda ctx: "SELECT * FROM t",
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("form", WriteFormat)
def test_any_source_is_written_in_any_format(source, form, ctx, tmp_path):
    """Each kind of source is written in each format, and the result has the counts."""
    target = tmp_path / "t"
    request = WriteRequest(source=SOURCES[source](ctx), destination=target, format=form)
    result = WritePipeline(ctx).write(request)
    if form is WriteFormat.DELTA:
        assert (ids(target), result.version, result.skipped) == ([1, 2, 3], 0, False)
    else:
        found = ds.dataset(target, format=str(form)).to_table()
        assert sorted(found["id"].to_pylist()) == [1, 2, 3]
        assert (result.rows, result.files, result.version) == (3, 1, None)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("form", [WriteFormat.DELTA, WriteFormat.PARQUET, WriteFormat.JSON])
def test_each_mode_has_its_effect(form, tmp_path):
    """Append adds, overwrite replaces, ignore skips, and error raises."""
    target, pipeline = tmp_path / "t", WritePipeline()

    def write(mode):
        return pipeline.write(WriteRequest(source=DATA, destination=target, format=form, mode=mode))

    def count():
        if form is WriteFormat.DELTA:
            return len(ids(target))
        return ds.dataset(target, format=str(form)).count_rows()

    write("append")
    write(WriteMode.APPEND)
    assert count() == 6
    assert write("ignore").skipped
    write("overwrite")
    assert count() == 3
    with pytest.raises(
        deltalake.exceptions.DeltaError if form is WriteFormat.DELTA else FileExistsError
    ):
        write("error")
    assert count() == 3


@pytest.mark.parametrize("form", ["file:{}/t", "file://{}/t", "{}/a://t"])
def test_files_are_written_to_each_spelling_of_a_local_directory(form, tmp_path, monkeypatch):
    """The directory is the one that DataFusion writes to under the same location."""
    monkeypatch.chdir(tmp_path)
    WritePipeline().write(
        WriteRequest(source=DATA, destination=form.format(tmp_path), format="csv")
    )
    (path,) = tmp_path.rglob("*.csv")
    assert path.parent in {tmp_path / "t", tmp_path / "a:" / "t"}


def test_partitions_and_options_reach_the_files(tmp_path):
    """Hive partitions, a delimiter and a header setting are applied to the files."""
    request = WriteRequest(
        source=DATA,
        destination=f"file://{tmp_path}/t",
        format="csv",
        partition_by="p",
        format_options={"delimiter": ";", "include_header": False, "max_rows_per_file": 1},
    )
    assert WritePipeline().write(request).files == 3
    assert {path.name for path in (tmp_path / "t").iterdir()} == {"p=a", "p=b"}
    assert next((tmp_path / "t" / "p=b").iterdir()).read_text() == "2\n"


def test_an_error_in_the_source_does_not_change_the_target(tmp_path):
    """A failed write leaves the target unchanged and no partial files."""

    def batches():
        yield DATA.to_batches()[0]
        raise RuntimeError("broken")

    target, pipeline = tmp_path / "t", WritePipeline()
    pipeline.write(WriteRequest(source=DATA, destination=target, format="parquet"))
    broken = pa.RecordBatchReader.from_batches(DATA.schema, batches())
    with pytest.raises(pa.ArrowInvalid, match="broken"):
        pipeline.write(
            WriteRequest(source=broken, destination=target, format="parquet", mode="overwrite")
        )
    assert ds.dataset(target).count_rows() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_delta_options_reach_the_table(tmp_path):
    """Replace-where, properties, both kinds of metadata, name and description reach the table."""
    target, pipeline = tmp_path / "t", WritePipeline()
    pipeline.write(
        WriteRequest(
            source=DATA,
            destination=target,
            partition_by=["p"],
            table_properties={"delta.appendOnly": "false"},
            format_options={"name": "flights", "description": "d", "commit_metadata": {"a": "1"}},
        )
    )
    table = DeltaTable(target)
    assert table.metadata().partition_columns == ["p"]
    assert (table.metadata().name, table.metadata().description) == ("flights", "d")
    assert read_commit_metadata(target).metadata["a"] == "1"
    pipeline.write(
        WriteRequest(
            source=DATA.filter(pa.compute.equal(DATA["p"], "b")),
            destination=target,
            mode="overwrite",
            predicate="p = 'b'",
            commit_properties=CommitProperties({"a": "2"}, 3),
            format_options={"commit_metadata": {"a": "1", "b": "1"}},
        )
    )
    metadata = read_commit_metadata(target).metadata
    assert (metadata["a"], metadata["b"]) == ("2", "1")
    assert ids(target) == [1, 2, 3]


def test_an_open_table_is_written_through(tmp_path):
    """A write to an open table moves its handle to the new version."""
    write_deltalake(tmp_path / "t", DATA)
    table = DeltaTable(tmp_path / "t")
    request = WriteRequest(source=DATA, destination=table, mode="append")
    assert WritePipeline(reuse_handles=False).write(request).version == 1
    assert table.version() == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"source": None}, "source"),
        ({"format": "xml"}, "format: expected one of delta, parquet"),
        ({"mode": "upsert"}, "mode: expected one of error, append"),
        ({"mode": "append", "predicate": "x = 1"}, "predicate"),
        ({"format": "parquet", "schema_mode": "merge"}, "schema_mode: only with format delta"),
        ({"format": "csv", "destination": "s3://b/t"}, "local directory"),
        ({"format": "json", "partition_by": "p"}, "partition_by"),
        ({"format_options": {"compression": "zstd"}}, "delta does not accept 'compression'"),
        ({"format": "json", "format_options": {"x": 1}}, "it accepts none"),
        ({"format_options": {"commit_metadata": "x"}}, "must be a mapping"),
    ],
)
def test_contradictory_arguments_are_refused_at_once(arguments, error):
    """An invalid request raises before anything is written, with the attribute's name."""
    with pytest.raises(WriteRequestError, match=error):
        WriteRequest(**{"source": DATA, "destination": "t", **arguments})


def test_unknown_fields_are_pythons_own_error():
    """A misspelt field raises TypeError."""
    with pytest.raises(TypeError, match="partitions"):
        WriteRequest(source=DATA, destination="t", partitions=["p"])


@pytest.mark.parametrize(
    ("source", "error"), [("SELECT 1", "session context"), (7, "int exports no Arrow data")]
)
def test_a_source_that_cannot_be_read_is_refused(source, error, tmp_path):
    """SQL text without a session and objects without Arrow data are refused."""
    with pytest.raises(WriteRequestError, match=error):
        WritePipeline().write(WriteRequest(source=source, destination=tmp_path / "t"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_sequence_has_no_schema(tmp_path):
    """An empty sequence raises the engine's error for Delta, and ours for files."""
    pipeline = WritePipeline()
    with pytest.raises(WriteRequestError, match="empty sequence"):
        pipeline.write(WriteRequest(source=[], destination=tmp_path / "t", format="csv"))
    with pytest.raises(IndexError):
        pipeline.write(WriteRequest(source=[], destination=tmp_path / "t"))


STREAMED = """
import resource, sys, pyarrow as pa, pyarrow.compute as pc
from deltawitness import WritePipeline, WriteRequest
megabytes = int(sys.argv[2])
block = pa.record_batch({"x": pc.random(131_072)})
def batches():
    for _ in range(megabytes):
        yield block
schema = block.schema
pipeline = WritePipeline()
pipeline.write(WriteRequest(source=pa.table({"x": pa.array([0.5])}), destination=sys.argv[1] + "w"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reader = pa.RecordBatchReader.from_batches(schema, batches())
pipeline.write(WriteRequest(source=reader, destination=sys.argv[1], target_file_size=32 << 20))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_a_source_larger_than_memory_allows_is_streamed(tmp_path, size):
    """Peak memory grows by a fraction of the 600 MB (5 GB in the long run) that are written."""
    megabytes = size(600, 5000, 400)
    out = subprocess.run(
        [sys.executable, "-c", STREAMED, str(tmp_path / "t"), str(megabytes)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(out.stdout) < size(300, 1000)


# --- observed ------------------------------------------------------------------------------------------


def test_an_observed_write_has_plan_schema_and_policy(ctx, tmp_path, captured_writes):
    """The commit and the only event have the plan hash, the schema hash and the policy."""
    pipeline = ObservedWritePipeline(WritePipeline(ctx), policy="nightly", scope="view")
    frame = ctx.sql("SELECT id FROM t WHERE id > 1")
    result = pipeline.write(WriteRequest(source=frame, destination=tmp_path / "t"))
    (event,) = captured_writes.events
    metadata = read_commit_metadata(tmp_path / "t").metadata
    assert event.outcome.version == result.version == 0
    assert (event.intent.policy, event.intent.scope.value) == ("nightly", "view")
    assert metadata["plan_hash"] == event.intent.plan_hash == plan_hash(frame)
    assert event.intent.plan_shape_hash == plan_shape_hash(frame)
    assert metadata["schema_hash"] == event.intent.schema_hash == schema_hash(frame)
    assert metadata["write_id"] == event.write_id


def test_sql_is_planned_once(tmp_path, captured_writes):
    """The proxy plans SQL text once, for the hash and for the write."""
    planned = []

    class Context:
        def __init__(self):
            self.inner = SessionContext()

        def sql(self, text):
            planned.append(text)
            return self.inner.sql(text)

    pipeline = ObservedWritePipeline(WritePipeline(Context()))
    pipeline.write(WriteRequest(source="SELECT 1 AS x", destination=tmp_path / "t"))
    assert planned == ["SELECT 1 AS x"]
    assert captured_writes.last.intent.plan_hash is not None


def test_it_observes_without_instrumentation_and_only_its_own_writes(tmp_path):
    """A proxy observes its own writes without instrumentation, and no other writes of the process."""
    pipeline = ObservedWritePipeline(WritePipeline(), policy="nightly")
    pipeline.write(WriteRequest(source=DATA, destination=tmp_path / "t"))
    write_deltalake(tmp_path / "t", DATA, mode="append")
    assert read_commit_metadata(tmp_path / "t", 0).metadata["cache_policy"] == "nightly"
    assert read_commit_metadata(tmp_path / "t", 1).metadata == {}


@dataclass
class ForeignRequest:
    """A request of another class than ours."""

    where: str


class ForeignPipeline:
    """A pipeline of another class than ours."""

    label = "foreign"

    def write(self, request, *, times=1):
        for _ in range(times):
            write_deltalake(request.where, DATA, mode="append")
        return "done"


def test_a_foreign_pipeline_is_observed(tmp_path, captured_writes):
    """A foreign pipeline gets the same calls, and each of its commits has the policy."""
    pipeline = ObservedWritePipeline(ForeignPipeline(), policy="nightly")
    assert isinstance(pipeline, ForeignPipeline)
    assert pipeline.label == "foreign"
    assert pipeline.write(ForeignRequest(str(tmp_path / "t")), times=2) == "done"
    told = [(event.outcome.version, event.intent.policy) for event in captured_writes]
    assert told == [(0, "nightly"), (1, "nightly")]


def test_a_skipped_write_is_recorded(tmp_path, captured_writes):
    """A skipped write is one event with its reason."""
    target = tmp_path / "t"
    pipeline = ObservedWritePipeline(WritePipeline())
    pipeline.write(WriteRequest(source=DATA, destination=target))
    pipeline.write(WriteRequest(source=DATA, destination=target, mode="ignore"))
    assert len(captured_writes) == 2
    assert captured_writes.last.outcome.reason is NoCommitReason.TABLE_EXISTS
    assert captured_writes.last.intent.table_name == "t"


def test_a_write_of_another_format_is_recorded_with_its_counts(tmp_path, captured_writes):
    """A write of files is an export with the pipeline's counts, because there is no log."""
    pipeline = ObservedWritePipeline(WritePipeline())
    pipeline.write(WriteRequest(source=DATA, destination=tmp_path / "t", format="parquet"))
    (event,) = captured_writes
    assert event.intent.operation is Operation.COPY
    assert event.outcome.metrics.known() == {"rows_added": DATA.num_rows, "files_added": 1}
    assert event.result is CacheResult.WRITE


def test_a_refused_write_is_recorded_and_raises_the_pipelines_error(tmp_path, captured_writes):
    """A write that fails before or in the engine is recorded, and its error is unchanged."""
    pipeline = ObservedWritePipeline(WritePipeline())
    with pytest.raises(WriteRequestError):
        pipeline.write(WriteRequest(source=7, destination=tmp_path / "t"))
    pipeline.write(WriteRequest(source=DATA, destination=tmp_path / "t"))
    with pytest.raises(deltalake.exceptions.DeltaError, match="already exists"):
        pipeline.write(WriteRequest(source=DATA, destination=tmp_path / "t"))
    outcomes = [type(event.outcome) for event in captured_writes]
    assert outcomes[0] is outcomes[2] is Failed
    assert len(outcomes) == 3


@pytest.mark.internal_errors
def test_sql_that_does_not_plan_is_the_engines_error_and_recorded(tmp_path, captured_writes):
    """SQL that cannot be planned raises the engine's error unchanged and is recorded."""
    pipeline = ObservedWritePipeline(WritePipeline(SessionContext()))
    with pytest.raises(Exception, match="nowhere"):
        pipeline.write(WriteRequest(source="SELECT * FROM nowhere", destination=tmp_path / "t"))
    (told,) = captured_writes
    assert isinstance(told.outcome, Failed)
    assert told.intent.table_name == "t"


def test_a_scope_outside_the_closed_set_is_refused():
    """An unknown scope raises when the proxy is created."""
    with pytest.raises(ConfigurationError, match="expected one of"):
        ObservedWritePipeline(WritePipeline(), scope="table")


def test_the_proxy_pickles_as_its_pipeline_does():
    """A pickled proxy keeps the pipeline, the policy and the scope."""
    pipeline = pickle.loads(
        pickle.dumps(ObservedWritePipeline(ForeignPipeline(), policy="p", scope="view"))
    )
    assert (pipeline.label, pipeline._self_policy, pipeline._self_scope) == ("foreign", "p", "view")
    assert json.dumps(str(pipeline._self_scope)) == '"view"'


class OnAThread:
    """A foreign pipeline that writes on its own thread pool."""

    def write(self, request):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(write_deltalake, request.destination, request.source).result()


class Asynchronous:
    """A foreign pipeline with an async `write`."""

    async def write(self, request):
        await asyncio.to_thread(write_deltalake, request.destination, request.source)
        return "written"


def test_a_pipeline_that_writes_on_a_pool_is_one_event(tmp_path, captured_writes):
    """A write on a thread pool is one event with the policy."""
    request = WriteRequest(source=pa.table({"x": [1]}), destination=str(tmp_path / "t"))
    ObservedWritePipeline(OnAThread(), policy="p").write(request)
    (told,) = captured_writes
    assert (told.intent.policy, told.outcome.versions) == ("p", (0,))


def test_an_async_pipeline_is_one_event_when_it_was_awaited(tmp_path, captured_writes):
    """An async write makes one event when it is awaited, and none before."""
    request = WriteRequest(source=pa.table({"x": [1]}), destination=str(tmp_path / "t"))
    write = ObservedWritePipeline(Asynchronous(), policy="p").write(request)
    assert len(captured_writes) == 0
    assert asyncio.run(write) == "written"
    (told,) = captured_writes
    assert (told.intent.policy, told.outcome.versions) == ("p", (0,))


def test_a_failed_async_pipeline_is_recorded(captured_writes):
    """A failed async write is recorded, and its error is unchanged."""

    class Failing:
        async def write(self, request):
            raise KeyError(request)

    with pytest.raises(KeyError):
        asyncio.run(ObservedWritePipeline(Failing()).write("r"))
    assert isinstance(captured_writes.last.outcome, Failed)


def test_a_log_that_cannot_be_read_after_the_write_costs_the_handle_only(tmp_path, monkeypatch):
    """A write whose commit cannot be read succeeds, because an error would make the caller repeat it."""
    pipeline = WritePipeline()
    request = WriteRequest(
        source=pa.table({"x": [1]}), destination=str(tmp_path / "t"), mode=WriteMode.APPEND
    )
    pipeline.write(request)

    def unavailable(*_):
        raise OSError("503 slow down")

    monkeypatch.setattr("deltawitness.delta_rs.handle_cache._commit_identity", unavailable)
    assert pipeline.write(request).version == 1
