"""The command line audits, reconciles, drains, compacts and verifies a ledger."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.semconv import Env
from helpers.ledger_commands import KILLED, error_of, invoke, json_of, run

# --- audit ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_commits_with_the_metadata_pass_an_audit(lake):
    """An audit of observed commits exits 0."""
    done = invoke("audit", "lake/flights", "lake/top")
    assert (done.exit_code, done.stdout) == (
        0,
        "5 commits of 2 tables: 0 without the standard metadata\n",
    )


def test_an_unobserved_commit_fails_an_audit(lake):
    """The finding names its operation, its engine and the missing keys."""
    audit = json_of("audit", lake / "*", code=1)
    assert (audit["is_good"], audit["commits"], audit["failing"]) == (False, 9, 1)
    (table,) = [table for table in audit["tables"] if table["failing"]]
    assert table["table"] == str(lake / "inner")
    (commit,) = table["failing"]
    assert (commit["version"], commit["operation"]) == (2, "WRITE")
    assert commit["engine"].startswith("delta-rs:")
    assert commit["missing"] == [
        *("run_id", "write_id", "cache_policy", "cache_scope", "cache_operation"),
        *("cache_result", "witness_version"),
    ]
    done = invoke("audit", lake / "inner")
    assert done.exit_code == 1
    assert "all keys" in done.stdout


@pytest.mark.slow
def test_an_audit_can_be_limited_to_new_commits(lake):
    """`--since-version` and `--last` limit the commits of each table."""
    assert json_of("audit", "lake/inner", "--last", "1", code=1)["commits"] == 1
    assert json_of("audit", "lake/inner", "--since-version", "1", code=1)["commits"] == 2
    assert json_of("audit", "lake/inner", "--since-version", "3")["commits"] == 0
    DeltaTable("lake/inner").restore(1)
    assert json_of("audit", "lake/inner", "--last", "1", code=1)["commits"] == 1


def test_an_unreadable_table_sets_the_exit_code_of_an_audit(lake):
    """The other tables are audited."""
    done = invoke("audit", "lake/nothing", "lake/none*", "lake/inner")
    assert done.exit_code == 2
    assert "3 commits of 1 table: 1 without the standard metadata" in done.stdout
    assert done.stderr == (
        f"deltawitness: {lake / 'nothing'} cannot be read: there is no Delta log\n"
        "deltawitness: lake/none* cannot be read: no Delta table matches\n"
    )


# --- reconcile -----------------------------------------------------------------------------------------


def test_a_reconcile_shows_its_plan_and_changes_nothing(lake):
    """A reconcile without `--apply` creates no ledger."""
    plan = json_of("reconcile", "lake/*", code=1)
    counts = {kind: len(plan[kind]) for kind in ("missing", "foreign", "phantom", "differing")}
    assert counts == {"missing": 8, "foreign": 1, "phantom": 0, "differing": 0}
    assert (plan["commits"], plan["applied"], plan["is_clean"]) == (9, None, False)
    assert [entry.name for entry in lake.parent.iterdir()] == ["lake"]
    text = invoke("reconcile", "lake/*").stdout
    assert "9 commits of 4 tables read: 8 missing, 1 foreign" in text
    assert "--apply" in text


@pytest.mark.slow
def test_an_applied_reconcile_adds_all_missing_rows(lake):
    """A second reconcile finds nothing; git ignores the new folder."""
    done = invoke("reconcile", "lake/*", "--apply")
    assert done.exit_code == 0, done.output
    assert "appended: 9 rows" in done.stdout
    assert (lake.parent / ".deltawitness/.gitignore").read_text() == "*\n"
    assert json_of("reconcile", "--all")["is_clean"]
    assert json_of("reconcile", "--all", "--full")["commits"] == 9
    assert len(json_of("writes", "--limit", "100")) == 9
    assert "the ledger agrees with the logs" in invoke("reconcile", "--all").stdout


def test_a_reconcile_reports_unreadable_tables(lake):
    """An unreadable table is reported with and without `--apply`."""
    assert json_of("reconcile", "lake/none*", code=1)["unreadable"][0]["table_uri"] == "lake/none*"
    assert invoke("reconcile", "lake/none*", "--apply").exit_code == 1


def test_a_reconcile_needs_either_tables_or_all(lake):
    """Neither tables nor `--all`, or both, is an error."""
    assert error_of("reconcile", code=2) == "reconcile: expected either table paths or --all"
    error_of("reconcile", "lake/top", "--all", code=2)
    assert "no ledger at" in error_of("reconcile", "--all")


@pytest.mark.slow
def test_a_row_whose_version_is_another_writes_is_reported(tmp_path, monkeypatch):
    """The finding remains after `--apply`, because the ledger is append-only."""
    monkeypatch.chdir(tmp_path)
    run(tmp_path, KILLED)
    row = json_of("writes", "--limit", "1")[0]
    log = tmp_path / f"lake/killed/_delta_log/{3:020d}.json"
    text = log.read_text().replace(row["write_id"], "another-1")
    time = int(re.search(r'"timestamp":(\d+)', text)[1])
    log.write_text(text.replace(str(time), str(time - 3_600_000)))
    plan = json_of("reconcile", "lake/killed", "--apply", code=1)
    assert [found["versions"] for found in plan["missing"]] == [[3]]
    (differing,) = plan["differing"]
    assert (differing["write_id"], differing["difference"]) == (row["write_id"], "other_write")
    done = invoke("reconcile", "lake/killed", "--full")
    assert done.exit_code == 1
    assert "4 commits of 1 table read: 1 differing" in done.stdout


# --- drain, optimize, verify -----------------------------------------------------------------------------

PLAIN = """
    import os, signal, sys
    from deltawitness import DeltaLakeInstrumentor
    DeltaLakeInstrumentor().instrument()
"""


@pytest.mark.slow
def test_the_spool_of_a_dead_process_is_drained(tmp_path, monkeypatch):
    """Before the drain there is no ledger, and the error names the command `drain`."""
    monkeypatch.chdir(tmp_path)
    program = textwrap.dedent(PLAIN) + textwrap.dedent(KILLED)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, Env.CACHE_ROOT.value: ".deltawitness", Env.DRAIN_INTERVAL.value: "600"},
    )
    assert done.returncode == -signal.SIGKILL
    assert error_of("runs").endswith("; spools wait to be imported: run `deltawitness drain`")
    assert not (tmp_path / ".deltawitness/cache_ledgers").exists()
    drained = invoke("drain")
    assert (drained.exit_code, drained.stdout) == (
        0,
        "imported 4 operations, 1 run and 0 snapshots of 1 dead process\n",
    )
    assert invoke("drain").stdout == "no spools to import\n"
    assert json_of("drain")["operations"] == 0
    assert [row["status"] for row in json_of("runs")] == ["abandoned"]
    # The end of the row is the time of the drain.
    (run_id,) = (row["run_id"] for row in json_of("runs"))
    assert "seconds" not in invoke("runs").stdout
    assert "; its end is not known\n" in invoke("show", f"run:{run_id}").stdout
    assert "note: the run was abandoned: its time is that until" in invoke("time", run_id).stdout


@pytest.mark.internal_errors
@pytest.mark.slow
def test_an_undrained_spool_sets_the_exit_code(tmp_path, monkeypatch):
    """An undrained spool remains for a later drain."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".deltawitness").mkdir()
    (tmp_path / ".deltawitness/cache_ledgers").write_text("in the way")
    run(tmp_path, KILLED)
    done = invoke("drain")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        "deltawitness: the spools of 1 dead processes could not be imported and stay where they are"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_ledger_is_compacted(copied):
    """Small files become one, and every row remains."""
    done = {table["table"]: table for table in json_of("ledger", "optimize")}
    inventory = done[INVENTORY.name]
    assert (inventory["is_done"], inventory["files_added"]) == (True, 1)
    assert inventory["files_removed"] >= 3
    assert "cache_inventory_v1" in invoke("ledger", "optimize").stdout
    assert len(json_of("writes")) == 13


@pytest.mark.slow
def test_a_good_ledger_is_verified(here):
    """A consistent ledger exits 0 with a line of text."""
    done = invoke("ledger", "verify")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        *("cache_inventory_v1: 13 rows", "cache_run_summary_v1: 5 rows", "no problems found"),
    ]
    verification = json_of("ledger", "verify")
    assert (verification["is_good"], verification["findings"]) == (True, [])


@pytest.mark.slow
def test_a_bad_ledger_sets_the_exit_code(copied):
    """A duplicate operation is a finding."""
    inventory = copied / INVENTORY.name
    write_deltalake(inventory, DeltaTable(inventory).to_pyarrow_table()[:1], mode="append")
    verification = json_of("ledger", "verify", code=1)
    assert [finding["problem"] for finding in verification["findings"]] == ["doubled_operation"]
    done = invoke("ledger", "verify")
    assert done.exit_code == 1
    assert done.stdout.startswith("doubled_operation in cache_inventory_v1: ")
