"""A reconcile beside writers, drains and other reconciles appends each commit once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger
from deltawitness.ledger.drain.drain import GRACE
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.ledger.tables.write_rows import as_json, ledger_uri
from deltawitness.semconv import LATE_APP_ID
from helpers.ledger_parts import one, operation_row, spool_in
from helpers.places import PROGRAMS
from helpers.reconcile_parts import (
    CLEAN,
    add_commit,
    inventory_rows,
    now_ms,
    observe,
    observed_elsewhere,
    recorded_versions,
)

PROCESSES = multiprocessing.get_context("forkserver")

PROCESSES.set_forkserver_preload(["deltawitness.ledger.ledger", "deltawitness.ledger.drain"])


@pytest.mark.slow
def test_two_plans_of_the_same_time_append_once(tmp_path, ledger, table):
    """Of two plans with the same findings, the second one appends nothing."""
    observed_elsewhere(tmp_path, table, 2)
    write_deltalake(table, one(3), mode="append")
    plans = [ledger.reconcile([table]) for _ in range(2)]
    write_deltalake(table, one(4), mode="append")
    plans.append(ledger.reconcile([table]))
    assert [plan.apply() for plan in plans] == [3, 0, 1]
    assert recorded_versions(ledger) == [0, 1, 2, 3]
    assert ledger.root.open_table(INVENTORY).transaction_version(LATE_APP_ID) == 2
    assert ledger.reconcile([table]).commits == 0


def reconcile_on_event(cache, tables, start, done):
    ledger = Ledger(cache)
    start.wait()
    done.put(ledger.reconcile(tables).apply())
    done.close()
    done.join_thread()
    os._exit(0)


@pytest.mark.slow
def test_processes_that_reconcile_at_once_append_each_commit_once(
    tmp_path, cache, ledger, say, size
):
    """Of concurrent reconciles the first appends, and the others drop rows that exist by then."""
    tables = [f"{tmp_path}/lake/{number}" for number in range(3)]
    for table in tables:
        observed_elsewhere(tmp_path, table, 10)
        write_deltalake(table, one(0), mode="append")
    count = size(4, 16, 2)
    start, done = PROCESSES.Barrier(count, timeout=60), PROCESSES.Queue()
    arguments = (cache, tables, start, done)
    processes = [PROCESSES.Process(target=reconcile_on_event, args=arguments) for _ in range(count)]
    for process in processes:
        process.start()
    appended_by = [done.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sum(appended_by) == 33
    assert recorded_versions(ledger) == sorted(3 * list(range(11)))
    say(f"reconcile: {count} processes at once, rows appended by each: {sorted(appended_by)}")


@pytest.mark.slow
def test_a_young_commit_is_skipped_while_its_writer_may_be_alive(tmp_path, ledger, table):
    """While another process is alive, commits younger than a minute are left for a later pass."""
    observed_elsewhere(tmp_path, table, 2)
    old = now_ms() - int(2 * GRACE * 1000)
    add_commit(table, 2, {"commitInfo": {"timestamp": old, "operation": "WRITE"}})
    program = [sys.executable, PROGRAMS / "ledger_idler.py", ledger.root.uri]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        plan = ledger.reconcile([table])
        assert (plan.counts, plan.unsettled) == ({**CLEAN, "foreign": 1}, 2)
        assert plan.apply() == 1
        # A commit that was skipped is read again, although a later one has a row.
        assert ledger.reconcile([table]).commits == 3
        other.communicate()
    assert ledger.reconcile([table]).apply() == 2
    assert recorded_versions(ledger, table) == [0, 1, 2]


def add_old_commit(table, version, write_id):
    """Add a commit that is older than `GRACE` to a log."""
    old = now_ms() - int(2 * GRACE * 1000)
    add_commit(
        table,
        version,
        {
            "commitInfo": {
                "timestamp": old,
                "operation": "WRITE",
                "run_id": "run-1",
                "write_id": write_id,
            }
        },
    )
    return old * 1000


@pytest.mark.slow
@pytest.mark.parametrize("marked", [True, False])
def test_a_spooled_write_is_left_to_its_drain(ledger, table, marked):
    """A spooled write is left to its drain at any age, also if its commit has the caller's id."""
    write_deltalake(table, one(0))
    ledger.reconcile([table]).apply()
    write_id = "00000000-0000-7000-8000-000000000001"
    began = add_old_commit(table, 1, "callers-own" if marked else write_id)
    told_later = {"table_uri": ledger_uri(table), "version": 1, "event_time": began}
    spool = spool_in(ledger.spools)
    if marked:
        spool.append_provisional(
            write_id, as_json(operation_row(write_id, _mark="callers-own", **told_later))
        )
    else:
        spool.append(RecordKind.ROW, write_id, as_json(operation_row(write_id, **told_later)))
    plan = ledger.reconcile([table])
    assert (plan.counts, plan.unsettled, plan.apply()) == (CLEAN, 1, 0)
    assert ledger.reconcile([table]).commits == 1
    spool._release_home()
    assert ledger.reconcile([table]).is_clean
    assert [row["source"] for row in inventory_rows(ledger)][1:] == ["observed"]


@pytest.mark.slow
def test_a_late_drain_adds_nothing(ledger, table):
    """A row that is drained after its commit was reconciled is not appended."""
    write_deltalake(table, one(0))
    write_id = "00000000-0000-7000-8000-000000000001"
    began = add_old_commit(table, 1, write_id)
    assert ledger.reconcile([table]).apply() == 2
    spool = spool_in(ledger.spools)
    spool.append(RecordKind.ROW, write_id, as_json(operation_row(write_id, event_time=began)))
    spool._release_home()
    assert ledger.drain().operations == 0
    assert [row["source"] for row in inventory_rows(ledger)] == ["reconciled", "reconciled"]


@pytest.mark.slow
def test_a_write_in_progress_is_not_missing(tmp_path, cache, ledger, say, size):
    """A write in progress in this process is not reported as missing."""
    observe(cache, settings={"drain_interval": 0.05})
    tables, count = [f"{tmp_path}/lake/{number}" for number in range(3)], size(40, 400, 10)

    def write(table):
        for number in range(count):
            write_deltalake(table, one(number), mode="append")

    threads = [threading.Thread(target=write, args=(table,)) for table in tables]
    for thread in threads:
        thread.start()
    passes = early = 0
    while any(thread.is_alive() for thread in threads):
        early += ledger.reconcile([f"{tmp_path}/lake/*"]).apply()
        passes += 1
    DeltaLakeInstrumentor().uninstrument()
    assert ledger.reconcile([f"{tmp_path}/lake/*"], full=True).is_clean
    assert [recorded_versions(ledger, table) for table in tables] == 3 * [list(range(count))]
    assert early == 0
    say(f"reconcile: {passes} passes while three threads made {3 * count} commits")


@pytest.mark.slow
def test_a_process_stopped_around_its_first_commit_gets_one_row(cache, ledger, table, say, size):
    """A process that is stopped around its first commit while others reconcile gets one row."""
    program = [sys.executable, PROGRAMS / "ledger_stopped.py", cache, table, str(size(30, 300, 6))]
    left = found = 0
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as writer:
        for line in writer.stdout:
            time.sleep(random.uniform(0, 0.03))
            os.kill(int(line), signal.SIGSTOP)
            plan = ledger.reconcile([table])
            left += plan.unsettled
            found += plan.apply()
            os.kill(int(line), signal.SIGCONT)
    assert writer.returncode == 0
    ledger.reconcile([table]).apply()
    there = [int(path.stem) for path in sorted(Path(table, "_delta_log").glob("*.json"))]
    assert recorded_versions(ledger) == there
    assert ledger.reconcile([table], full=True).is_clean
    say(
        f"reconcile: {len(there)} commits of stopped processes, {left} left alone, {found} appended early"
    )
