"""Writers of a shard have tables of their own; readers and folds see each row once."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, run
from deltawitness.exceptions import ConfigurationError
from deltawitness.ledger.drain import fold as module
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.spool.writer import SHARD
from deltawitness.ledger.tables import locations
from deltawitness.ledger.tables.locations import SHARD_BUCKETS, shard_of
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerRoot
from deltawitness.ledger.tables.shards import shard_names
from deltawitness.ledger.tables.write_rows import as_json
from deltawitness.run_origin import RunOrigin
from helpers.ledger_parts import (
    now_us,
    operation_row,
    rows_of,
    run_started,
    spool_in,
    write_ids,
)
from helpers.new_processes import PROCESSES, run_in_processes, start_process
from programs import ledger_folder


@pytest.fixture
def root(cache):
    return LedgerRoot(cache)


@pytest.fixture
def left(root, ledger):
    """Leave the spool of a dead process with some writes and their runs, and drain it."""

    def leave(shard, *names):
        spool = spool_in(ledger.spools, shard=shard)
        for name in names:
            started = run_started(f"run-{name}")
            spool.append(RecordKind.RUN_START, started["run_id"], as_json(started))
            row = operation_row(name, run_id=started["run_id"])
            spool.append(RecordKind.ROW, name, as_json(row))
            ended = {**started, "status": "ok", "writes": 1, "end_time": now_us()}
            spool.append(RecordKind.RUN_END, started["run_id"], as_json(ended))
        spool.close()
        return ledger.drain()

    return leave


def seen(ledger):
    """Return the write ids and the run ids that each way of reading returns, with their numbers."""
    by_sql = ledger.query("SELECT write_id AS id FROM inventory")["id"].to_pylist()
    by_frame = ledger.inventory().to_arrow_table()["write_id"].to_pylist()
    runs_by_sql = ledger.query("SELECT run_id AS id FROM runs WHERE writes = 1")["id"].to_pylist()
    runs_by_frame = ledger.runs().to_arrow_table()["run_id"].to_pylist()
    assert (Counter(by_sql), Counter(runs_by_sql)) == (Counter(by_frame), Counter(runs_by_frame))
    assert sorted(runs_by_sql) == sorted(f"run-{name}" for name in by_sql)
    return sorted(by_sql)


@pytest.mark.parametrize(("commits", "times"), [(1, 2), (1000, 0)])
def test_a_fold_vacuums_a_shard_after_many_of_its_commits(
    commits, times, left, ledger, monkeypatch
):
    """Files that a fold has removed are deleted later, and not looked for at each fold."""
    vacuumed = []
    monkeypatch.setattr(module, "COMMITS_PER_MAINTENANCE", commits)
    monkeypatch.setattr(module, "vacuum_table", lambda opened: vacuumed.append(opened.table_uri))
    left("a", "w-1")
    assert len(ledger.fold()) == 2  # the inventory and the runs
    assert len(vacuumed) == times


# --- writing ------------------------------------------------------------------------------------------


def test_a_spool_is_drained_to_the_shard_that_it_names(root, left):
    """Whichever process drains it, its rows are in the tables of its shard."""
    left("a", "w-1")
    left(None, "w-2")
    assert write_ids(root, INVENTORY) == ["w-2"]
    assert write_ids(root.of_shard("a"), INVENTORY) == ["w-1"]
    assert shard_names(root) == ["a"]


def test_a_spool_with_a_shard_is_left_to_releases_that_know_shards(ledger):
    """Its folder has another prefix, and a file with the name of the shard."""
    spool = spool_in(ledger.spools, shard="a")
    spool.begin()
    assert spool.home.name.startswith("v2-")
    assert (spool.home / SHARD).read_text() == "a"
    spool.close()


@pytest.mark.slow
def test_a_program_writes_to_its_shard(cache, table, monkeypatch):
    """The mode and the shard are variables; the main tables are not created."""
    monkeypatch.setenv("DELTAWITNESS_LEDGER_MODE", "shard")
    monkeypatch.setenv("DELTAWITNESS_LEDGER_SHARD", "team-a")
    monkeypatch.setenv("DELTAWITNESS_CACHE_ROOT", cache)
    DeltaLakeInstrumentor().instrument()
    with run("nightly"):
        write_deltalake(table, pa.table({"x": [1]}))
    root = LedgerRoot(cache)
    assert root.open_table(INVENTORY) is None
    assert len(write_ids(root.of_shard("team-a"), INVENTORY)) == 1
    assert len(rows_of(root.of_shard("team-a"), RUNS)) == 1
    assert Ledger().runs().select("job", "writes").to_pylist() == [{"job": "nightly", "writes": 1}]
    assert Ledger().verify().is_good


def test_the_default_shard_is_bounded_by_host_or_named_by_the_scheduler(monkeypatch):
    """A thousand hosts share 16 shards; a scheduler's job names a shard."""
    settings = Settings(ledger_mode="shard")
    hosts = {}
    for number in range(1000):
        monkeypatch.setattr(locations.socket, "gethostname", lambda n=number: f"pod-{n}")
        hosts[number] = shard_of(settings)
    assert len(set(hosts.values())) == SHARD_BUCKETS
    assert shard_of(settings) == hosts[999]
    monkeypatch.setattr(locations, "process_origin", lambda: RunOrigin(job="daily sales/eu"))
    assert shard_of(settings) == "daily-sales-eu"
    assert shard_of(Settings(ledger_mode="shard", ledger_shard="x")) == "x"
    assert shard_of(Settings()) is None


@pytest.mark.parametrize("name", ["", " ", "../up", "a/b", "-a", "x" * 65])
def test_an_invalid_shard_is_refused(name):
    """A shard is the name of a folder."""
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_LEDGER_SHARD"):
        Settings(ledger_shard=name)


# --- reading and folding ------------------------------------------------------------------------------


@pytest.mark.slow
def test_readers_see_main_and_shards_as_one(left, ledger):
    """Queries, frames, sessions and the integrity check include the shards."""
    left("a", "w-1", "w-2")
    left("b", "w-3")
    left(None, "w-4")
    assert seen(ledger) == ["w-1", "w-2", "w-3", "w-4"]
    assert ledger.verify().rows == {INVENTORY.name: 4, RUNS.name: 4}


@pytest.mark.slow
def test_a_ledger_of_shards_alone_is_a_ledger(left, ledger):
    """It can be read before the first fold."""
    left("a", "w-1")
    assert seen(ledger) == ["w-1"]
    assert ledger.verify().is_good


@pytest.mark.slow
def test_a_fold_moves_each_row_once(root, left, ledger):
    """Afterwards the main tables have all rows and the shards none; a second fold does nothing."""
    left("a", "w-1", "w-2")
    left("b", "w-3")
    folded = ledger.fold()
    assert [(done.shard, done.rows, done.is_deleted) for done in folded] == [
        *(("a", 2, True),) * 2,
        *(("b", 1, True),) * 2,
    ]
    assert sorted(write_ids(root, INVENTORY)) == ["w-1", "w-2", "w-3"] == seen(ledger)
    assert write_ids(root.of_shard("a"), INVENTORY) == []
    assert ledger.fold() == []
    left("a", "w-4")
    assert seen(ledger) == ["w-1", "w-2", "w-3", "w-4"]
    assert [done.rows for done in ledger.fold()] == [1, 1]
    assert seen(ledger) == ["w-1", "w-2", "w-3", "w-4"]


@pytest.mark.slow
@pytest.mark.internal_errors
def test_a_fold_without_its_deletion_shows_no_row_twice(root, left, ledger, monkeypatch):
    """Readers compare keys then, and the next fold appends only what is new."""
    left("a", "w-1")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_delete", lambda *_: 1 / 0)
        assert {done.error for done in ledger.fold()} == {"division by zero"}
    assert write_ids(root, INVENTORY) == write_ids(root.of_shard("a"), INVENTORY) == ["w-1"]
    assert seen(ledger) == ["w-1"]
    left("a", "w-2")
    assert seen(ledger) == ["w-1", "w-2"]
    assert [done.rows for done in ledger.fold()] == [1, 1]
    assert sorted(write_ids(root, INVENTORY)) == ["w-1", "w-2"] == seen(ledger)
    assert write_ids(root.of_shard("a"), INVENTORY) == []


@pytest.mark.slow
@pytest.mark.parametrize("point", ["beforeappend", "afterappend", "after_delete"])
def test_a_fold_killed_at_any_step_loses_and_doubles_nothing(root, left, ledger, point):
    """The next fold completes it, without waiting for a lease."""
    left("a", "w-1", "w-2")
    process, results = start_process(ledger_folder.fold_and_die, root.uri, None, point)
    process.join(60)
    assert process.exitcode == -9
    assert not results.poll() or results.recv  # nothing was sent
    assert seen(ledger) == ["w-1", "w-2"]
    left("a", "w-3")
    assert seen(ledger) == ["w-1", "w-2", "w-3"]
    ledger.fold()
    assert sorted(write_ids(root, INVENTORY)) == ["w-1", "w-2", "w-3"] == seen(ledger)
    assert write_ids(root.of_shard("a"), INVENTORY) == []
    assert ledger.verify().is_good


@pytest.mark.slow
def test_two_folds_at_the_same_time_move_each_row_once(root, left, ledger):
    """Both append to the main table, one of them the rows."""
    left("a", *(f"w-{number}" for number in range(20)))
    barrier = PROCESSES.Barrier(2)
    results = run_in_processes(ledger_folder.fold_at_barrier, [(root.uri, None, barrier)] * 2)
    assert [done["error"] for folded in results for done in folded if done["error"]] == []
    folded = Counter(
        done["table"] for each in results for done in each for _ in range(done["rows"])
    )
    assert folded == {INVENTORY.name: 20, RUNS.name: 20}
    ledger.fold()
    assert len(write_ids(root, INVENTORY)) == 20
    assert len(seen(ledger)) == 20


@pytest.mark.slow
def test_folds_beside_writers_move_each_row_once(root, ledger, tmp_path, size):
    """Four writers append to two shards while two processes fold."""
    count = size(10, 60, 4)
    folders = [
        start_process(ledger_folder.fold_until, root.uri, None, str(tmp_path / "done"))
        for _ in range(2)
    ]
    written = run_in_processes(
        ledger_folder.append_rows,
        [(root.uri, None, f"s{number % 2}", f"p{number}", count) for number in range(4)],
    )
    (tmp_path / "done").touch()
    results = [receiving.recv() for _, receiving in folders]
    for process, _ in folders:
        process.join(60)
    assert [errors for _, errors in results] == [[], []]
    assert sum(rows for rows, _ in results) == 4 * count
    ledger.fold()
    assert sorted(write_ids(root, INVENTORY)) == sorted(name for ids in written for name in ids)


@pytest.mark.slow
def test_a_late_row_of_a_shard_yields_to_a_reconciled_row(root, left, ledger, table):
    """A reconcile has added the row of a write before its own row reached the shard."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=f"{root.uri}-other"))
    write_deltalake(table, pa.table({"x": [1]}))
    DeltaLakeInstrumentor().uninstrument()
    (write_id,) = write_ids(LedgerRoot(f"{root.uri}-other"), INVENTORY)
    plan = ledger.reconcile([table])
    assert plan.counts["missing"] == 1
    assert plan.apply() == 1
    left("a", write_id)
    rows = ledger.query("SELECT write_id, source FROM inventory").to_pylist()
    assert rows == [{"write_id": write_id, "source": "reconciled"}]
    assert ledger.inventory().select("source").to_pylist() == [{"source": "reconciled"}]
    assert [done.rows for done in ledger.fold() if done.table == INVENTORY.name] == [0]
    assert write_ids(root, INVENTORY) == [write_id]


@pytest.mark.slow
def test_a_reconcile_knows_the_rows_of_shards(cache, table):
    """A write in a shard is not missing, before and after a fold."""
    settings = Settings(cache_root=cache, ledger_mode="shard", ledger_shard="a")
    DeltaLakeInstrumentor().instrument(settings=settings)
    write_deltalake(table, pa.table({"x": [1]}))
    DeltaLakeInstrumentor().uninstrument()
    ledger = Ledger(cache)
    assert ledger.reconcile([table], full=True).is_clean
    assert ledger.reconcile().tables == ledger.reconcile([table]).tables
    ledger.fold()
    assert ledger.reconcile([table], full=True).is_clean


@pytest.mark.slow
def test_columns_that_one_table_lacks_are_null(root, left, ledger):
    """Main and shards may have the columns of different releases."""
    left("a", "w-1")
    write_deltalake(
        root.uri_of(INVENTORY),
        pa.table(
            {
                "event_date": [date(2024, 10, 4)],
                "write_id": ["w-2"],
                "source": ["observed"],
                "new": [7],
            }
        ),
        partition_by=["event_date"],
    )
    rows = ledger.query("SELECT write_id, run_id, new FROM inventory ORDER BY write_id")
    assert rows.to_pylist() == [
        {"write_id": "w-1", "run_id": "run-w-1", "new": None},
        {"write_id": "w-2", "run_id": None, "new": 7},
    ]
    frame = ledger.inventory().select("write_id", "run_id", "new").sort("write_id")
    assert json.loads(json.dumps(frame.to_pylist())) == rows.to_pylist()
