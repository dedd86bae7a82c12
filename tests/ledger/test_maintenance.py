"""Maintenance of the ledger's tables holds an exclusive lease and changes no row."""

from __future__ import annotations

import shutil

import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import internal_errors
from deltawitness.commit.duplicates import DuplicateRewrite, find_duplicate_rewrites
from deltawitness.commit.log import open_log
from deltawitness.ledger.drain import maintenance
from deltawitness.ledger.drain.drain import Drain
from deltawitness.ledger.drain.maintenance import MaintenanceResult, lease, maintain, optimize
from deltawitness.ledger.ledger import Ledger
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerRoot
from deltawitness.semconv import LEASE_APP_ID
from helpers.ledger_parts import one, operation_row, rows_of, sealed_rows, spool_in
from helpers.new_processes import PROCESSES


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A ledger whose inventory has ten files."""
    folder = tmp_path_factory.mktemp("ledger")
    root = LedgerRoot(str(folder / "cache"))
    spool = spool_in(folder / "spools")
    for number in range(10):
        Drain(root, tail=1).drain_segments(
            sealed_rows(spool, operation_row(f"w-{number}", versions=[number], rows_added=number))
        )
        spool.delete(spool.sealed())
    return root


@pytest.fixture
def root(template, tmp_path):
    """A copy of that ledger."""
    return LedgerRoot(str(shutil.copytree(template.uri, tmp_path / "cache")))


def mark(root):
    return root.open_table(INVENTORY).transaction_version(LEASE_APP_ID)


# --- the lease ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_lease_is_acquired_and_released(root):
    """The lease yields the newest table, and is free afterwards, also after an error."""
    with lease(root, INVENTORY) as opened:
        assert (opened.version(), mark(root)) == (11, 1)
    assert mark(root) == 2
    with pytest.raises(ZeroDivisionError), lease(root, INVENTORY):
        1 / 0  # noqa: B018 - raises
    assert mark(root) == 4


@pytest.mark.slow
def test_a_fresh_lease_is_not_broken(root):
    """A lease that is held and has not expired cannot be taken."""
    with lease(root, INVENTORY):
        with lease(root, INVENTORY) as second:
            assert second is None
        assert mark(root) == 1


@pytest.mark.slow
def test_a_lease_of_a_table_that_is_not_there(root):
    """The lease of a missing table yields None."""
    with lease(root, RUNS) as opened:
        assert opened is None


@pytest.mark.slow
def test_the_lease_of_a_dead_holder_is_broken(root, monkeypatch):
    """An expired lease is taken over; its old holder does not release the new one."""
    old = maintenance._acquire(root, INVENTORY)
    with monkeypatch.context() as later:
        later.setattr(maintenance, "LEASE_SECONDS", -10.0)
        new = maintenance._acquire(root, INVENTORY)
    assert (old, new, mark(root)) == (1, 3, 3)
    maintenance._release(root, INVENTORY, old)
    assert mark(root) == 3
    maintenance._release(root, INVENTORY, new)
    assert mark(root) == 4


def test_a_lease_older_than_the_log_has_expired(tmp_path):
    """A lease whose commit is no longer in the log has expired."""
    assert maintenance._is_expired(open_log(str(tmp_path / "none")))


def test_only_one_process_takes_a_free_lease(root, monkeypatch):
    """Of two processes that saw the lease free, only one commits it."""
    leave = maintenance._write_lease
    first = []

    def overtaken(opened, table, taken):
        if not first:
            first.append(maintenance._write_lease)
            assert maintenance._acquire(root, INVENTORY) == 1
        leave(opened, table, taken)

    monkeypatch.setattr(maintenance, "_write_lease", overtaken)
    assert (maintenance._acquire(root, INVENTORY), mark(root)) == (None, 1)


def test_trouble_in_taking_it_is_raised(root, monkeypatch):
    """An error other than a conflict is raised."""
    monkeypatch.setattr(maintenance, "_write_lease", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), lease(root, INVENTORY):
        pass


def try_lease(uri, start, tried, got):
    """Try to take the lease concurrently with others, and hold it until all have tried."""
    start.wait()
    with lease(LedgerRoot(uri), INVENTORY) as opened:
        tried.wait()
        got.put(opened is not None)


@pytest.mark.slow
def test_one_of_many_processes_gets_it(root, size):
    """Of many concurrent processes exactly one gets the lease."""
    number = size(3, 16, 2)
    start, tried = (PROCESSES.Barrier(number, timeout=60) for _ in range(2))
    got = PROCESSES.Queue()
    workers = [
        PROCESSES.Process(target=try_lease, args=(root.uri, start, tried, got))
        for _ in range(number)
    ]
    for worker in workers:
        worker.start()
    answers = [got.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert (sum(answers), [worker.exitcode for worker in workers]) == (1, [0] * number)
    assert mark(root) == 2


# --- maintenance --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compaction_keeps_every_row(root):
    """Compaction merges small files into one and changes no row."""
    before = rows_of(root, INVENTORY, order="write_id")
    assert optimize(root, INVENTORY) == MaintenanceResult(
        "cache_inventory_v1", is_done=True, files_added=1, files_removed=10
    )
    assert rows_of(root, INVENTORY, order="write_id") == before
    assert len(before) == 10
    assert len(root.open_table(INVENTORY).file_uris()) == 1
    assert list(find_duplicate_rewrites(open_log(root.uri_of(INVENTORY)))) == []


@pytest.mark.slow
def test_the_ledger_maintains_all_its_tables(root):
    """Existing tables are compacted and missing ones skipped; a second call finds nothing to do."""
    ledger = Ledger(root.uri)
    first, second = ledger.optimize(), ledger.optimize()
    assert [(done.table, done.is_done, done.files_removed) for done in first] == [
        ("cache_inventory_v1", True, 10),
        ("cache_run_summary_v1", False, 0),
        ("cache_snapshot_registry_v1", False, 0),
    ]
    assert second[0] == MaintenanceResult("cache_inventory_v1", is_done=True)


def test_nothing_is_compacted_without_the_lease(root):
    """Without the lease nothing is changed."""
    with lease(root, INVENTORY):
        version = root.open_table(INVENTORY).version()
        assert optimize(root, INVENTORY) == MaintenanceResult("cache_inventory_v1", is_done=False)
        assert root.open_table(INVENTORY).version() == version


@pytest.mark.slow
def test_old_files_are_deleted_after_the_retention(root, monkeypatch):
    """Files that compaction replaced are deleted only after their retention."""
    monkeypatch.setattr(maintenance, "RETENTION_HOURS", 24 * 365)
    assert optimize(root, INVENTORY).files_deleted == 0
    uri = root.uri_of(INVENTORY)
    DeltaTable(uri).alter.set_table_properties(
        {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
    )
    monkeypatch.setattr(maintenance, "RETENTION_HOURS", 0)
    assert optimize(root, INVENTORY).files_deleted == 10
    assert len(rows_of(root, INVENTORY)) == 10


@pytest.mark.internal_errors
def test_an_error_of_maintenance_is_reported_and_does_not_fail_the_drain(root, monkeypatch):
    """An error of maintenance is reported and does not fail the drain."""
    monkeypatch.setattr(maintenance, "_acquire", lambda *_: 1 / 0)
    maintain(root, INVENTORY)
    assert internal_errors.error_counts() == {("maintenance", "ZeroDivisionError"): 1}


# --- what the lease is for ---------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """A table of ten rows in ten files."""
    uri = str(tmp_path / "t")
    for number in range(10):
        write_deltalake(uri, one(number), mode="append")
    return uri


def ids(uri):
    return sorted(DeltaTable(uri).to_pyarrow_table()["x"].to_pylist())


@pytest.mark.slow
def test_two_compactions_at_once_double_every_row_and_are_found(table):
    """Two compactions from one version duplicate rows (deltalake 1.6.6), and the log shows it."""
    first, second = DeltaTable(table), DeltaTable(table)
    first.optimize.compact()
    second.optimize.compact()
    assert ids(table) == sorted([*range(10)] * 2)
    found = list(find_duplicate_rewrites(open_log(table)))
    assert {(one.first, one.second) for one in found} == {(10, 11)}
    assert {one.path for one in found} <= {
        path.rpartition("/")[2] for path in DeltaTable(table, version=9).file_uris()
    }
    assert len(found) == 10
    DeltaTable(table).restore(found[0].second - 1)
    assert ids(table) == list(range(10))


@pytest.mark.slow
def test_other_commits_are_not_reported_as_duplicate_compactions(table):
    """Successive compactions, deletes, restores and vacuums are not reported as duplicates."""
    DeltaTable(table).optimize.compact()
    write_deltalake(table, one(10), mode="append")
    DeltaTable(table).optimize.compact()
    DeltaTable(table).delete("x = 3")
    DeltaTable(table).restore(10)
    DeltaTable(table).optimize.compact()
    write_deltalake(table, one(11), mode="append")
    DeltaTable(table).optimize.z_order(["x"])
    write_deltalake(table, one(1), mode="overwrite")
    DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert list(find_duplicate_rewrites(open_log(table))) == []


def test_only_the_given_versions_are_checked_for_duplicates(table):
    """Only the given versions are checked for duplicates."""
    handles = [DeltaTable(table), DeltaTable(table)]
    for handle in handles:
        handle.optimize.compact()
    log = open_log(table)
    assert list(find_duplicate_rewrites(log, [11, 99])) == []
    assert [type(found) for found in find_duplicate_rewrites(log, [10, 11])] == [
        DuplicateRewrite
    ] * 10
