"""Writes are observed in unmodified programs: by every entry point, however imported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, Field, TableFeatures, write_deltalake
from deltalake.transaction import AddAction, create_table_with_add_actions
from opentelemetry import trace

from deltawitness import (
    DeltaLakeInstrumentor,
    ObservedWritePipeline,
    Settings,
    WritePipeline,
    WriteRequest,
    cache_context,
    run,
    suppressed,
)
from deltawitness.commit import history, read_commit_metadata
from deltawitness.commit.engine_version import has_release
from deltawitness.commit.seams import FUNCTION_SEAMS, METHOD_SEAMS
from deltawitness.events import NoCommit, NoCommitReason
from deltawitness.exceptions import ConfigurationError
from deltawitness.observe.observer import current_observer
from deltawitness.semconv import CacheScope, Env, ErrorType, Operation
from helpers.delta_rs_writes import outcome, rows
from helpers.engine_versions import needs_deltalake

write_before_instrumentation = write_deltalake


def test_a_write_by_uri_is_stamped_and_delivered(table, captured_writes):
    """The commit has the run and write ids of the event; the event has the metrics of the commit."""
    write_deltalake(table, rows(4, 5), mode="append")
    (event,) = captured_writes.events
    commit = read_commit_metadata(table)
    assert (commit.run_id, commit.write_id) == (event.run.run_id, event.write_id)
    assert commit.metadata["cache_operation"] == "write"
    assert (event.intent.operation, event.intent.mode) == (Operation.WRITE, "append")
    assert (event.intent.table_name, event.outcome.versions) == ("flights", (1,))
    assert event.outcome.metrics.rows_added == 2
    assert event.outcome.metrics.files_added == 1
    # Releases before 1.6.6 do not report retries.
    assert event.outcome.metrics.retries == (0 if has_release("1.6.6") else None)
    sizes = pa.table(DeltaTable(table).get_add_actions())["size_bytes"].to_pylist()
    assert event.outcome.metrics.bytes_added in sizes


def test_a_first_write_by_uri_finds_its_version(tmp_path, captured_writes):
    """A write that creates a table returns nothing and has no handle: its version is read from the log."""
    write_deltalake(tmp_path / "new", rows(1))
    assert outcome(captured_writes).versions == (0,)


def test_a_name_imported_before_is_observed_too(table, captured_writes):
    """`write_deltalake` imported before the instrumentation is observed by the seams that it calls."""
    write_before_instrumentation(table, rows(4), mode="append")
    assert write_before_instrumentation is deltalake.write_deltalake
    assert outcome(captured_writes).versions == (1,)


OPERATIONS = {
    "update": (lambda t: t.update({"p": "'x'"}, predicate="id = 1"), Operation.UPDATE),
    "delete": (lambda t: t.delete("id = 1"), Operation.DELETE),
    "merge": (
        lambda t: (
            t.merge(rows(3, 9), "s.id = t.id", source_alias="s", target_alias="t")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute()
        ),
        Operation.MERGE,
    ),
    "z_order": (lambda t: t.optimize.z_order(["id"]), Operation.OPTIMIZE),
    "add_columns": (lambda t: t.alter.add_columns(Field("n", "long")), Operation.ADD_COLUMNS),
    "add_constraint": (
        lambda t: t.alter.add_constraint({"c": "id > 0"}),
        Operation.ADD_CONSTRAINT,
    ),
    "add_feature": (
        lambda t: t.alter.add_feature(
            TableFeatures.AppendOnly, allow_protocol_versions_increase=True
        ),
        Operation.ADD_FEATURE,
    ),
    "set_column_metadata": (
        lambda t: t.alter.set_column_metadata("id", {"k": "v"}),
        Operation.SET_COLUMN_METADATA,
    ),
    "set_table_description": (
        lambda t: t.alter.set_table_description("d"),
        Operation.UPDATE_TABLE_METADATA,
    ),
    "set_table_name": (lambda t: t.alter.set_table_name("n"), Operation.UPDATE_TABLE_METADATA),
    "set_table_properties": (
        lambda t: t.alter.set_table_properties({"delta.appendOnly": "false"}),
        Operation.SET_TABLE_PROPERTIES,
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_on_a_table_is_one_event_with_its_version(name, table, captured_writes):
    """Each operation is stamped and delivered once, with its exact version and the log's operation name."""
    act, operation = OPERATIONS[name]
    act(DeltaTable(table))
    (event,) = captured_writes.events
    assert event.intent.operation is operation
    assert event.outcome.versions == (1,)
    commit = read_commit_metadata(table, 1)
    assert commit.write_id == event.write_id
    assert commit.operation == operation.value


@needs_deltalake("1.6.3", "TableAlterer.drop_column_not_null")
def test_drop_constraint_and_not_null_are_observed(tmp_path, captured_writes):
    """DROP CONSTRAINT and DROP NOT NULL, which need a constraint to drop, are observed."""
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False)])
    table = DeltaTable.create(tmp_path / "t", schema)
    table.alter.drop_column_not_null("id")
    table.alter.add_constraint({"d": "id > 1"})
    table.alter.drop_constraint("d")
    delivered = [(event.intent.operation, event.outcome.versions) for event in captured_writes]
    assert delivered == [
        (Operation.CREATE_TABLE, (0,)),
        (Operation.DROP_NOT_NULL, (1,)),
        (Operation.ADD_CONSTRAINT, (2,)),
        (Operation.DROP_CONSTRAINT, (3,)),
    ]
    for event in captured_writes:
        commit = read_commit_metadata(tmp_path / "t", event.outcome.version)
        assert (commit.operation, commit.write_id) == (event.intent.operation, event.write_id)


def test_a_restore_is_observed(table, captured_writes):
    """A RESTORE makes a new version; the rows that it removes are counted."""
    write_deltalake(table, rows(4), mode="append")
    DeltaTable(table).restore(0)
    event = captured_writes.last
    assert (event.intent.operation, event.outcome.versions) == (Operation.RESTORE, (2,))
    assert event.outcome.metrics.files_removed == 1


def test_a_repair_is_observed(table, captured_writes):
    """A REPAIR removes a missing file from the table in one commit."""
    next(table.glob("*.parquet")).unlink()
    DeltaTable(table).repair()
    (event,) = captured_writes.events
    commit = read_commit_metadata(table, 1)
    assert (event.intent.operation, event.outcome.versions) == (Operation.REPAIR, (1,))
    assert (commit.operation, commit.write_id) == ("FSCK", event.write_id)
    assert event.outcome.metrics.files_removed == 1


def test_a_vacuum_is_one_event_with_two_versions(table, captured_writes):
    """VACUUM START and VACUUM END carry the same write id."""
    handle = DeltaTable(table)
    handle.delete("id = 1")
    handle.vacuum(0, dry_run=False, enforce_retention_duration=False)
    event = captured_writes.last
    assert event.outcome.versions == (2, 3)
    assert event.outcome.metrics.files_deleted == 1
    assert {read_commit_metadata(table, v).write_id for v in (2, 3)} == {event.write_id}


def test_an_optimize_in_several_commits_is_one_event(tmp_path, captured_writes):
    """With a commit interval of zero, delta-rs commits once per partition."""
    data = pa.table({"id": [1, 2], "p": ["a", "b"]})
    for mode in ("error", "append", "append"):
        write_deltalake(tmp_path, data, mode=mode, partition_by=["p"])
    DeltaTable(tmp_path).optimize.compact(min_commit_interval=0)
    event = captured_writes.last
    assert event.outcome.versions == (3, 4)
    assert event.outcome.metrics.files_removed == 6


def test_compact_converts_and_transactions_are_observed(tmp_path, captured_writes):
    """Operations that start from existing files are observed."""
    write_deltalake(tmp_path / "a", rows(1))
    write_deltalake(tmp_path / "a", rows(2), mode="append")
    handle = DeltaTable(tmp_path / "a")
    handle.optimize.compact()
    (tmp_path / "b").mkdir()
    pq.write_table(rows(1, 2), tmp_path / "b" / "part.parquet")
    deltalake.convert_to_deltalake(tmp_path / "b")
    size = (tmp_path / "b" / "part.parquet").stat().st_size
    add = AddAction("part.parquet", size, {}, 0, data_change=True, stats="{}")
    (tmp_path / "c").mkdir()
    create_table_with_add_actions(str(tmp_path / "c"), handle.schema(), [add])
    DeltaTable(tmp_path / "c").create_write_transaction([], "append", handle.schema())
    delivered = [
        (e.intent.operation, getattr(e.outcome, "versions", e.outcome)) for e in captured_writes
    ][2:]
    assert delivered == [
        (Operation.OPTIMIZE, (2,)),
        (Operation.CONVERT, (0,)),
        (Operation.CREATE_TABLE, (0,)),
        (Operation.WRITE, (1,)),
    ]


def test_a_commit_of_files_that_the_caller_wrote_has_its_mode(tmp_path, captured_writes):
    """Ray, Daft and Dask write Parquet files, and pass the save mode by position or by name."""
    table = DeltaTable.create(tmp_path / "t", pa.schema([("x", pa.int64())]))
    table.create_write_transaction([], "append", table.schema())
    table.create_write_transaction(actions=[], mode="overwrite", schema=table.schema())
    raw = DeltaTable(tmp_path / "t")._table
    raw.create_write_transaction([], "append", [], table.schema(), None)
    modes = [event.intent.mode for event in captured_writes]
    assert modes == ["error", "append", "overwrite", "append"]


@pytest.mark.parametrize(
    ("act", "operation", "reason"),
    [
        (lambda t: t.delete("id = 99"), Operation.DELETE, NoCommitReason.NOTHING_TO_DO),
        (lambda t: t.optimize.compact(), Operation.OPTIMIZE, NoCommitReason.NOTHING_TO_DO),
        (lambda t: t.vacuum(), Operation.VACUUM, NoCommitReason.DRY_RUN),
        (lambda t: t.repair(dry_run=True), Operation.REPAIR, NoCommitReason.DRY_RUN),
        (lambda t: t.repair(), Operation.REPAIR, NoCommitReason.NOTHING_TO_DO),
        (lambda t: t.create_checkpoint(), Operation.CHECKPOINT, NoCommitReason.NOT_A_COMMIT),
        (lambda t: t.cleanup_metadata(), Operation.CLEANUP, NoCommitReason.NOT_A_COMMIT),
        pytest.param(
            lambda t: t.generate(),
            Operation.GENERATE,
            NoCommitReason.NOT_A_COMMIT,
            marks=needs_deltalake("1.3.0", "DeltaTable.generate"),
        ),
        (
            lambda t: DeltaTable.create(t.table_uri, t.schema(), mode="ignore"),
            Operation.CREATE_TABLE,
            NoCommitReason.TABLE_EXISTS,
        ),
    ],
)
def test_a_write_without_a_commit_is_delivered_with_the_reason(
    act, operation, reason, table, captured_writes
):
    """An operation that commits nothing has no version and no error, and its event names the reason."""
    act(DeltaTable(table))
    (event,) = captured_writes.events
    assert event.intent.operation is operation
    assert isinstance(event.outcome, NoCommit)
    assert event.outcome.reason is reason


@pytest.mark.slow
def test_versions_are_exact_while_others_write(table, captured_writes):
    """While eight threads append, the version of each event is that of the commit with its write id."""
    patient = CommitProperties(max_commit_retries=1000)

    def append(i):
        write_deltalake(table, rows(i), mode="append", commit_properties=patient)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(24)))
    for event in captured_writes.events:
        commit = read_commit_metadata(table, event.outcome.version)
        assert commit.write_id == event.write_id
    assert len({event.outcome.version for event in captured_writes}) == 24


@pytest.mark.parametrize("reuse", [False, True])
def test_handles_are_reused_for_writes_by_uri_only_when_enabled(reuse, table, monkeypatch):
    """A reused handle writes what a fresh open would, also when another writer has committed in between."""
    opened, original = [], DeltaTable.__init__
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(settings=Settings(reuse_handles=reuse))
    monkeypatch.setattr(
        DeltaTable, "__init__", lambda *a, **k: opened.append(1) or original(*a, **k)
    )
    for i in range(4):
        write_deltalake(table, rows(i), mode="append")
    opens = len(opened)
    with suppressed():
        write_deltalake(DeltaTable(table), rows(9), mode="append")
    write_deltalake(table, rows(7), mode="overwrite")
    with pytest.raises(deltalake.exceptions.DeltaError):
        write_deltalake(table, rows(7))
    write_deltalake(table, rows(8), mode="append")
    assert opens == (1 if reuse else 4)
    assert sorted(DeltaTable(table).to_pyarrow_table()["id"].to_pylist()) == [7, 8]


@needs_deltalake("1.6.0", "the check of commit metadata")
def test_reserved_keys_of_the_caller_are_the_engines_error(table, captured_writes):
    """The engine's error for a reserved key reaches the caller unchanged."""
    with pytest.raises(ValueError, match="generated by delta-rs"):
        write_deltalake(
            table,
            rows(1),
            mode="append",
            commit_properties=CommitProperties({"operation": "mine"}),
        )
    assert outcome(captured_writes).error_type is ErrorType.METADATA_REJECTED


def test_a_commit_has_the_callers_metadata_and_the_librarys(table, captured_writes):
    """A commit has the caller's keys and ours."""
    write_deltalake(
        table, rows(4), mode="append", commit_properties=CommitProperties({"team": "ops"})
    )
    metadata = read_commit_metadata(table).metadata
    assert (metadata["team"], metadata["write_id"]) == ("ops", captured_writes.last.write_id)


def test_run_and_cache_context_reach_event_and_commit(table, captured_writes):
    """Event and commit have the run and the policy of the surrounding contexts."""
    with run("nightly") as context, cache_context(policy="views", scope="view", key="k"):
        write_deltalake(table, rows(4), mode="append")
    (event,) = captured_writes.events
    metadata = read_commit_metadata(table).metadata
    assert event.run is context
    assert (event.intent.policy, event.intent.scope) == ("views", CacheScope.VIEW)
    assert (metadata["run_id"], metadata["cache_policy"]) == (context.run_id, "views")


def test_suppressed_writes_have_no_metadata_and_no_event(table, captured_writes):
    """A suppressed write has no metadata of ours and no event."""
    with suppressed():
        write_deltalake(table, rows(4), mode="append")
    assert captured_writes.events == []
    assert read_commit_metadata(table).metadata == {}


def test_opentelemetrys_own_suppression_is_honoured(table, captured_writes):
    """OpenTelemetry's `suppress_instrumentation` suppresses our observation, too."""
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    with suppress_instrumentation():
        write_deltalake(table, rows(4), mode="append")
    assert captured_writes.events == []


def test_the_run_crosses_a_thread_pool(table, captured_writes):
    """A write on a pool's thread belongs to the run of the submitting code."""
    with ThreadPoolExecutor(2) as pool, run("nightly") as context:
        pool.submit(write_deltalake, table, rows(4), mode="append").result()
    assert captured_writes.last.run is context


def test_two_event_loops_have_separate_runs(tmp_path, captured_writes):
    """Writes of two event loops in two threads each belong to the run of their loop."""

    async def job(name):
        async with run(name):
            for i in range(3):
                await asyncio.to_thread(write_deltalake, tmp_path / name, rows(i), mode="append")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: asyncio.run(job(name)), ["a", "b"]))
    delivered = sorted((event.run.job, event.intent.table_name) for event in captured_writes)
    assert delivered == [("a", "a")] * 3 + [("b", "b")] * 3


def test_uninstrument_restores_every_original():
    """After `uninstrument()`, every attribute is the same object as before."""
    raw = deltalake._internal.RawDeltaTable
    places = [(raw, seam.name) for seam in METHOD_SEAMS if hasattr(raw, seam.name)]
    places += [(sys.modules[seam.module], seam.name) for seam in FUNCTION_SEAMS]
    places += [(ThreadPoolExecutor, "submit"), (subprocess.Popen, "__init__")]
    before = [vars(owner)[name] for owner, name in places]
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument()
    during = [vars(owner)[name] for owner, name in places]
    instrumentor.uninstrument()
    assert all(old is not new for old, new in zip(before, during, strict=True))
    assert all(old is vars(owner)[name] for old, (owner, name) in zip(before, places, strict=True))


def test_an_invalid_setting_is_one_clear_error_and_changes_nothing(monkeypatch):
    """The error comes before any write, names the variable and the allowed values, and nothing is patched."""
    monkeypatch.setenv(Env.DIAGNOSTICS_SINK, "sometimes")
    before = deltalake._internal.RawDeltaTable.write
    with pytest.raises(
        ConfigurationError, match="DELTAWITNESS_DIAGNOSTICS_SINK: expected one of otel, memory"
    ):
        DeltaLakeInstrumentor().instrument()
    assert deltalake._internal.RawDeltaTable.write is before
    assert not DeltaLakeInstrumentor().is_instrumented_by_opentelemetry


def test_an_invalid_run_id_is_an_error_before_anything_is_changed(monkeypatch):
    """`instrument()` raises, not the first write."""
    monkeypatch.setenv(Env.RUN_ID, "not a run")
    before = deltalake._internal.RawDeltaTable.write
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_RUN_ID"):
        DeltaLakeInstrumentor().instrument()
    assert deltalake._internal.RawDeltaTable.write is before


def test_merges_that_are_never_executed_are_dropped(table, captured_writes, monkeypatch):
    """The number of unexecuted merges is bounded; one that is executed later is still observed."""
    monkeypatch.setattr("deltawitness.commit.merge_builders.MAX_PENDING_MERGES", 2)
    handle = DeltaTable(table)
    mergers = [
        handle.merge(rows(9 + i), "s.id = t.id", source_alias="s", target_alias="t")
        for i in range(3)
    ]
    mergers[2].when_not_matched_insert_all().execute()
    assert [event.outcome.versions for event in captured_writes] == [(1,)]


def test_the_log_shows_our_metadata_to_every_reader(table, captured_writes):
    """`DeltaTable.history` shows the flat keys and the mirror in `userMetadata`."""
    write_deltalake(table, rows(4), mode="append")
    theirs = DeltaTable(table).history(1)[0]
    (newest, *_) = history(table, limit=1)
    assert theirs["write_id"] == newest.write_id == captured_writes.last.write_id
    assert newest.write_id in theirs["userMetadata"]


@pytest.mark.parametrize("mirror", [True, False])
def test_a_write_id_of_the_callers_does_not_hide_the_commit(mirror, table):
    """The caller's write id is in the commit, and the write finds its commit by that id."""
    seen = []
    DeltaLakeInstrumentor().instrument(settings=Settings(user_metadata=mirror), sinks=[seen.append])
    mine = CommitProperties(custom_metadata={"write_id": "mine \u00e9"})
    write_deltalake(table, rows(7), mode="append", commit_properties=mine)
    DeltaLakeInstrumentor().uninstrument()
    version = DeltaTable(table).version()
    assert read_commit_metadata(table).write_id == "mine \u00e9"
    assert seen[-1].outcome.versions == (version,)


def test_a_relative_path_is_one_table_wherever_the_program_goes(
    tmp_path, captured_writes, monkeypatch
):
    """After a change of directory, the commit is found, and the table id is that of the absolute path."""
    monkeypatch.chdir(tmp_path)
    DeltaTable.create("rel", pa.schema([("x", "int64")]), mode="overwrite")
    monkeypatch.chdir("/")
    write_deltalake(tmp_path / "rel", pa.table({"x": [1]}), mode="append")
    first, second = captured_writes
    assert first.outcome.versions == (0,)
    assert first.table_id == second.table_id


@pytest.mark.slow
def test_a_suppressed_merge_at_the_address_of_a_dropped_one_stays_suppressed(
    table, captured_writes
):
    """The state of a dropped merge is not used for a later one at the same address."""

    def merge():
        return (
            DeltaTable(table)
            .merge(rows(1), "t.id = s.id", source_alias="s", target_alias="t")
            .when_matched_update_all()
        )

    for _ in range(10):
        merge()
        with suppressed():
            merge().execute()
    assert len(captured_writes) == 0


@pytest.mark.slow
def test_a_merge_lasts_as_long_as_its_execution(table, captured_writes):
    """The time between building and executing a merge is not part of its duration."""
    merger = DeltaTable(table).merge(rows(1), "t.id = s.id", source_alias="s", target_alias="t")
    built_at = time.time_ns()
    time.sleep(0.3)  # a pause of the program, which is measured
    merger.when_matched_update_all().execute()
    delivered = captured_writes.last
    assert delivered.started_at >= built_at + 300_000_000
    assert delivered.started_at + delivered.duration_ns <= time.time_ns()


def test_runs_of_one_id_have_a_span_each(delta_telemetry):
    """Several open runs with the same id of a scheduler each have a span."""
    with run("outer", run_id="r-1"), run("inner", run_id="r-1"):
        pass
    assert [span.name for span in delta_telemetry.spans()] == ["inner", "outer"]
    assert not trace.get_current_span().get_span_context().is_valid


def test_uninstrument_also_removes_the_patches_of_a_pipeline(tmp_path):
    """After `uninstrument()`, patches that a pipeline installed are removed, too."""
    ObservedWritePipeline(WritePipeline()).write(
        WriteRequest(source=pa.table({"x": [1]}), destination=str(tmp_path / "t"))
    )
    assert current_observer() is not None
    DeltaLakeInstrumentor().uninstrument()
    assert current_observer() is None
