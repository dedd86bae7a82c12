"""The ledger's frames in a session: empty, older and newer tables; runs of several processes."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest
from datafusion import SessionContext, col, lit
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from deltawitness import DeltaLakeInstrumentor, Ledger, ObservedSessionContext, Settings, run
from deltawitness.ledger.drain.drain import Drain
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.tables.arrow import json_schema, operation_rows, with_partition
from deltawitness.ledger.tables.schema import INVENTORY, PARTITION, RUNS, SNAPSHOTS, LedgerRoot
from deltawitness.ledger.tables.write_rows import as_json
from helpers.ledger_parts import now_us, one, operation_row, run_started, sealed_rows, spool_in


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "cache")


def append_operations(ledger, *rows):
    """Append operations to the inventory."""
    Drain(ledger.root, tail=1).drain_segments(sealed_rows(spool_in(ledger.spools), *rows))


def append_runs(ledger, *rows):
    """Append rows of runs, each from its own process."""
    spool = spool_in(ledger.spools)
    for row in rows:
        spool.append(RecordKind.RUN_END, row["run_id"], as_json(row))
    spool.rotate()
    Drain(ledger.root, tail=1).drain_segments([segment.path for segment in spool.sealed()])


# --- frames ---------------------------------------------------------------------------------------------


def test_an_empty_ledger_has_all_its_columns(ledger):
    """Without any record the frames are empty with all columns, and reading creates no table."""
    frames = [ledger.inventory(), ledger.runs(), ledger.snapshots()]
    assert [frame.count() for frame in frames] == [0, 0, 0]
    assert frames[0].schema().names == INVENTORY.schema.names
    assert set(frames[1].schema().names) == {*RUNS.schema.names, "processes"} - {"is_part"}
    assert frames[2].schema().names == SNAPSHOTS.schema.names
    assert not (ledger.spools.parent / "cache_ledgers").exists()


def test_rows_are_read_as_they_were_recorded(ledger):
    """Counts, lists and structs have their recorded values and plain Arrow types."""
    inputs = [{"table_id": "i", "uri": "s3://b/t", "version": 4}]
    append_operations(ledger, operation_row("w-1", versions=[3, 4], inputs=inputs, rows_added=2))
    table = (
        ledger.inventory().select("write_id", "versions", "inputs", "rows_added").to_arrow_table()
    )
    assert table.to_pylist() == [
        {"write_id": "w-1", "versions": [3, 4], "inputs": inputs, "rows_added": 2}
    ]
    for name in ("versions", "inputs"):
        assert table.schema.field(name).type == INVENTORY.schema.field(name).type


@pytest.mark.slow
def test_a_query_names_the_three_tables(ledger):
    """`Ledger.query` reads all tables without a session, also those that do not exist yet."""
    counts = "SELECT (SELECT count(*) FROM {}) AS n"
    for name in ("inventory", "runs", "snapshots"):
        assert ledger.query(counts.format(name)).to_pylist() == [{"n": 0}]
    append_operations(ledger, operation_row("w-1", table_name="t"))
    found = ledger.query("SELECT table_name, operation FROM inventory")
    assert found.to_pylist() == ledger.inventory().select("table_name", "operation").to_pylist()
    assert found.schema.field("table_name").type == pa.string()


def test_an_invalid_query_raises_the_engines_error(ledger):
    with pytest.raises(DeltaError, match="nothing"):
        ledger.query("SELECT nothing FROM inventory")


def test_columns_that_an_older_release_did_not_have_are_null(ledger):
    """A frame has the columns of this release; those that an older ledger lacks are null."""
    older = pa.schema(
        [
            column
            for column in INVENTORY.schema
            if column.name not in {"engine", "inputs", "retries"}
        ]
    )
    rows = operation_rows([as_json(operation_row("w-1")).encode()]).select(older.names)
    write_deltalake(ledger.root.uri_of(INVENTORY), rows, partition_by=[PARTITION])
    frame = ledger.inventory()
    assert frame.schema().names == INVENTORY.schema.names
    assert frame.select("write_id", "engine", "inputs", "retries").to_pylist() == [
        {"write_id": "w-1", "engine": None, "inputs": None, "retries": None}
    ]


def test_columns_of_a_newer_release_are_seen(ledger):
    """Columns that a newer release added follow the known ones."""
    rows = operation_rows([as_json(operation_row("w-1")).encode()])
    write_deltalake(
        ledger.root.uri_of(INVENTORY),
        rows.append_column("Mood", pa.array(["fine"])),
        partition_by=[PARTITION],
    )
    frame = ledger.inventory()
    assert frame.schema().names == [*INVENTORY.schema.names, "Mood"]
    assert frame.select(col('"Mood"')).to_pydict() == {"Mood": ["fine"]}


def test_snapshots_are_rows_of_their_own(ledger):
    """The snapshot registry has a frame."""
    rows = pa.Table.from_pylist(
        [{"event_time": now_us(), "snapshot": "s", "rows": 3}], json_schema(SNAPSHOTS)
    )
    write_deltalake(
        ledger.root.uri_of(SNAPSHOTS), with_partition(SNAPSHOTS, rows), partition_by=[PARTITION]
    )
    assert ledger.snapshots().select("snapshot", "rows").to_pylist() == [
        {"snapshot": "s", "rows": 3}
    ]


def test_a_damaged_table_raises_in_the_reader(ledger):
    """Reading a damaged table raises; it is not treated as empty."""
    append_operations(ledger, operation_row("w-1"))
    log = ledger.spools.parent / "cache_ledgers" / INVENTORY.name / "_delta_log"
    (log / "00000000000000000001.json").write_text("{nonsense")
    with pytest.raises(Exception, match=r"(?i)json|expected|parse"):
        ledger.inventory()


# --- runs -------------------------------------------------------------------------------------------------


def ended(run_id, pid, **more):
    """Return the row of a run as recorded by one process."""
    return {
        **run_started(run_id, pid=pid),
        "status": "ok",
        "end_time": now_us(),
        "dropped": 0,
        **more,
    }


def test_a_run_of_several_processes_is_one_row(ledger):
    """A run's row sums counts, spans all times, and has the opener's other values."""
    append_runs(
        ledger,
        ended(
            "run-1",
            1,
            start_time=1000,
            end_time=9000,
            writes=1,
            rows_added=5,
            table_ids=["a", "b"],
            tables_touched=2,
            operations=[{"operation": "write", "result": "write", "count": 1}],
        ),
        ended(
            "run-1",
            2,
            start_time=2000,
            end_time=9500,
            is_part=True,
            job="worker",
            status="error",
            error_type="ValueError",
            writes=2,
            errors=1,
            rows_added=7,
            table_ids=["b", "c"],
            tables_touched=2,
            operations=[{"operation": "delete", "result": "error", "count": 1}],
        ),
        ended("run-1", 3, start_time=2000, end_time=9600, is_part=True, job="worker", dropped=4),
        ended("run-2", 1, parent_run_id="run-1"),
    )
    rows = {row["run_id"]: row for row in ledger.runs().to_pylist()}
    row = rows["run-1"]
    times = [row[name].timestamp() * 1e6 for name in ("start_time", "end_time")]
    assert times == [1000, 9600]
    recorded = (
        "job",
        "status",
        "error_type",
        "pid",
        "processes",
        "writes",
        "errors",
        "rows_added",
        "tables_touched",
        "dropped",
    )
    assert {name: row[name] for name in recorded} == {
        "job": "nightly",
        "status": "ok",
        "error_type": None,
        "pid": 1,
        "processes": 3,
        "writes": 3,
        "errors": 1,
        "rows_added": 12,
        "tables_touched": 3,
        "dropped": 4,
    }
    assert sorted(row["table_ids"]) == ["a", "b", "c"]
    assert sorted(of["operation"] for of in row["operations"]) == ["delete", "write"]
    assert (rows["run-2"]["parent_run_id"], rows["run-2"]["processes"]) == ("run-1", 1)
    assert set(row) == {*RUNS.schema.names, "processes"} - {"is_part"}


@pytest.mark.slow
def test_the_end_of_a_run_is_not_when_an_abandoned_process_was_found(ledger):
    """A killed process of a pool is found later, which does not extend the run; alone, its end is that time."""
    killed = {"status": "abandoned", "is_part": True, "end_time": 9_000_000}
    append_runs(
        ledger,
        ended("pool", 1, start_time=1000, end_time=5000),
        ended("pool", 2, start_time=2000, **killed),
        ended("alone", 3, start_time=2000, **killed),
    )
    connection = pytest.importorskip("duckdb").connect()
    ledger.register_duckdb(connection)
    sql = "SELECT run_id, epoch_us(end_time) AS end_time FROM cache_ledger.runs"
    for rows in (ledger.runs(), ledger.query("SELECT run_id, end_time FROM runs")):
        ends = {row["run_id"]: row["end_time"].timestamp() * 1e6 for row in rows.to_pylist()}
        assert ends == {"pool": 5000, "alone": 9_000_000}
    assert dict(connection.sql(sql).fetchall()) == ends


def test_a_run_that_only_partial_runs_recorded(ledger):
    """If the opener had no ledger, a run's row is the sum of the other processes' parts."""
    append_runs(ledger, ended("run-1", 2, is_part=True, job="worker", writes=1))
    assert ledger.runs().select("job", "processes", "writes").to_pylist() == [
        {"job": "worker", "processes": 1, "writes": 1}
    ]


def test_two_openings_of_a_run_in_one_process_count_as_one_process(ledger):
    """Two openings of one run id in a process count as one process, with the last status."""
    append_runs(
        ledger,
        ended("run-1", 1, writes=1, end_time=5),
        ended("run-1", 1, writes=2, end_time=6, status="error"),
    )
    assert ledger.runs().select("processes", "writes", "status").to_pylist() == [
        {"processes": 1, "writes": 3, "status": "error"}
    ]


CHILD = """
import sys, pyarrow as pa
from deltalake import write_deltalake
from deltawitness import DeltaLakeInstrumentor, Settings
DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=sys.argv[1]))
write_deltalake(sys.argv[2], pa.table({"x": [1]}), mode="append")
"""


@pytest.mark.slow
def test_a_child_process_adds_to_its_parents_run(ledger, tmp_path):
    """Writes of a program that was started in a run count in that run."""
    import os

    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=ledger.root.uri))
    with run("nightly") as opened:
        write_deltalake(tmp_path / "t", one(1))
        environment = {**os.environ, **opened.environment()}
        arguments = [sys.executable, "-c", CHILD, ledger.root.uri, str(tmp_path / "t")]
        assert subprocess.run(arguments, env=environment).returncode == 0
    recorded = ledger.runs().filter(col("run_id") == lit(opened.run_id)).to_pylist()
    assert [
        (row["job"], row["processes"], row["writes"], row["tables_touched"]) for row in recorded
    ] == [("nightly", 2, 2, 1)]


# --- in a session ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SessionContext, ObservedSessionContext])
def test_a_session_has_the_ledger_as_a_schema(ledger, kind):
    """`register` makes all three tables available to SQL; a second call shows newer rows."""
    ctx = kind()
    ctx.from_pydict({"x": [1]}, name="inventory")
    ledger.register(ctx)
    assert ctx.sql("SELECT * FROM cache_ledger.inventory").count() == 0
    append_operations(ledger, operation_row("w-1"))
    append_runs(ledger, ended("run-1", 1, writes=1))
    ledger.register(ctx)
    assert ctx.sql(
        "SELECT write_id, event_date IS NULL AS dateless FROM cache_ledger.inventory"
    ).to_pylist() == [{"write_id": "w-1", "dateless": False}]
    joined = "SELECT i.write_id, r.writes FROM cache_ledger.inventory i JOIN cache_ledger.runs r USING (run_id)"
    assert ctx.sql(joined).to_pylist() == [{"write_id": "w-1", "writes": 1}]
    assert ctx.sql("SELECT count(*) AS n FROM cache_ledger.snapshots").to_pydict() == {"n": [0]}
    assert ctx.sql("SELECT * FROM inventory").to_pydict() == {"x": [1]}


@pytest.mark.slow
def test_reading_drains_the_spool_of_this_process_first(tmp_path):
    """Reading drains this process's spool first, whatever the drain interval."""
    DeltaLakeInstrumentor().instrument(
        settings=Settings(cache_root=str(tmp_path / "c"), drain_interval=3600)
    )
    write_deltalake(tmp_path / "t", one(1))
    ledger, ctx = Ledger(tmp_path / "c"), SessionContext()
    assert ledger.inventory().select("version").to_pydict() == {"version": [0]}
    write_deltalake(tmp_path / "t", one(2), mode="append")
    ledger.register(ctx)
    assert ctx.sql("SELECT max(version) AS v FROM cache_ledger.inventory").to_pydict() == {"v": [1]}


def test_the_ledger_of_the_environment(tmp_path, monkeypatch):
    """Without arguments the ledger is that of the settings, or in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert Ledger().root == LedgerRoot(str(tmp_path / ".deltawitness"))
    assert Ledger().spools == tmp_path / ".deltawitness" / "cache_spool"
    monkeypatch.setenv("DELTAWITNESS_CACHE_ROOT", "s3://bucket/c")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert Ledger().root.uri == "s3://bucket/c"
    assert Ledger().spools.parent == tmp_path / "state" / "deltawitness"
    monkeypatch.setenv("DELTAWITNESS_SPOOL_DIR", str(tmp_path / "spool"))
    assert Ledger(storage_options={"a": "b"}).root.storage_options == {"a": "b"}
    assert Ledger().spools.parent == tmp_path / "spool"


@pytest.mark.slow
def test_another_engine_reads_it(ledger):
    """The ledger is a plain Delta table that other readers can open."""
    duckdb = pytest.importorskip("duckdb")
    append_operations(ledger, operation_row("w-1", rows_added=3))
    scanned = DeltaTable(ledger.root.uri_of(INVENTORY)).to_pyarrow_table()
    assert duckdb.sql("SELECT write_id, rows_added FROM scanned").fetchall() == [("w-1", 3)]
    assert scanned.num_rows == 1
