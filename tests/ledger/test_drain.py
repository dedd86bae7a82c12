"""A drain appends each record to the ledger exactly once, after deaths, races and retries."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from deltawitness.ledger.drain import drain as drain_module
from deltawitness.ledger.drain.drain import GRACE, Drain, DrainResult, append
from deltawitness.ledger.spool.reader import adopt, spool_app_id
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.tables.arrow import operation_rows
from deltawitness.ledger.tables.schema import (
    INVENTORY,
    RUNS,
    SNAPSHOTS,
    LedgerRoot,
    commit_properties,
)
from deltawitness.ledger.tables.write_rows import as_json
from deltawitness.semconv import LATE_APP_ID, CacheOperation
from helpers.ledger_parts import (
    left_behind,
    now_us,
    operation_row,
    rows_of,
    run_started,
    sealed_rows,
    spool_in,
    write_ids,
)
from helpers.new_processes import PROCESSES


@pytest.fixture
def root(tmp_path):
    return LedgerRoot(str(tmp_path / "cache"))


@pytest.fixture
def drain(root):
    return Drain(root, tail=64)


@pytest.fixture
def spools(tmp_path):
    return tmp_path / "spools"


def dead_spool(spools, *lines):
    """Create the spool of a dead process and return its folder."""
    spool = spool_in(spools)
    for kind, key, row in lines:
        if kind is RecordKind.PROVISIONAL:
            spool.append_provisional(key, as_json(row))
        else:
            spool.append(kind, key, as_json(row))
    home = spool.home
    spool._release_home()
    return home


# --- exactly once ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_drain_appends_in_one_commit_per_table(root, drain, spools):
    """Records are appended in one commit per table, with the spool's application transaction."""
    spool = spool_in(spools)
    spool.append(RecordKind.RUN_START, "run-1", as_json(run_started()))
    spool.append(RecordKind.ROW, "w-1", as_json(operation_row("w-1")))
    spool.append(
        RecordKind.RUN_END, "run-1", as_json({**run_started(), "status": "ok", "writes": 1})
    )
    spool.append(
        RecordKind.SNAPSHOT, "s", as_json({"event_time": now_us(), "snapshot": "s", "rows": 3})
    )
    spool.rotate()
    assert drain.drain_segments([segment.path for segment in spool.sealed()]) == DrainResult(
        1, 1, 1, segments=1
    )
    assert write_ids(root, INVENTORY) == ["w-1"]
    assert rows_of(root, RUNS, "run_id, job, status, writes") == [
        {"run_id": "run-1", "job": "nightly", "status": "ok", "writes": 1}
    ]
    assert rows_of(root, SNAPSHOTS, "snapshot, rows") == [{"snapshot": "s", "rows": 3}]
    marks = [
        root.open_table(table).transaction_version(spool_app_id(spool.home))
        for table in (INVENTORY, RUNS, SNAPSHOTS)
    ]
    assert marks == [1, 1, 1]
    assert [root.open_table(table).version() for table in (INVENTORY, RUNS, SNAPSHOTS)] == [1, 1, 1]


def test_the_same_segments_again_are_nothing(root, drain, spools):
    """A repeated drain of the same segments has no effect."""
    paths = sealed_rows(spool_in(spools), operation_row("w-1"))
    assert [drain.drain_segments(paths).operations for _ in range(3)] == [1, 0, 0]
    assert (write_ids(root, INVENTORY), root.open_table(INVENTORY).version()) == (["w-1"], 1)


def test_of_several_segments_only_the_new_ones_are_carried(root, drain, spools):
    """Segments up to the number in the spool's application transaction are not appended again."""
    spool = spool_in(spools)
    first = sealed_rows(spool, operation_row("w-1"))
    drain.drain_segments(first)
    both = sealed_rows(spool, operation_row("w-2"))
    assert (len(both), drain.drain_segments(both).operations) == (2, 1)
    assert write_ids(root, INVENTORY) == ["w-1", "w-2"]


@pytest.mark.slow
def test_each_table_has_a_separate_application_transaction(root, drain, spools, monkeypatch):
    """If a drain dies between two tables, the next drain appends only to the second one."""
    spool = spool_in(spools)
    spool.append(RecordKind.ROW, "w-1", as_json(operation_row("w-1")))
    spool.append(RecordKind.RUN_END, "run-1", as_json({**run_started(), "status": "ok"}))
    spool.rotate()
    paths = [segment.path for segment in spool.sealed()]
    with monkeypatch.context() as dying:
        dying.setattr(Drain, "_append_runs", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            drain.drain_segments(paths)
    assert drain.drain_segments(paths) == DrainResult(0, 1, 0, segments=1)
    assert (write_ids(root, INVENTORY), len(rows_of(root, RUNS))) == (["w-1"], 1)


def test_several_spools_go_into_one_commit(root, drain, spools):
    """Spools in one commit have an application transaction each; drained segments are left out."""
    ours, others = spool_in(spools), spool_in(spools)
    mine, theirs = (
        sealed_rows(ours, operation_row("w-1")),
        sealed_rows(others, operation_row("w-2")),
    )
    drain.drain_segments(mine)
    more = sealed_rows(ours, operation_row("w-3"))
    assert drain.drain_segments([*more, *theirs]).operations == 2
    opened = root.open_table(INVENTORY)
    assert (opened.version(), write_ids(root, INVENTORY)) == (2, ["w-1", "w-2", "w-3"])
    assert [opened.transaction_version(spool_app_id(spool.home)) for spool in (ours, others)] == [
        2,
        1,
    ]


def test_a_commit_that_landed_although_the_engine_raised_is_not_made_again(
    root, spools, monkeypatch
):
    """After an error the application transaction is read again before the next attempt."""
    paths = sealed_rows(spool_in(spools), operation_row("w-1"))
    raised = []

    def landing(*args, **kwargs):
        write_deltalake(*args, **kwargs)
        if not raised:
            raised.append(True)
            msg = "Failed to commit transaction: 15 attempts, version 1 already exists"
            raise CommitFailedError(msg)

    monkeypatch.setattr("deltalake.write_deltalake", landing)
    monkeypatch.setattr(drain_module, "FIRST_WAIT", 0.0)
    Drain(root, tail=64).drain_segments(paths)
    assert (raised, write_ids(root, INVENTORY)) == ([True], ["w-1"])


def test_only_one_of_two_drains_appends_a_segment(root, spools, monkeypatch):
    """Of two drains of one segment from the same table version, only one appends it."""
    paths = sealed_rows(spool_in(spools), operation_row("w-1"))
    root.open_or_create(INVENTORY)
    monkeypatch.setattr(drain_module, "FIRST_WAIT", 0.0)
    look, overtaken = drain_module.without_recorded, []

    def looked_too_early(*arguments):
        found = look(*arguments)
        if not overtaken:
            overtaken.append(True)
            Drain(root, tail=64).drain_segments(paths)
        return found

    monkeypatch.setattr(drain_module, "without_recorded", looked_too_early)
    assert Drain(root, tail=64).drain_segments(paths).operations == 0
    assert write_ids(root, INVENTORY) == ["w-1"]


def carry(uri, folder, number, start, counts):
    """Drain abandoned spools, concurrently with others."""
    start.wait()
    counts[number] = Drain(LedgerRoot(uri), tail=64).drain_abandoned(folder).operations


def test_racing_drains_append_each_record_once(root, spools, size):
    """Threads that drain the same spools concurrently lose and duplicate no row."""
    number = size(8, 40, 3)
    for spool in range(number):
        dead_spool(spools, (RecordKind.ROW, f"w-{spool}", operation_row(f"w-{spool}")))
    counts, start = [0] * 4, threading.Barrier(4, timeout=60)
    threads = [
        threading.Thread(target=carry, args=(root.uri, spools, n, start, counts)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(counts), Counter(write_ids(root, INVENTORY))) == (
        number,
        Counter(f"w-{spool}" for spool in range(number)),
    )
    assert list(spools.iterdir()) == []


def own_process(uri, folder, name, barrier):
    """Drain this process's segments one by one, concurrently with other processes."""
    spool = spool_in(folder)
    drain = Drain(LedgerRoot(uri), tail=64)
    barrier.wait()
    for number in range(5):
        paths = sealed_rows(spool, operation_row(f"{name}-{number}"))
        drain.drain_segments(paths)
        drain.drain_segments(paths)
        spool.delete(spool.sealed())
    spool.close()


@pytest.mark.slow
def test_processes_share_a_ledger(root, spools, size):
    """Processes that create the same ledger concurrently each find all of their rows in it once."""
    number = size(3, 16, 2)
    barrier = PROCESSES.Barrier(number, timeout=60)
    workers = [
        PROCESSES.Process(target=own_process, args=(root.uri, spools, name, barrier))
        for name in range(number)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * number
    expected = Counter(f"{name}-{count}" for name in range(number) for count in range(5))
    assert Counter(write_ids(root, INVENTORY)) == expected


# --- the loop ------------------------------------------------------------------------------------------


def test_a_conflict_is_tried_again_only_so_often(root, monkeypatch):
    """An append that conflicts at every attempt raises the engine's error."""
    tried = []

    def refused(*_args, **_kwargs):
        tried.append(True)
        msg = "Failed to commit transaction: version 1 already exists"
        raise CommitFailedError(msg)

    monkeypatch.setattr("deltalake.write_deltalake", refused)
    monkeypatch.setattr(drain_module, "FIRST_WAIT", 0.0)
    with pytest.raises(CommitFailedError):
        append(root, INVENTORY, lambda _: (INVENTORY.schema.empty_table(), {"app": 1}))
    assert len(tried) == drain_module.ATTEMPTS


def test_an_error_that_stays_is_not_tried_again(root, monkeypatch):
    """An error that is not transient is raised without a retry."""
    tried = []

    def refused(_table):
        tried.append(True)
        msg = "no such column"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="no such column"):
        append(root, INVENTORY, refused)
    assert tried == [True]


def test_rows_without_an_application_transaction_are_not_committed(root):
    """Rows without an application transaction are not committed."""
    assert append(root, INVENTORY, lambda _: (INVENTORY.schema.empty_table(), {})) == (0, 0)


def test_the_ledgers_own_commits_have_metadata(root, drain, spools):
    """Commits to the ledger have its scope, and no run id and no write id."""
    drain.drain_segments(sealed_rows(spool_in(spools), operation_row("w-1")))
    written, made = root.open_table(INVENTORY).history()
    keys = ("cache_scope", "cache_operation", "cache_policy", "write_id", "run_id")
    assert [[commit.get(key) for key in keys] for commit in (made, written)] == [
        ["ledger", "create", "ledger", None, None],
        ["ledger", "write", "ledger", None, None],
    ]


# --- batches -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_much_is_carried_in_several_commits(root, drain, spools, monkeypatch):
    """Segments beyond `BATCH_BYTES` are appended in several commits."""
    spool = spool_in(spools, segment_bytes=1)
    for number in range(5):
        sealed_rows(spool, operation_row(f"w-{number}"))
    paths = [segment.path for segment in spool.sealed()]
    monkeypatch.setattr(drain_module, "BATCH_BYTES", 2 * paths[0].stat().st_size)
    assert drain.drain_segments(paths) == DrainResult(operations=5, segments=5)
    assert root.open_table(INVENTORY).version() == 3
    assert len(write_ids(root, INVENTORY)) == 5


def test_a_drain_without_operations_creates_no_table(root, drain, spools):
    """A drain of segments without operations creates no table and no commit."""
    assert drain.drain_segments([]) == DrainResult()
    home = dead_spool(spools, (RecordKind.RUN_START, "r", run_started("r")))
    [dead] = adopt(spools)
    drain._root.open_or_create(RUNS)
    dead.segments[0].write_bytes(b"")
    assert drain.drain_spools(dead) == DrainResult(adopted=1, segments=1)
    assert (root.open_table(INVENTORY), home.exists()) == (None, False)


def test_an_empty_spool_is_just_deleted(drain, spools):
    """A spool with a lock file but no segment is deleted."""
    spool = spool_in(spools)
    spool._create_home()
    spool._release_home()
    assert drain.drain_abandoned(spools) == DrainResult(adopted=1)
    assert list(spools.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("is_drained_between", [False, True])
def test_only_writes_after_the_end_of_a_run_are_abandoned(root, drain, spools, is_drained_between):
    """If a process dies while a thread writes after its run's end, only those writes are abandoned."""
    spool, started = spool_in(spools), run_started()
    assert spool.append(RecordKind.ROW, "in-time", as_json(operation_row("in-time")))
    ended = started | {"end_time": now_us(), "status": "ok", "writes": 1}
    assert spool.append(RecordKind.RUN_END, "run-1", as_json(ended))
    spool.rotate()
    if is_drained_between:
        drain.drain_segments([segment.path for segment in spool.sealed()])
        spool.delete(spool.sealed())
    late = operation_row("late", event_time=ended["end_time"] - 5, duration_ms=3.0)
    assert spool.append(RecordKind.RUN_START, "run-1", as_json(started | {"is_part": True}))
    assert spool.append(RecordKind.ROW, "late", as_json(late))
    spool._release_home()
    drain.drain_abandoned(spools)
    assert sorted(write_ids(root, INVENTORY)) == ["in-time", "late"]
    assert rows_of(root, RUNS, "status, writes", "is_part") == [
        {"status": "ok", "writes": 1},
        {"status": "abandoned", "writes": 1},
    ]


@pytest.mark.slow
def test_spools_of_many_short_processes_need_few_commits(root, drain, spools):
    """Spools of dead processes are drained in one batch, with rows for each run."""
    left_behind(spools, 100)
    assert drain.drain_abandoned(spools) == DrainResult(100, 200, segments=100, adopted=100)
    assert sorted(write_ids(root, INVENTORY)) == sorted(f"w-{number}" for number in range(100))
    recorded = rows_of(root, RUNS, "run_id, status, writes")
    assert {run["run_id"]: (run["status"], run["writes"]) for run in recorded} == {
        **{f"open-{number}": ("abandoned", 1) for number in range(100)},
        **{f"ended-{number}": ("ok", None) for number in range(100)},
    }
    assert (root.open_table(INVENTORY).version(), root.open_table(RUNS).version()) == (2, 2)
    assert list(spools.iterdir()) == []


@pytest.mark.slow
@pytest.mark.internal_errors
def test_an_unreadable_spool_does_not_block_others(root, drain, spools):
    """An unreadable spool remains, and the other spools of its batch are drained."""
    left_behind(spools, 3)
    bad = sorted(spools.iterdir())[1]
    [segment] = bad.glob("*.seg")
    segment.unlink()
    segment.mkdir()
    assert drain.drain_abandoned(spools) == DrainResult(2, 4, segments=2, adopted=2)
    assert len(write_ids(root, INVENTORY)) == 2
    assert list(spools.iterdir()) == [bad]


def test_a_row_that_no_column_can_hold_does_not_block_others(root, drain, spools):
    """A row that does not fit the table is skipped and counted as damaged."""
    spool = spool_in(spools)
    sealed_rows(
        spool,
        operation_row("text", rows_added="many"),
        operation_row("whole", rows_added=3),
        operation_row("vast", rows_added=1 << 70),
        operation_row("undated", event_time=None),
    )
    taken = {"event_time": now_us(), "run_id": "r"}
    for name, version in (("good", 1), ("vast", 1 << 70), ("text", "x")):
        row = {**taken, "snapshot": name, "version": version}
        assert spool.append(RecordKind.SNAPSHOT, name, as_json(row))
    spool.rotate()
    paths = [segment.path for segment in spool.sealed()]
    assert drain.drain_segments(paths) == DrainResult(1, 0, 1, segments=2, damaged=5)
    assert write_ids(root, INVENTORY) == ["whole"]
    assert rows_of(root, SNAPSHOTS, "snapshot") == [{"snapshot": "good"}]
    assert drain.drain_segments(paths) == DrainResult(segments=2, damaged=5)


def test_rows_of_a_run_lie_together(root, drain, spools):
    """Rows in a file are sorted by run, so that file statistics are selective."""
    spool = spool_in(spools)
    drain.drain_segments(
        sealed_rows(
            spool,
            *(operation_row(f"w-{n}", run_id=f"r-{n % 2}", event_time=now_us()) for n in range(6)),
        )
    )
    table = root.open_table(INVENTORY).to_pyarrow_table()
    assert table["run_id"].to_pylist() == ["r-0"] * 3 + ["r-1"] * 3


def test_lines_that_cannot_be_read_are_counted(root, drain, spools):
    """A damaged record does not affect the other records."""
    spool = spool_in(spools)
    paths = sealed_rows(spool, operation_row("w-1"), operation_row("w-2"))
    content = paths[0].read_bytes()
    paths[0].write_bytes(content.replace(b"w-1", b"w-9", 1))
    assert drain.drain_segments(paths) == DrainResult(1, segments=1, damaged=1)
    assert write_ids(root, INVENTORY) == ["w-2"]


# --- dead processes ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_records_and_runs_of_a_dead_process_are_completed(root, drain, spools, tmp_path):
    """A dead process's rows are appended, its records completed, and its runs closed as abandoned."""
    write_deltalake(tmp_path / "t", pa.table({"x": [1, 2]}))
    noted = operation_row(
        "w-2", table_uri=str(tmp_path / "t"), _mark="no-such-id", _version=0, table_id="t-2"
    )
    dead_spool(
        spools,
        (RecordKind.RUN_START, "run-1", run_started()),
        (RecordKind.ROW, "w-1", operation_row("w-1", rows_added=3, table_id="t-1", version=1)),
        (RecordKind.ROW, "w-0", operation_row("w-0", pid=8)),
        (RecordKind.PROVISIONAL, "w-2", noted),
        (RecordKind.RUN_START, "run-2", run_started("run-2")),
        (RecordKind.RUN_END, "run-2", {**run_started("run-2"), "status": "ok"}),
    )
    assert drain.drain_abandoned(spools) == DrainResult(3, 2, segments=1, adopted=1)
    runs = rows_of(
        root,
        RUNS,
        "run_id, status, writes, rows_added, array_sort(table_ids) AS table_ids",
        "run_id",
    )
    assert runs == [
        {
            "run_id": "run-1",
            "status": "abandoned",
            "writes": 2,
            "rows_added": 3,
            "table_ids": ["t-1", "t-2"],
        },
        {"run_id": "run-2", "status": "ok", "writes": None, "rows_added": None, "table_ids": None},
    ]


def test_runs_are_abandoned_by_the_last_segment_only(root, drain, spools, monkeypatch):
    """A run that is open in an older segment is not abandoned if a later segment has its end."""
    monkeypatch.setattr(drain_module, "BATCH_BYTES", 1)
    runs = [(RecordKind.RUN_START, "run-1", as_json(run_started()))]
    spool = spool_in(spools, open_runs=lambda: list(runs))
    spool.append(RecordKind.ROW, "w-1", as_json(operation_row("w-1")))
    spool.rotate()
    runs.clear()
    spool.append(RecordKind.RUN_END, "run-1", as_json({**run_started(), "status": "ok"}))
    spool.rotate()
    spool._release_home()
    drain.drain_abandoned(spools)
    assert rows_of(root, RUNS, "status") == [{"status": "ok"}]


def test_an_abandoned_run_of_a_process_that_wrote_nothing(root, drain, spools):
    """A run that died before its first write gets a row with zero counts."""
    dead_spool(spools, (RecordKind.RUN_START, "run-1", run_started()))
    drain.drain_abandoned(spools)
    assert rows_of(root, RUNS, "status, writes, tables_touched") == [
        {"status": "abandoned", "writes": 0, "tables_touched": 0}
    ]


@pytest.mark.internal_errors
def test_an_undrainable_spool_does_not_block_others(root, drain, spools):
    """An error with one abandoned spool is reported, and the other spools are drained."""
    broken = dead_spool(spools, (RecordKind.ROW, "w-1", operation_row("w-1")))
    (broken / "00000002.seg").mkdir()
    dead_spool(spools, (RecordKind.ROW, "w-2", operation_row("w-2")))
    assert drain.drain_abandoned(spools) == DrainResult(1, segments=1, adopted=1)
    assert (write_ids(root, INVENTORY), broken.exists()) == (["w-2"], True)


# --- late operations ---------------------------------------------------------------------------------------------


def reconciled(root, *ids, age=0.0):
    """Append rows as a reconcile does."""
    lines = [
        json.dumps(
            operation_row(write_id, source="reconciled", event_time=now_us() - int(age * 1e6))
        ).encode()
        for write_id in ids
    ]
    append(root, INVENTORY, lambda _: (operation_rows(lines), {"reconcile": 1}))


def test_a_late_operation_that_a_reconcile_has_found_is_not_doubled(root, drain, spools):
    """Operations older than `GRACE` are compared with reconciled rows before they are appended."""
    late = now_us() - int(2 * GRACE * 1e6)
    reconciled(root, "w-1", "other", age=2 * GRACE)
    paths = sealed_rows(
        spool_in(spools), *(operation_row(f"w-{n}", event_time=late) for n in range(3))
    )
    assert drain.drain_segments(paths).operations == 2
    assert sorted(write_ids(root, INVENTORY)) == ["other", "w-0", "w-1", "w-2"]
    assert root.open_table(INVENTORY).transaction_version(LATE_APP_ID) == 1


def test_a_segment_without_new_rows_is_committed_as_drained(root, drain, spools):
    """A segment without new rows is committed as drained nevertheless."""
    reconciled(root, "w-1")
    spool = spool_in(spools)
    paths = sealed_rows(spool, operation_row("w-1", event_time=now_us() - int(2 * GRACE * 1e6)))
    assert [drain.drain_segments(paths).operations, drain.drain_segments(paths).operations] == [
        0,
        0,
    ]
    assert root.open_table(INVENTORY).transaction_version(spool_app_id(spool.home)) == 1


def test_young_operations_are_not_looked_up(root, drain, spools):
    """Operations younger than `GRACE` cause no query and no shared application transaction."""
    drain.drain_segments(sealed_rows(spool_in(spools), operation_row("w-1")))
    assert root.open_table(INVENTORY).transaction_version(LATE_APP_ID) is None


def test_a_late_drain_and_a_reconcile_cannot_both_commit(root, drain, spools, monkeypatch):
    """A late drain and a reconcile conflict; the second one reads the table again."""
    monkeypatch.setattr(drain_module, "FIRST_WAIT", 0.0)
    looked = drain_module._without_reconciled
    raced = []

    def overtaken(table, rows):
        found = looked(table, rows)
        if not raced:
            raced.append(True)
            write_deltalake(
                DeltaTable(root.uri_of(INVENTORY)),
                operation_rows([json.dumps(operation_row("w-1", source="reconciled")).encode()]),
                mode="append",
                commit_properties=commit_properties(
                    CacheOperation.WRITE, [Transaction(LATE_APP_ID, 1)]
                ),
            )
        return found

    monkeypatch.setattr(drain_module, "_without_reconciled", overtaken)
    late = now_us() - int(2 * GRACE * 1e6)
    assert (
        drain.drain_segments(
            sealed_rows(spool_in(spools), operation_row("w-1", event_time=late))
        ).operations
        == 0
    )
    assert write_ids(root, INVENTORY) == ["w-1"]


# --- maintenance ------------------------------------------------------------------------------------------------


def test_a_table_is_due_after_so_many_commits(root, drain, spools, monkeypatch):
    """The drain that makes every `COMMITS_PER_MAINTENANCE`th commit has to maintain the table."""
    monkeypatch.setattr(drain_module, "COMMITS_PER_MAINTENANCE", 2)
    spool = spool_in(spools)
    due = []
    for number in range(4):
        drain.drain_segments(sealed_rows(spool, operation_row(f"w-{number}"))[number:])
        due.append([table.alias for table in drain.due])
    assert due == [[], ["inventory"], ["inventory"], ["inventory", "inventory"]]
