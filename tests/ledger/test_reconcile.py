"""Reconcile: every commit in the logs of tables gets exactly one row."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, Field, convert_to_deltalake, write_deltalake
from deltalake.schema import PrimitiveType
from opentelemetry.sdk.trace import TracerProvider

from deltawitness import (
    DeltaLakeInstrumentor,
    Ledger,
    ObservedSessionContext,
    Settings,
    cache_context,
    expect,
    run,
    suppressed,
)
from deltawitness.ledger.reconcile.findings import (
    Difference,
    DifferingRow,
    PhantomRow,
    UnreadableTable,
    UnrecordedWrite,
)
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, SNAPSHOTS
from deltawitness.ledger.tables.write_rows import ledger_uri
from deltawitness.locations import table_id
from helpers.engine_versions import has_sessions
from helpers.ledger_parts import one, rows_of
from helpers.reconcile_parts import (
    CLEAN,
    add_commit,
    add_row,
    commit_file,
    info_of,
    inventory_rows,
    now_ms,
    observe,
    observed_elsewhere,
    recorded_versions,
)

NOT_IN_COMMITS = {
    "column_lineage",
    "overhead_ms",
    "code_file",
    "code_line",
    "code_function",
    "event_time",
    "event_date",
    "reason",
    "duration_ms",
    "error_type",
    "exception_type",
    "error_message",
    "landed",
    "host",
    "pid",
    "thread",
    "deltalake_version",
    "datafusion_version",
    "source",
}
"""Columns that only the observing process can record."""


# --- rebuilding a lost ledger -----------------------------------------------------------------------------


def many_operations(folder):
    """Commit with every operation of delta-rs and of a session."""
    table, rows = f"{folder}/t", pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})
    write_deltalake(table, rows)
    write_deltalake(table, rows, mode="append")
    with cache_context(policy="nightly", scope="view", key="k"):
        write_deltalake(table, rows, mode="overwrite")
    opened = DeltaTable(table)
    opened.delete("id = 1")
    opened.update(updates={"name": "'z'"}, predicate="id = 2")
    changes = pa.table({"id": [2, 9], "name": ["m", "n"]})
    merge = opened.merge(changes, "s.id = t.id", source_alias="s", target_alias="t")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
    with expect(unique=["id", "name"], nulls={"id": 0, "nope": 0}, on_failure="warn"):
        write_deltalake(opened, rows, mode="append")
    opened.optimize.compact()
    opened.optimize.z_order(["id"])
    opened.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    opened.alter.set_table_properties({"delta.logRetentionDuration": "interval 9 days"})
    opened.alter.add_columns([Field("more", PrimitiveType("long"), nullable=True)])
    opened.alter.add_constraint({"positive": "id > 0"})
    opened.alter.drop_constraint("positive")
    opened.alter.set_table_name("orders")
    opened.alter.set_table_description("every order")
    more = pa.table({"id": [5], "name": ["e"], "more": pa.array([1], pa.int64())})
    write_deltalake(opened, more, mode="append")
    opened.restore(opened.version() - 1)

    parts = f"{folder}/parts"
    for _ in range(3):
        write_deltalake(parts, rows, partition_by=["name"], mode="append")
    DeltaTable(parts).optimize.compact(min_commit_interval=dt.timedelta(0), max_concurrent_tasks=1)

    schema = pa.schema([("a", pa.int64())])
    DeltaTable.create(f"{folder}/made", schema=schema, name="made here")
    DeltaTable.create(f"{folder}/made", schema=schema, mode="overwrite")
    DeltaTable.create(f"{folder}/made", schema=schema, mode="ignore")

    Path(folder, "converted").mkdir()
    pq.write_table(rows, f"{folder}/converted/a.parquet")
    convert_to_deltalake(f"{folder}/converted")
    Path(folder, "converted", "a.parquet").unlink()
    DeltaTable(f"{folder}/converted").repair()

    if not has_sessions():
        return
    ctx = ObservedSessionContext()
    ctx.register_delta("orders", table)
    ctx.register_delta("parts", parts)
    ctx.sql("INSERT INTO parts SELECT id, name FROM orders WHERE id > 2").collect()
    ctx.sql("DELETE FROM parts WHERE id = 3").collect()


def rebuilt(ledger, tables):
    """Delete the ledger and rebuild it; return the rows before and after by write id."""
    before = {row["write_id"]: row for row in ledger.inventory().to_pylist()}
    DeltaLakeInstrumentor().uninstrument()
    shutil.rmtree(ledger.root.uri)
    plan = ledger.reconcile(tables)
    assert plan.apply() == len(plan.missing)
    assert (plan.foreign, plan.unreadable, plan.unsettled) == ((), (), 0)
    return before, {row["write_id"]: row for row in ledger.inventory().to_pylist()}


@pytest.mark.slow
def test_a_rebuilt_row_has_every_value_of_its_commit(tmp_path, cache, ledger, say):
    """A rebuilt row has every value that its commit contains; operations without a commit have none."""
    observe(cache, tracer_provider=TracerProvider())
    with run("nightly"):
        many_operations(tmp_path / "lake")
    before, after = rebuilt(ledger, [f"{tmp_path}/lake/*"])
    committed = {name for name, row in before.items() if row["version"] is not None}
    assert committed == after.keys()
    columns = set(INVENTORY.schema.names) - NOT_IN_COMMITS
    for name, row in after.items():
        spelled = dict(before[name])
        if row["schema_hash"] is None:  # commits of some operations do not contain it
            spelled["schema_hash"] = None
        found = {c: row[c] for c in columns}
        # Locations of inputs are in the ledger only, but that of a restored version is known.
        assert {read["uri"] for read in found["inputs"] or ()} <= {None, row["table_uri"]}
        for values in (found, spelled):
            values["inputs"] = values["inputs"] and [
                {**read, "uri": None} for read in values["inputs"]
            ]
        assert found == {c: spelled[c] for c in columns}
        started, lasted = spelled["event_time"], dt.timedelta(milliseconds=spelled["duration_ms"])
        slack = dt.timedelta(milliseconds=5)
        assert started - slack <= row["event_time"] <= started + lasted + slack
        assert row["source"] == "reconciled"
        assert row["event_date"] == row["event_time"].date()
    seen = {row["operation"] for row in after.values()}
    assert len(seen) >= 14
    assert {row["mode"] for row in after.values()} == {None, "error", "append", "overwrite"}
    assert any(row["inputs"] for row in after.values())
    assert any(row["plan_shape_hash"] and row["schema_hash"] for row in after.values())
    assert {len(row["versions"]) for row in after.values()} == {1, 2, 3}
    say(
        f"reconcile: {len(after)} rows of {len(seen)} operations rebuilt, {len(columns)} columns each"
    )


@pytest.mark.slow
def test_the_tables_of_a_lost_ledger_are_created(tmp_path, ledger, table):
    """Applying a plan creates all three tables if they are missing."""
    observed_elsewhere(tmp_path, table, 1)
    assert ledger.reconcile([table]).apply() == 1
    assert [row["status"] for row in rows_of(ledger.root, RUNS)] == ["reconstructed"]
    assert rows_of(ledger.root, SNAPSHOTS) == []
    assert all(ledger.root.open_table(kind) is not None for kind in (INVENTORY, RUNS, SNAPSHOTS))


@pytest.mark.slow
def test_ids_of_tables_are_keyed_as_in_telemetry(tmp_path, cache, table):
    """With a table id key, reconciled rows have the same table ids as observed rows."""
    observed_elsewhere(tmp_path, table, 1)
    ledger = Ledger(cache, settings=Settings(table_id_key=b"k", table_names="none"))
    ledger.reconcile([table]).apply()
    assert inventory_rows(ledger, "table_id, table_name") == [
        {"table_id": table_id(table, key=b"k"), "table_name": None}
    ]


# --- missing and foreign ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_recorded_writes_are_not_missing(cache, ledger, table):
    """With all writes recorded the plan is clean, and applying it appends nothing."""
    observe(cache)
    write_deltalake(table, one(1))
    write_deltalake(table, one(2), mode="overwrite")
    DeltaTable(table).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    plan = ledger.reconcile()
    assert (plan.counts, plan.is_clean) == (CLEAN, True)
    assert (plan.tables, plan.commits) == ((ledger_uri(table),), 4)
    assert plan.apply() == 0
    assert [row["source"] for row in inventory_rows(ledger)] == ["observed"] * 3


@pytest.mark.slow
def test_a_commit_with_our_metadata_and_no_row_is_missing(tmp_path, ledger, table):
    """A missing commit gets the row that its process would have recorded, once."""
    observed_elsewhere(tmp_path, table, 2)
    plan = ledger.reconcile([table])
    info = info_of(table, 1)
    assert plan.missing[1] == UnrecordedWrite(
        table_uri=ledger_uri(table),
        write_id=info["write_id"],
        versions=(1,),
        operation="WRITE",
        run_id=info["run_id"],
        engine=info.get("engineInfo", info["clientVersion"]),
        committed_at=dt.datetime.fromtimestamp(info["timestamp"] / 1000, tz=dt.UTC),
    )
    assert plan.counts == {**CLEAN, "missing": 2}
    assert (plan.apply(), plan.apply()) == (2, 0)
    assert inventory_rows(ledger)[1] == {
        "write_id": info["write_id"],
        "versions": [1],
        "source": "reconciled",
    }
    assert ledger.reconcile([table], full=True).is_clean


@pytest.mark.slow
def test_commits_of_others_are_foreign(ledger, table):
    """Foreign commits get rows with the engine's name and an id from a hash of the commit."""
    write_deltalake(table, one(1))
    DeltaTable(table).delete("x = 1")
    spark = {
        "timestamp": 1_700_000_000_123,
        "operation": "CREATE TABLE AS SELECT",
        "operationParameters": {"isManaged": "true", "mode": "Append"},
        "engineInfo": "Apache-Spark/3.5.0 Delta-Lake/3.1.0",
        "operationMetrics": {"numFiles": "1", "numOutputRows": "7"},
    }
    add = {"path": "a.parquet", "size": 10, "dataChange": True, "stats": '{"numRecords":7}'}
    add_commit(table, 2, {"commitInfo": spark}, {"add": add})
    plan = ledger.reconcile([table])
    assert plan.counts == {**CLEAN, "foreign": 3}
    assert plan.apply() == 3
    rows = inventory_rows(ledger, "*")
    assert [row["operation"] for row in rows] == ["WRITE", "DELETE", "CREATE TABLE AS SELECT"]
    assert [row["cache_operation"] for row in rows] == ["write", "delete", "create"]
    expected = {
        "run_id": None,
        "scope": "dataset",
        "policy": "unmanaged",
        "result": "write",
        "mode": "append",
        "rows_added": 7,
        "bytes_added": 10,
        "engine": "Apache-Spark/3.5.0 Delta-Lake/3.1.0",
        "witness_version": None,
        "event_time": dt.datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=dt.UTC),
        "event_date": dt.date(2023, 11, 14),
    }
    assert {name: rows[2][name] for name in expected} == expected
    assert len({row["write_id"] for row in rows}) == 3
    assert all(
        row["write_id"].startswith("foreign:") and len(row["write_id"]) == 40 for row in rows
    )
    again = ledger.reconcile([table], full=True)
    assert (again.counts, again.commits) == (CLEAN, 3)


def test_a_foreign_commit_with_metadata_but_without_a_write_id_gets_a_row(ledger, table):
    """A commit that the program stamped itself gets a row with its policy, despite invalid metadata."""
    stamped = {"cache_policy": "nightly", "cache_scope": "nowhere", "cache_key": "/home/ann/k"}
    write_deltalake(table, one(1), commit_properties=CommitProperties(custom_metadata=stamped))
    ledger.reconcile([table]).apply()
    (row,) = inventory_rows(ledger, "policy, scope, key, run_id")
    assert (row["policy"], row["scope"], row["run_id"]) == ("nightly", "dataset", None)
    assert row["key"].startswith("key:")


@pytest.mark.slow
@pytest.mark.parametrize("mirrored", [True, False])
def test_a_write_with_the_callers_own_id_is_matched(cache, ledger, table, mirrored):
    """A commit with a caller's id is matched by mirrored metadata, or by version and time."""
    observe(cache, settings={"user_metadata": mirrored})
    own = CommitProperties(custom_metadata={"write_id": "callers-own"})
    write_deltalake(table, one(1), commit_properties=own)
    with suppressed():
        write_deltalake(table, one(2), mode="append", commit_properties=own)
    plan = ledger.reconcile()
    assert plan.counts == {**CLEAN, "foreign": 1}
    assert (plan.foreign[0].versions, plan.apply()) == ((1,), 1)
    assert ledger.reconcile(full=True).is_clean


@pytest.mark.slow
def test_a_table_recreated_within_a_second_is_another_table(cache, ledger, table):
    """A row of the same version one second earlier does not cover a recreated table's commit."""
    observe(cache)
    write_deltalake(table, one(0))
    DeltaLakeInstrumentor().uninstrument()
    shutil.rmtree(table)
    DeltaLakeInstrumentor().instrument()
    with run("without a ledger"):
        write_deltalake(table, one(1))
    plan = ledger.reconcile([table])
    assert (len(plan.missing), plan.apply()) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("mirrored", [True, False])
def test_a_callers_id_is_no_id_of_a_row(tmp_path, ledger, table, mirrored):
    """The row of a commit with a caller's id has our id from the commit, else a hash of the commit."""
    observe(str(tmp_path / "elsewhere"), settings={"user_metadata": mirrored})
    own = CommitProperties(custom_metadata={"write_id": "/home/ann"})
    for number in range(2):
        write_deltalake(table, one(number), mode="append", commit_properties=own)
    DeltaLakeInstrumentor().uninstrument()
    assert ledger.reconcile([table]).counts == {**CLEAN, "missing": 2}
    ledger.reconcile([table]).apply()
    first = inventory_rows(ledger)[0]["write_id"]
    if mirrored:
        assert first == json.loads(info_of(table, 0)["userMetadata"])["write_id"]
    else:
        assert first.startswith("foreign:")
    assert ledger.reconcile([table], full=True).is_clean


@pytest.mark.slow
def test_a_table_copied_elsewhere_adds_no_second_row(tmp_path, ledger, table):
    """A write id in the logs of two tables gets one row."""
    observed_elsewhere(tmp_path, table, 2)
    shutil.copytree(table, f"{table}-copy")
    assert ledger.reconcile([table, f"{table}-copy"]).apply() == 2
    assert recorded_versions(ledger) == [0, 1]


# --- selection of tables ----------------------------------------------------------------------------------------


def test_tables_are_named_in_any_way(tmp_path, ledger, monkeypatch):
    """Tables given as paths, relative paths, URIs, globs or open tables are each compared once."""
    for name in ("a", "b", "c"):
        write_deltalake(f"{tmp_path}/lake/{name}", one(1))
    Path(tmp_path, "lake", "no table").mkdir()
    monkeypatch.chdir(tmp_path)
    uris = tuple(ledger_uri(f"{tmp_path}/lake/{name}") for name in ("a", "b", "c"))
    lake = tmp_path / "lake"
    named = [DeltaTable(lake / "a"), f"file://{lake}/a/", lake / "b", "lake/./b", "lake/[ac]"]
    assert ledger.reconcile(named).tables == uris
    assert ledger.reconcile(["lake/**"]).tables == uris
    assert ledger.reconcile("lake/a").tables == uris[:1]


def test_a_table_that_cannot_be_read_does_not_stop_the_others(tmp_path, ledger, table):
    """An unreadable table is a finding of the plan, without its path in the text."""
    write_deltalake(table, one(1))
    broken = tmp_path / "broken" / "_delta_log"
    broken.mkdir(parents=True)
    (broken / f"{0:020d}.json").mkdir()
    asked = [str(broken.parent), f"{tmp_path}/none", f"{tmp_path}/none*", table]
    plan = ledger.reconcile(asked)
    assert plan.unreadable == (
        UnreadableTable(f"{tmp_path}/none*", "no Delta table matches"),
        UnreadableTable(ledger_uri(str(broken.parent)), "[Errno ?] Is a directory"),
        UnreadableTable(ledger_uri(f"{tmp_path}/none"), "there is no Delta log"),
    )
    assert (plan.is_clean, plan.apply()) == (False, 1)


@pytest.mark.slow
def test_a_deleted_table_of_the_inventory_is_no_finding(cache, ledger, table):
    """Without given tables, a deleted table is reported as gone; exports are not compared."""
    observe(cache)
    write_deltalake(table, one(1))
    ctx = ObservedSessionContext()
    ctx.sql(f"COPY (SELECT 1 AS x) TO '{table}-files/' STORED AS PARQUET").collect()
    DeltaLakeInstrumentor().uninstrument()
    assert len(inventory_rows(ledger)) == 2
    shutil.rmtree(table)
    plan = ledger.reconcile()
    assert (plan.counts, plan.tables, plan.gone) == (CLEAN, (), (ledger_uri(table),))


@pytest.mark.slow
def test_the_ledgers_own_tables_are_left_out(tmp_path, cache, ledger, table):
    """The ledger's own tables are skipped, however they are named."""
    observed_elsewhere(tmp_path, table, 1)
    ledger.reconcile([table]).apply()
    assert ledger.reconcile([f"{cache}/**", f"{cache}/cache_ledgers/*"]).tables == ()


# --- contradictory rows --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_row_without_its_version_is_a_phantom(cache, ledger, table):
    """A row whose version is missing within the log's range is a phantom."""
    observe(cache)
    for number in range(4):
        write_deltalake(table, one(number), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    ids = [row["write_id"] for row in inventory_rows(ledger)]
    for version in (0, 2, 3):
        commit_file(table, version).unlink()
    plan = ledger.reconcile()
    assert plan.phantom == (
        PhantomRow(ledger_uri(table), ids[2], 2),
        PhantomRow(ledger_uri(table), ids[3], 3),
    )
    assert plan.counts == {**CLEAN, "phantom": 2}
    assert plan.apply() == 0
    assert len(inventory_rows(ledger)) == 4


@pytest.mark.slow
def test_a_row_whose_version_is_another_writes_differs(cache, ledger, table):
    """If another write replaced a row's commit, the commit is foreign and the row differs."""
    observe(cache)
    for number in range(2):
        write_deltalake(table, one(number), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    row = inventory_rows(ledger)[1]
    add_commit(table, 1, {"commitInfo": {"timestamp": now_ms() + 60_000, "operation": "WRITE"}})
    plan = ledger.reconcile()
    assert plan.differing == (
        DifferingRow(ledger_uri(table), row["write_id"], Difference.OTHER_WRITE, "write", (1,), ()),
    )
    assert plan.counts == {**CLEAN, "foreign": 1, "differing": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "says", [{"result": "noop"}, {"result": "error", "landed": "unknown"}, {"result": "write"}]
)
def test_a_row_that_contradicts_its_commit_differs(tmp_path, ledger, table, says):
    """A row that omits a commit of its write differs, and no second row is added."""
    observed_elsewhere(tmp_path, table, 1)
    write_id = info_of(table, 0)["write_id"]
    add_row(ledger, write_id=write_id, table_uri=ledger_uri(table), **says)
    plan = ledger.reconcile()
    assert plan.differing == (
        DifferingRow(
            ledger_uri(table), write_id, Difference.MISSING_COMMIT, says["result"], (), (0,)
        ),
    )
    assert plan.counts == {**CLEAN, "differing": 1}
    plan.apply()
    assert len(inventory_rows(ledger)) == 1


@pytest.mark.slow
def test_rows_of_an_earlier_table_at_the_location_are_not_compared(cache, ledger, table):
    """A recreated table is compared with its own rows only, and reconciled from version 0."""
    observe(cache)
    for number in range(3):
        write_deltalake(table, one(number), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    ledger.reconcile().apply()
    shutil.rmtree(table)
    later = {"commitInfo": {"timestamp": now_ms() + 60_000, "operation": "CREATE TABLE"}}
    Path(table, "_delta_log").mkdir(parents=True)
    add_commit(table, 0, later, {"metaData": {"id": "another"}})
    plan = ledger.reconcile()
    assert (plan.counts, plan.commits) == ({**CLEAN, "foreign": 1}, 1)
    assert (plan.apply(), ledger.reconcile(full=True).counts) == (1, CLEAN)


# --- unusual logs ------------------------------------------------------------------------------


@pytest.mark.slow
def test_logs_that_other_readers_fail_on_are_reconciled(ledger, table):
    """Commits with duplicate keys, damaged lines or out-of-range numbers all get rows."""
    write_deltalake(table, one(1))
    doubled = b'{"commitInfo":{"operation":"WRITE","timestamp":1700000000000,"operation":"x"}}'
    add_commit(table, 1, doubled)
    add_commit(table, 2, b'{"commitInfo":{"operation"', b'{"add":{"path":')
    add_commit(table, 3, {"add": {"path": "a", "size": 1, "modificationTime": 1_700_000_000_000}})
    add_commit(table, 4, b"")
    huge = {"num_added_rows": 10**30, "num_added_files": 2}
    half = {"operation": "WRITE", "timestamp": 10**18, "engineInfo": "\ud800", "write_id": ["x"]}
    add_commit(table, 5, {"commitInfo": {**half, "operationMetrics": huge, "inputs": [3, {}]}})
    add_commit(
        table, 6, {"commitInfo": {"operation": "WRITE", "traceparent": "00-0-0", "timestamp": True}}
    )
    assert ledger.reconcile([table]).apply() == 7
    rows = inventory_rows(
        ledger, "version, operation, rows_added, files_added, engine, event_time, trace_id"
    )
    by_version = {row["version"]: row for row in rows}
    early = dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)
    assert (by_version[1]["operation"], by_version[1]["event_time"]) == ("WRITE", early)
    assert by_version[3]["event_time"] == early
    assert (by_version[2]["operation"], by_version[4]["operation"]) == (None, None)
    assert (by_version[5]["rows_added"], by_version[5]["files_added"]) == (None, 2)
    assert by_version[5]["engine"] == "?"
    assert by_version[6]["trace_id"] is None
    assert ledger.reconcile([table], full=True).is_clean
