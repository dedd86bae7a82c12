"""Concurrent processes with one ledger: every operation gets exactly one row."""

from __future__ import annotations

import shutil
import time
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import Ledger, Settings
from deltawitness.ledger.spool.reader import adopt
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from helpers.ledger_parts import left_behind, rows_of, write_ids
from helpers.ledger_truth import assert_recorded_at_most_once, commits_of, unrecorded_commits
from helpers.new_processes import PROCESSES, run_in_processes
from programs import ledger_crowd


def made(*tables, options=None):
    """Create tables of one version without observation."""
    for table in tables:
        write_deltalake(str(table), pa.table({"x": [0]}), storage_options=options)


@pytest.mark.slow
def test_a_crowd_of_writers_shares_a_ledger(tmp_path, size, say):
    """No write of concurrent writers fails, no row is lost or duplicated, each run is one row."""
    processes, writes, tables = size((8, 25, 4), (16, 200, 8), (4, 10, 2))
    places = [tmp_path / f"t{number}" for number in range(tables)]
    made(*places)
    cache, started = tmp_path / "cache", time.monotonic()
    settings = {"cache_root": str(cache), "drain_interval": 0.3}
    results = run_in_processes(
        ledger_crowd.write_many,
        [
            # They start with different tables.
            (settings, [str(place) for place in places], None, range(number, number + writes))
            for number in range(processes)
        ],
    )
    took = time.monotonic() - started
    assert results == [(writes, [], {})] * processes
    ledger = Ledger(cache)
    left = ledger.drain()
    assert ledger.inventory().count() == processes * writes
    assert_recorded_at_most_once(ledger.root, *places)
    assert unrecorded_commits(ledger.root, *places) == {
        commit for commit, write_id in commits_of(*places).items() if write_id is None
    }
    runs = rows_of(ledger.root, RUNS, "run_id, job, status, writes, dropped")
    assert Counter((row["job"], row["status"], row["writes"], row["dropped"]) for row in runs) == {
        ("crowd", "ok", writes, 0): processes
    }
    assert len({row["run_id"] for row in runs}) == processes
    assert ledger.verify().is_good
    say(
        f"ledger: {processes} processes x {writes} writes on {tables} tables in {took:.1f} s:"
        f" {processes * writes} rows, {left.adopted} spools left to the next drain"
    )


@pytest.mark.slow
def test_concurrent_drains_append_each_record_once(tmp_path, size):
    """Drains that start together over the same abandoned spools append each record once."""
    spools, count = size(10, 100), size(8, 16, 4)
    root = tmp_path / "cache"
    left_behind(root / "cache_spool", spools)
    barrier = PROCESSES.Barrier(count)
    results = run_in_processes(
        ledger_crowd.drain_at_barrier, [(str(root), root / "cache_spool", barrier)] * count
    )
    ledger = Ledger(root)
    ledger.drain()  # a writer with too many conflicts has left its spool
    assert sorted(write_ids(ledger.root, INVENTORY)) == sorted(
        f"w-{number}" for number in range(spools)
    )
    runs = Counter(row["run_id"] for row in rows_of(ledger.root, RUNS, "run_id"))
    expected = {f"{kind}-{number}" for kind in ("open", "ended") for number in range(spools)}
    assert runs == dict.fromkeys(expected, 1)
    assert [errors for _, _, errors in results if errors] == []
    assert list((root / "cache_spool").iterdir()) == []


@pytest.mark.slow
def test_a_drain_of_an_old_copy_adds_nothing(tmp_path):
    """A spool that is restored from a copy after its drain adds no rows."""
    ledger = Ledger(tmp_path / "cache")
    left_behind(ledger.spools, 1)
    shutil.copytree(ledger.spools, tmp_path / "copy")
    assert ledger.drain().operations == 1
    shutil.copytree(tmp_path / "copy", ledger.spools, dirs_exist_ok=True)
    assert len(list(adopt(ledger.spools))) == 1
    assert (ledger.drain().operations, ledger.inventory().count()) == (0, 1)
    assert ledger.verify().is_good


def test_ledgers_that_share_a_spool_folder_are_drained_separately(tmp_path):
    """With a shared spool folder, the records of one ledger are not drained into another."""
    one, other = (
        Ledger(settings=Settings(cache_root=str(tmp_path / name), spool_dir=str(tmp_path / "s")))
        for name in ("one", "other")
    )
    left_behind(one.spools)
    assert (other.drain().operations, one.drain().operations) == (0, 1)
