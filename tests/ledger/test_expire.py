"""An expiry deletes old days of the ledger, and nothing that a run with later writes needs."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings
from deltawitness.ids_and_clock import new_id
from deltawitness.ledger.drain import expire as module
from deltawitness.ledger.drain.drain import Drain
from deltawitness.ledger.drain.expire import APPEND_ONLY
from deltawitness.ledger.drain.maintenance import lease
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerRoot
from deltawitness.ledger.tables.write_plans import read_plan_of_write, store_plan_of_write
from deltawitness.ledger.tables.write_rows import as_json
from deltawitness.semconv import EXPIRED_PROPERTY
from helpers.ledger_parts import now_us, operation_row, rows_of, run_started, spool_in, write_ids
from helpers.new_processes import start_process
from programs import ledger_folder

DAY = 86_400_000_000
"""Microseconds."""


@pytest.fixture
def root(cache):
    return LedgerRoot(cache)


@pytest.fixture
def aged(root, ledger):
    """Record writes of a run that began some days ago, some days ago each, and its end."""

    def record(run_id, began, *writes, ended=None, shard=None):
        spool = spool_in(ledger.spools, shard=shard)
        for number, age in enumerate(writes):
            row = operation_row(f"{run_id}-{number}", run_id=run_id)
            row["event_time"] -= age * DAY
            spool.append(RecordKind.ROW, row["write_id"], as_json(row))
        started = run_started(run_id)
        started["start_time"] -= began * DAY
        end = now_us() - (began if ended is None else ended) * DAY
        row = {**started, "status": "ok", "end_time": end}
        spool.append(RecordKind.RUN_END, run_id, as_json(row))
        spool.close()
        ledger.drain()

    return record


def counts(results):
    return {done.table: (done.rows, done.expired, done.retained) for done in results}


@pytest.mark.slow
def test_a_dry_run_counts_and_deletes_nothing(root, ledger, aged):
    """It is the default."""
    aged("old", 500, 500, 499)
    aged("new", 3, 3)
    version = root.open_table(INVENTORY).version()
    found = ledger.expire(timedelta(days=400))
    assert counts(found) == {INVENTORY.name: (3, 2, 0), RUNS.name: (2, 1, 0)}
    assert not any(done.is_done for done in found)
    assert root.open_table(INVENTORY).version() == version


@pytest.mark.slow
def test_stored_plans_of_old_writes_are_deleted(root, ledger, aged):
    """The id of a write has its day; files with other names stay."""
    aged("new", 3, 3)
    old, new = "01900000-0000-7000-8000-000000000000", new_id()
    for write_id in (old, new, "other"):
        store_plan_of_write(root, write_id, b"{}")
    before = ledger.expire(timedelta(days=400))[-1]
    assert (before.table, before.rows, before.expired, before.is_done) == (
        "cache_plans",
        3,
        1,
        False,
    )
    done = ledger.expire(timedelta(days=400), apply=True)[-1]
    assert (done.expired, done.is_done) == (1, True)
    assert read_plan_of_write(root, old) is None
    assert read_plan_of_write(root, new) == read_plan_of_write(root, "other") == b"{}"
    assert read_plan_of_write(root, "../../etc") is None
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        store_plan_of_write(root, "../x", b"")


@pytest.mark.slow
def test_old_rows_are_deleted(root, ledger, aged):
    """The tables are append-only again afterwards, and the day is in their properties."""
    aged("old", 500, 500, 499)
    aged("new", 3, 3)
    done = ledger.expire(timedelta(days=400), apply=True)
    assert counts(done) == {INVENTORY.name: (3, 2, 0), RUNS.name: (2, 1, 0)}
    assert write_ids(root, INVENTORY) == ["new-0"]
    assert [row["run_id"] for row in rows_of(root, RUNS, "run_id")] == ["new"]
    properties = root.open_table(INVENTORY).metadata().configuration
    assert (properties[APPEND_ONLY], len(properties[EXPIRED_PROPERTY])) == ("true", 10)
    assert ledger.verify().is_good
    aged("later", 1, 1)
    assert sorted(write_ids(root, INVENTORY)) == ["later-0", "new-0"]
    assert counts(ledger.expire(timedelta(days=400), apply=True))[INVENTORY.name] == (2, 0, 0)


@pytest.mark.slow
def test_a_run_with_later_writes_stays(root, ledger, aged):
    """So does a run that ended later; their old writes are deleted."""
    aged("long", 500, 500, 2)
    aged("ended", 500, 500, ended=2)
    done = ledger.expire(timedelta(days=400), apply=True)
    assert counts(done) == {INVENTORY.name: (3, 2, 0), RUNS.name: (2, 0, 2)}
    assert write_ids(root, INVENTORY) == ["long-1"]
    assert sorted(row["run_id"] for row in rows_of(root, RUNS, "run_id")) == ["ended", "long"]


@pytest.mark.slow
def test_shards_are_folded_first(root, ledger, aged):
    """A dry run counts their rows, too."""
    aged("old", 500, 500, shard="a")
    aged("new", 3, 3, shard="a")
    assert counts(ledger.expire(timedelta(days=400)))[INVENTORY.name] == (2, 1, 0)
    ledger.expire(timedelta(days=400), apply=True)
    assert write_ids(root, INVENTORY) == ["new-0"]


@pytest.mark.slow
def test_a_reconcile_does_not_rebuild_expired_rows(root, ledger, table, aged, monkeypatch):
    """The commits are still in the log of their table."""
    write_deltalake(table, pa.table({"x": [1]}))
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=root.uri))
    write_deltalake(table, pa.table({"x": [1]}), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    assert ledger.reconcile([table], full=True).counts["foreign"] == 1
    later = module.date.today() + timedelta(days=2)
    module.expire(root, later, apply=True)
    assert write_ids(root, INVENTORY) == []
    assert ledger.reconcile([table], full=True).is_clean
    assert ledger.adopt([table]).operations == 0


def test_a_short_age_is_refused(ledger):
    """Application transactions of drained spools must outlive their rows."""
    with pytest.raises(ValueError, match="at least 31 days"):
        ledger.expire(timedelta(days=30), apply=True)


@pytest.mark.slow
def test_a_table_that_is_compacted_is_left(root, ledger, aged):
    """A compaction that runs meanwhile would restore the rows."""
    aged("old", 500, 500)
    with lease(root, INVENTORY):
        done = {each.table: each.is_done for each in ledger.expire(timedelta(days=400), apply=True)}
    assert done == {INVENTORY.name: False, RUNS.name: True}
    assert write_ids(root, INVENTORY) == ["old-0"]


@pytest.mark.slow
def test_an_expiry_that_dies_is_completed_by_the_next(root, ledger, aged, monkeypatch):
    """The table is append-only again after the next one."""
    aged("old", 500, 500)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_delete", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ledger.expire(timedelta(days=400), apply=True)
    assert write_ids(root, INVENTORY) == ["old-0"]
    ledger.expire(timedelta(days=400), apply=True)
    assert write_ids(root, INVENTORY) == []
    assert root.open_table(INVENTORY).metadata().configuration[APPEND_ONLY] == "true"


@pytest.mark.slow
def test_expiry_and_compaction_beside_writers_lose_and_double_nothing(
    root, ledger, aged, tmp_path, size
):
    """Concurrent writers append while the inventory is compacted again and again, and expired once."""
    processes, count = size((8, 4), (8, 40), (4, 2))
    aged("old", 500, 500, 499)
    done = tmp_path / "done"
    compactor = start_process(ledger_folder.optimize_until, root.uri, None, str(done))
    writers = [
        start_process(ledger_folder.append_rows, root.uri, None, None, f"p{number}", count)
        for number in range(processes)
    ]
    while not (expired := ledger.expire(timedelta(days=400), apply=True))[0].is_done:
        pass  # the compactor has the lease
    written = [name for _, receiving in writers for name in receiving.recv()]
    done.touch()
    assert compactor[1].recv() > 0
    for process, _ in (*writers, compactor):
        process.join(60)
    assert expired[0].expired == 2
    assert sorted(write_ids(root, INVENTORY)) == sorted(written)
    assert Ledger(root.uri).verify().is_good
    assert Drain(root, tail=1).conflicts == 0
