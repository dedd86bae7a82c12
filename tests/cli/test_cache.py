"""Commands of the cache: list entries, explain hits and misses, prune, and verify entries and runs."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import table_id
from deltawitness.answers.undrained import NOT_DRAINED
from helpers.ledger_commands import error_of, invoke, json_of
from helpers.ledger_parts import left_behind
from helpers.terminal_commands import run_command

pytestmark = pytest.mark.slow

PROGRAM = """
    import pyarrow as pa
    from datetime import timedelta
    from deltalake import write_deltalake
    from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext, run
    write_deltalake("lake/facts", pa.table({"id": range(10), "part": [n % 2 for n in range(10)]}))
    ctx = ObservedSessionContext()
    ctx.register_delta("facts", "lake/facts")
    ctx.from_arrow(pa.table({"part": [1]}), name="wanted")
    cache = DeltaCache(ctx)
    nightly = CachePolicy("nightly", retention=timedelta(days=30))
    def invoke():
        cache.view("sums", "SELECT part, sum(id) AS total FROM facts GROUP BY part", policy=nightly)
    invoke()
    invoke()
    write_deltalake("lake/facts", pa.table({"id": [10], "part": [0]}), mode="append")
    with run("inner", run_id="inner-1"):
        invoke()
    cache.view("chosen", "SELECT id FROM facts JOIN wanted USING (part)")
    cache.artifact("model", {"a": 1})
"""


def start(folder, text, *options):
    program = [sys.executable, "-c", textwrap.dedent(text)]
    done = run_command("run", "--job", "load", *options, "--", *program, folder=folder)
    assert done.returncode == 0, done.stderr
    return done


def text_of(*arguments, code=0):
    """Return a command's output as one line with single spaces."""
    done = invoke(*arguments)
    assert done.exit_code == code, done.output
    return " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def finished_program(tmp_path_factory):
    """A folder in which a program with cached results has run."""
    folder = tmp_path_factory.mktemp("made")
    start(folder, PROGRAM)
    return folder


@pytest.fixture
def place(finished_program, tmp_path, monkeypatch):
    """A copy of that folder that a test may change, as the working directory."""
    shutil.copytree(finished_program, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def program_folder(tmp_path, monkeypatch):
    """A folder in which the program has run for this test alone: the ledger and the plans have its location."""
    monkeypatch.chdir(tmp_path)
    start(tmp_path, PROGRAM)
    return tmp_path


def load_run():
    """Return the id of the program's run."""
    return next(row["run_id"] for row in json_of("runs") if row["job"] == "load")


@pytest.fixture
def run_id(place):
    return load_run()


def test_ls_lists_every_entry(place):
    """Each entry has its policy, version and state; one without its data file is damaged."""
    entries = json_of("cache", "ls")
    assert [
        (entry["scope"], entry["name"], entry["policy"], entry["version"], entry["problem"])
        for entry in entries
    ] == [
        ("view", "chosen", "view_delta_staging", 0, None),
        ("view", "sums", "nightly", 1, None),
        ("artifact", "model", "runtime_artifact", 0, None),
    ]
    assert all(0 <= entry["age_s"] < 600 and entry["made_at"].startswith("20") for entry in entries)
    (path,) = (place / ".deltawitness/cache_artifacts/model").glob("*.parquet")
    path.unlink()
    line = text_of("cache", "ls")
    assert "view sums nightly 1" in line
    assert "damaged: " in line


def test_why_shows_inputs_and_last_reads(place):
    """The inputs are those of the entry, and the reads those of the ledger, newest first."""
    why = json_of("cache", "why", "sums")
    (entry,) = why["entries"]
    assert {name: entry[name] for name in ("name", "scope", "state", "policy", "version")} == {
        "name": "sums",
        "scope": "view",
        "state": "live",
        "policy": "nightly",
        "version": 1,
    }
    (table,) = entry["made_from"]["tables"]
    assert (table["name"], table["version"]) == ("facts", 1)
    assert [(read["job"], read["result"], read["reason"]) for read in why["reads"]] == [
        ("inner", "miss", "input changed: facts 0 -> 1"),
        ("load", "hit", None),
        ("load", "miss", "absent: nothing is stored under this name"),
    ]
    assert [read["reason"] for read in json_of("cache", "why", "sums", "--limit", 1)["reads"]] == [
        "input changed: facts 0 -> 1"
    ]
    line = text_of("cache", "why", "sums")
    assert line.startswith("view sums: live, version 1 of policy nightly, ")
    assert "table facts 1" in line
    assert "input changed: facts 0 -> 1" in line


def test_why_shows_the_state_of_an_entry(place):
    """An entry is damaged, pruned, deleted, or unknown, which is an error."""
    (path, *_) = (place / ".deltawitness/cache_views/chosen").glob("*.parquet")
    path.write_bytes(b"")
    assert json_of("cache", "why", "chosen")["entries"][0]["state"].startswith("damaged: ")
    text_of("cache", "prune", "--older-than", "0.001s")
    assert json_of("cache", "why", "sums")["entries"][0]["state"] == "pruned"
    shutil.rmtree(place / ".deltawitness/cache_views/sums")
    assert text_of("cache", "why", "sums").startswith("no entry sums in this cache")
    assert error_of("cache", "why", "nothing").startswith("there is no entry nothing at ")
    assert "name" in error_of("cache", "why", "../x", code=2)


def test_prune_uses_the_stored_retention(place):
    """Without --older-than, the retention is that of the policy stored with the entry."""
    assert json_of("cache", "prune") == {
        "entries": [],
        "vacuumed": [],
        "set_aside": [],
        "damaged": [],
        "failed": [],
        "files": 0,
        "bytes": 0,
    }
    assert json_of("cache", "prune", "--older-than", "1h")["entries"] == []
    pruned = json_of("cache", "prune", "--older-than", "0.001s")
    assert (pruned["entries"], pruned["files"]) == (["chosen", "sums", "model"], 4)
    assert text_of("cache", "prune", "--older-than", "1h") == "0 files deleted, 0 B"
    assert {entry["problem"] for entry in json_of("cache", "ls")} == {"pruned"}


def test_a_prune_is_recorded_in_the_ledger(place):
    """A prune is a separate run in the ledger; without a ledger it creates none."""
    assert json_of("cache", "prune", "--older-than", "0.001s")["entries"] == [
        "chosen",
        "sums",
        "model",
    ]
    (row,) = (row for row in json_of("runs") if row["job"] == "deltawitness cache prune")
    done = [
        (write["table_name"], write["operation"])
        for write in json_of("writes", "--run", row["run_id"])
    ]
    assert sorted(done) == [
        (name, operation)
        for name in ("chosen", "model", "sums")
        for operation in ("DELETE", "VACUUM")
    ]
    for folder in ("cache_ledgers", "cache_spool"):
        shutil.rmtree(place / ".deltawitness" / folder)
    json_of("cache", "prune", "--older-than", "1h")
    assert not (place / ".deltawitness/cache_ledgers").exists()


def test_prune_deletes_quarantined_entries_only_with_an_age(place):
    """Quarantined entries have no retention, so --set-aside needs --older-than."""
    views = place / ".deltawitness/cache_views"
    (views / "chosen").rename(views / ".chosen.aside-01a210b9-63ff-767a-8ecf-501b49483dde")
    assert "needs --older-than" in error_of("cache", "prune", "--set-aside")
    assert json_of("cache", "prune", "--older-than", "0.001s")["set_aside"] == []
    assert json_of("cache", "prune", "--older-than", "0.001s", "--set-aside")["set_aside"] == [
        "chosen"
    ]
    assert not list(views.glob(".chosen*"))
    assert invoke("cache", "prune", "--older-than", "soon").exit_code == 2


def test_verify_recomputes_an_entry(place):
    """It is recomputed from the input version that it was computed from, not from the newest."""
    write_deltalake("lake/facts", pa.table({"id": [11], "part": [1]}), mode="append")
    found = json_of("cache", "verify", "sums")
    assert (found["verdict"], found["version"], found["rows_kept"], found["rows_now"]) == (
        "reproducible",
        1,
        2,
        2,
    )
    assert text_of("cache", "verify", "sums") == "sums 1: reproducible (2 rows)"
    assert (
        text_of("cache", "verify", "chosen", code=3)
        == "chosen 0: cannot tell (inputs available only in the original session: wanted)"
    )
    assert error_of("cache", "verify", "nothing") == "there is no entry nothing"


def replace_data(place, version):
    """Replace the data of a version of `sums`, with the new file size in its log."""
    folder = place / ".deltawitness/cache_views/sums"
    (path,) = DeltaTable(folder, version=version).file_uris()
    rows = DeltaTable(folder, version=version).to_pyarrow_table()
    import pyarrow.parquet as pq

    path = path.removeprefix("file://")
    size = os.path.getsize(path)
    pq.write_table(rows.set_column(1, "total", pa.array([1, 2], pa.int64())), path)
    log = folder / f"_delta_log/{version:020d}.json"
    log.write_text(log.read_text().replace(f'"size":{size}', f'"size":{os.path.getsize(path)}'))


def test_an_entry_that_differs_is_a_failure(place):
    """The result names the column that differs."""
    replace_data(place, 1)
    found = json_of("cache", "verify", "sums", code=1)
    assert (found["verdict"], found["columns"]) == ("differs", ["total"])
    assert (
        text_of("cache", "verify", "sums", code=1)
        == "sums 1: differs (total; 2 rows stored, 2 recomputed)"
    )


def test_a_run_is_verified_with_its_child_runs(place, run_id):
    """Each write with a plan is recomputed from its input versions; each of the others has a reason."""
    found = json_of("verify", run_id)
    assert [
        (write["name"], write["version"], write["verdict"], write["reason"])
        for write in found["writes"]
    ] == [
        ("facts", 0, "cannot_tell", "the write has no plan"),
        ("sums", 0, "reproducible", None),
        ("facts", 1, "cannot_tell", "the write has no plan"),
        ("sums", 1, "reproducible", None),
        ("chosen", 0, "cannot_tell", "inputs available only in the original session: wanted"),
        ("model", 0, "cannot_tell", "an artifact has no plan to run again"),
    ]
    assert {name: found[name] for name in ("run_id", "reproducible", "differs", "cannot_tell")} == {
        "run_id": run_id,
        "reproducible": 2,
        "differs": 0,
        "cannot_tell": 4,
    }
    assert len({write["write_id"] for write in found["writes"]}) == 6
    assert text_of("verify", run_id).endswith("4 cannot tell, 2 reproducible")
    assert [write["name"] for write in json_of("verify", "inner")["writes"]] == ["sums"]


def test_a_run_with_a_result_that_differs_is_a_failure(program_folder):
    """The output names the write that differs. Pruned results cannot be verified, with a reason."""
    run_id = load_run()
    replace_data(program_folder, 0)
    found = json_of("verify", run_id, code=1)
    assert (found["differs"], found["reproducible"]) == (1, 1)
    assert "sums 0: differs (total; 2 rows stored, 2 recomputed)" in text_of(
        "verify", run_id, code=1
    )
    text_of("cache", "prune", "--older-than", "0.001s")
    reasons = {
        write["reason"]
        for write in json_of("verify", run_id, code=3)["writes"]
        if write["name"] == "sums"
    }
    assert reasons == {"version vacuumed: its data files are missing or damaged"}


def test_a_missing_input_is_reported(program_folder):
    """Each write that was computed from the table has the reason."""
    run_id = load_run()
    shutil.move("lake", "moved")
    reasons = {
        write["reason"]
        for write in json_of("verify", run_id, code=3)["writes"]
        if write["name"] == "sums"
    }
    assert reasons == {"input gone: the table facts does not exist"}


def test_without_plans_no_write_can_be_verified(tmp_path, monkeypatch):
    """With DELTAWITNESS_KEEP_PLANS=false no plan is stored, so no write can be verified."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DELTAWITNESS_KEEP_PLANS", "false")
    start(tmp_path, PROGRAM)
    run_id = next(row["run_id"] for row in json_of("runs") if row["job"] == "load")
    reasons = {
        write["reason"]
        for write in json_of("verify", run_id, code=3)["writes"]
        if write["name"] == "sums"
    }
    assert reasons == {"no plan was stored"}
    assert not list(tmp_path.rglob("_plans"))


def test_a_missing_cache_or_ledger_is_an_error(tmp_path, monkeypatch):
    """A missing cache, entry or ledger is an error, and nothing is created."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".deltawitness"
    where = f"{folder}: pass --root, or set DELTAWITNESS_ROOT"
    for command in (["ls"], ["prune"], ["verify", "x"]):
        assert error_of("cache", *command) == f"there is no cache at {where}"
    assert error_of("cache", "why", "x") == f"there is no entry x at {where}"
    assert error_of("verify", "x") == f"there is no ledger at {where}"
    assert not folder.exists()


def test_an_unknown_run_is_an_error(place):
    """The error is the same as that of the other commands."""
    assert error_of("verify", "nothing") == "no run begins with nothing"


def test_a_run_may_be_in_a_spool(place):
    """A command that does not find a run says that spools of dead processes are not imported yet."""
    left_behind(place / ".deltawitness" / "cache_spool")
    for names in (
        ["verify", "open-0"],
        ["writes", "--run", "open-0"],
        ["show", "open-0"],
        ["time", "open-0"],
    ):
        assert error_of(*names).endswith(f"; {NOT_DRAINED}")
    assert invoke("drain").exit_code == 0
    assert NOT_DRAINED not in error_of("verify", "nothing")


def test_the_root_can_be_elsewhere(place, run_id, tmp_path, monkeypatch):
    """Every command has the option --root."""
    monkeypatch.chdir(tmp_path)
    root = ["--root", place / ".deltawitness"]
    assert len(json_of("cache", "ls", *root)) == 3
    assert len(json_of("cache", "why", "sums", *root)["reads"]) == 3
    assert json_of("cache", "verify", "sums", *root)["verdict"] == "reproducible"
    assert json_of("verify", run_id, *root)["reproducible"] == 2
    assert json_of("cache", "prune", *root)["entries"] == []


def test_no_location_and_no_literal_is_shown(place, run_id):
    """The output has names of tables, columns and files, but no locations and no literals."""
    for command in (
        ["cache", "ls"],
        ["cache", "why", "sums"],
        ["cache", "verify", "sums"],
        ["verify", run_id],
    ):
        for output in (invoke(*command).output, invoke(*command, "--json").output):
            assert str(place) not in output
    assert table_id(place / "lake/facts") not in text_of("cache", "why", "sums")
