"""Runs of reconciled writes get rows with the status `reconstructed`."""

from __future__ import annotations

import json
import threading

import pytest
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, run
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.run_rows import RunStatus
from deltawitness.ledger.tables.schema import RUNS
from deltawitness.ledger.tables.write_rows import as_json
from helpers.ledger_parts import one, rows_of, run_started, spool_in
from helpers.terminal_commands import run_command


@pytest.fixture
def table(tmp_path):
    return str(tmp_path / "t")


@pytest.fixture
def ledger(tmp_path):
    return Ledger(str(tmp_path / "cache"))


def observed_elsewhere(tmp_path, table, *numbers, job="nightly"):
    """Write in one run with another ledger, and return the run's id."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "elsewhere")))
    with run(job) as context:
        for number in numbers:
            write_deltalake(table, one(number), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    return context.run_id


def runs_in(ledger):
    """Return the runs of the frame by their ids; the listing has the same ones."""
    found = {row["run_id"]: row for row in ledger.runs().to_pylist()}
    listed = LedgerListing(ledger.root).rows(RUNS, order="run_id")
    names = ("status", "writes", "processes")
    assert {row["run_id"]: [row[name] for name in names] for row in listed} == {
        run_id: [row[name] for name in names] for run_id, row in found.items()
    }
    return found


@pytest.mark.slow
def test_a_run_is_reconstructed_from_its_writes(ledger, tmp_path, table):
    """A reconstructed run has its job, its writes' counts and time span; columns without data are null."""
    run_id = observed_elsewhere(tmp_path, table, 1, 2, 3)
    assert ledger.reconcile([table]).apply() == 3
    (row,) = rows_of(ledger.root, RUNS)
    assert (row["run_id"], row["status"], row["writes"], row["rows_added"]) == (
        run_id, "reconstructed", 3, 3,
    )  # fmt: skip
    assert (row["job"], row["host"], row["pid"], row["error_type"]) == ("nightly", None, None, None)
    assert row["tables_touched"] == 1
    assert row["start_time"] <= row["end_time"]
    assert row["cache_root"].endswith("/cache")
    assert row["witness_version"]
    assert ledger.verify().is_good


@pytest.mark.slow
def test_a_second_reconcile_adds_no_run(ledger, tmp_path, table):
    observed_elsewhere(tmp_path, table, 1)
    plan, other = ledger.reconcile([table]), ledger.reconcile([table])
    assert (plan.apply(), plan.apply(), other.apply()) == (1, 0, 0)
    assert ledger.reconcile([table], full=True).apply() == 0
    assert len(rows_of(ledger.root, RUNS)) == 1


@pytest.mark.slow
def test_further_writes_of_a_reconstructed_run_are_a_part_of_it(ledger, tmp_path, table):
    """Tables that are reconciled one after the other add up to one run."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "elsewhere")))
    other = str(tmp_path / "u")
    with run("nightly") as context:
        write_deltalake(table, one(1))
        write_deltalake(other, one(2))
    DeltaLakeInstrumentor().uninstrument()
    assert (ledger.reconcile([table]).apply(), ledger.reconcile([other]).apply()) == (1, 1)
    row = runs_in(ledger)[context.run_id]
    assert (row["writes"], row["tables_touched"], row["status"]) == (2, 2, "reconstructed")


@pytest.mark.slow
def test_a_run_with_a_row_gets_no_reconstructed_row(ledger, tmp_path, table):
    """A run with a row of its process gets no other row: that row counts the lost write already."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=ledger.root.uri))
    with run("nightly") as context:
        write_deltalake(table, one(1))
    ledger.drain()
    DeltaLakeInstrumentor().uninstrument()
    before = rows_of(ledger.root, RUNS)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "elsewhere")))
    with run("nightly", run_id=context.run_id):
        write_deltalake(table, one(2), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    assert ledger.reconcile([table]).apply() == 1
    assert rows_of(ledger.root, RUNS) == before


def test_commits_without_a_run_id_give_no_run(ledger, table):
    write_deltalake(table, one(1))
    assert ledger.reconcile([table]).apply() == 1
    assert rows_of(ledger.root, RUNS) == []


@pytest.mark.slow
def test_a_run_that_waits_in_a_spool_is_left_to_it(ledger, tmp_path, table):
    run_id = observed_elsewhere(tmp_path, table, 1)
    plan = ledger.reconcile([table])
    spool = spool_in(ledger.spools)
    spool.append(RecordKind.RUN_START, run_id, as_json(run_started(run_id)))
    assert plan.apply() == 1
    assert rows_of(ledger.root, RUNS) == []
    spool.close()


@pytest.mark.slow
def test_a_run_that_this_process_has_open_is_left_to_it(ledger, tmp_path, table):
    run_id = observed_elsewhere(tmp_path, table, 1)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=ledger.root.uri))
    with run("nightly", run_id=run_id):
        write_deltalake(str(tmp_path / "u"), one(1))
        assert ledger.reconcile([table]).apply() == 1
        assert [row for row in rows_of(ledger.root, RUNS) if row["run_id"] == run_id] == []
    DeltaLakeInstrumentor().uninstrument()
    row = runs_in(ledger)[run_id]
    assert row["status"] == "ok"


@pytest.mark.slow
def test_a_recorded_run_replaces_the_reconstructed_one(ledger, tmp_path, table):
    """A run that another machine's spool records later replaces the reconstructed one."""
    run_id = observed_elsewhere(tmp_path, table, 1, 2)
    ledger.reconcile([table]).apply()
    assert runs_in(ledger)[run_id]["status"] == "reconstructed"
    (known,) = rows_of(Ledger(str(tmp_path / "elsewhere")).root, RUNS)
    recorded = {
        name: value
        for name, value in known.items()
        if name in {"run_id", "job", "is_part", "status", "writes", "rows_added"}
    }
    times = {"start_time": 1_700_000_000_000_000, "end_time": 1_700_000_001_000_000}
    spool = spool_in(ledger.spools)
    spool.append(RecordKind.RUN_END, run_id, as_json({**recorded, **times}))
    spool.close()
    ledger.drain()
    row = runs_in(ledger)[run_id]
    assert (row["status"], row["job"], row["writes"], row["rows_added"]) == ("ok", "nightly", 2, 2)


@pytest.mark.slow
def test_two_concurrent_reconciles_add_one_row(ledger, tmp_path, table):
    run_id = observed_elsewhere(tmp_path, table, *range(6))
    plans = [ledger.reconcile([table]) for _ in range(3)]
    applied = []
    threads = [threading.Thread(target=lambda p=plan: applied.append(p.apply())) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(applied) == 6
    assert runs_in(ledger)[run_id]["writes"] == 6


@pytest.mark.slow
def test_the_command_shows_and_filters_them(ledger, tmp_path, table):
    run_id = observed_elsewhere(tmp_path, table, 1)
    ledger.reconcile([table]).apply()
    root = ("--root", ledger.root.uri)
    done = run_command("runs", "--status", "reconstructed", "--json", *root)
    assert [row["run_id"] for row in json.loads(done.stdout)] == [run_id]
    shown = run_command("show", run_id, *root)
    assert "reconstructed" in shown.stdout


def test_the_statuses_of_the_command_are_those_of_the_code():
    from deltawitness.cli.runs import STATUSES

    assert set(STATUSES) == set(RunStatus)
