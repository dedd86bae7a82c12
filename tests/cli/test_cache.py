"""The command line tells what a cache holds and why it was not served, prunes it, makes a run's results again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from deltawitness import table_id
from deltawitness.cli.app import app

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "deltawitness"]

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
    def ask():
        cache.view("sums", "SELECT part, sum(id) AS total FROM facts GROUP BY part", policy=nightly)
    ask()
    ask()
    write_deltalake("lake/facts", pa.table({"id": [10], "part": [0]}), mode="append")
    with run("inner", run_id="inner-1"):
        ask()
    cache.view("chosen", "SELECT id FROM facts JOIN wanted USING (part)")
    cache.artifact("model", {"a": 1})
"""


def start(folder, text, *options):
    return subprocess.run(
        [
            *COMMAND,
            "run",
            "--job",
            "load",
            *options,
            "--",
            sys.executable,
            "-c",
            textwrap.dedent(text),
        ],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )


def ask(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shown(*arguments, code=0):
    """What a command prints, word by word."""
    done = ask(*arguments)
    assert done.exit_code == code, done.output
    return " ".join(done.stdout.split())


def told(*arguments, code=0):
    """What a command says as JSON."""
    done = ask(*arguments, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def complaint(*arguments, code=1):
    """The one line that a command ends with."""
    done = ask(*arguments)
    assert done.exit_code == code, done.output
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    return done.stderr.removeprefix("deltawitness: ").strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder where a program has run that keeps results."""
    folder = tmp_path_factory.mktemp("made")
    start(folder, PROGRAM)
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """The same, to be harmed; the working directory."""
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of the test's own where the program has run: the ledger and the plans tell places."""
    monkeypatch.chdir(tmp_path)
    start(tmp_path, PROGRAM)
    return tmp_path


def load_run():
    """The id of the program's run."""
    return next(row["run_id"] for row in told("runs") if row["job"] == "load")


@pytest.fixture
def run_id(place):
    return load_run()


def test_ls_tells_every_entry(place):
    """With its policy, its version and the state that it is in."""
    entries = told("cache", "ls")
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
    line = shown("cache", "ls")
    assert "view sums nightly 1" in line
    assert "damaged: " in line


def test_why_tells_what_it_was_made_from_and_how_it_was_found(place):
    """From the entry, and from the ledger, newest first; in a process that never asked for it."""
    why = told("cache", "why", "sums")
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
    assert [read["reason"] for read in told("cache", "why", "sums", "--limit", 1)["reads"]] == [
        "input changed: facts 0 -> 1"
    ]
    line = shown("cache", "why", "sums")
    assert line.startswith("view sums: live, version 1 of policy nightly, ")
    assert "table facts 1" in line
    assert "input changed: facts 0 -> 1" in line


def test_why_tells_the_state_of_an_entry(place):
    """Damaged, pruned, gone, and not there at all."""
    (path, *_) = (place / ".deltawitness/cache_views/chosen").glob("*.parquet")
    path.write_bytes(b"")
    assert told("cache", "why", "chosen")["entries"][0]["state"].startswith("damaged: ")
    shown("cache", "prune", "--older-than", "0.001s")
    assert told("cache", "why", "sums")["entries"][0]["state"] == "pruned"
    shutil.rmtree(place / ".deltawitness/cache_views/sums")
    assert shown("cache", "why", "sums").startswith("sums no longer exists")
    assert complaint("cache", "why", "nothing") == "there is no entry nothing"
    assert "name" in complaint("cache", "why", "../x", code=2)


def test_prune_keeps_to_the_retention_that_was_kept(place):
    """Without an age that is asked for, by the policy that an entry was kept with."""
    assert told("cache", "prune") == {
        "entries": [],
        "vacuumed": [],
        "set_aside": [],
        "damaged": [],
        "failed": [],
        "files": 0,
        "bytes": 0,
    }
    assert told("cache", "prune", "--older-than", "1h")["entries"] == []
    pruned = told("cache", "prune", "--older-than", "0.001s")
    assert (pruned["entries"], pruned["files"]) == (["chosen", "sums", "model"], 4)
    assert shown("cache", "prune", "--older-than", "1h") == "0 files deleted, 0 B"
    assert {entry["problem"] for entry in told("cache", "ls")} == {"pruned"}


def test_the_ledger_knows_what_was_pruned(place):
    """In a run of its own; where no ledger is kept, none is made."""
    assert told("cache", "prune", "--older-than", "0.001s")["entries"] == [
        "chosen",
        "sums",
        "model",
    ]
    (row,) = (row for row in told("runs") if row["job"] == "deltawitness cache prune")
    done = [
        (write["table_name"], write["operation"])
        for write in told("writes", "--run", row["run_id"])
    ]
    assert sorted(done) == [
        (name, operation)
        for name in ("chosen", "model", "sums")
        for operation in ("DELETE", "VACUUM")
    ]
    for folder in ("cache_ledgers", "cache_spool"):
        shutil.rmtree(place / ".deltawitness" / folder)
    told("cache", "prune", "--older-than", "1h")
    assert not (place / ".deltawitness/cache_ledgers").exists()


def test_prune_deletes_what_was_set_aside_only_with_an_age(place):
    """There is no retention to go by."""
    views = place / ".deltawitness/cache_views"
    (views / "chosen").rename(views / ".chosen.aside-01a210b9-63ff-767a-8ecf-501b49483dde")
    assert "needs --older-than" in complaint("cache", "prune", "--set-aside")
    assert told("cache", "prune", "--older-than", "0.001s")["set_aside"] == []
    assert told("cache", "prune", "--older-than", "0.001s", "--set-aside")["set_aside"] == [
        "chosen"
    ]
    assert not list(views.glob(".chosen*"))
    assert ask("cache", "prune", "--older-than", "soon").exit_code == 2


def test_verify_makes_an_entry_again(place):
    """Over the version that it was made from, which is not the newest any more."""
    write_deltalake("lake/facts", pa.table({"id": [11], "part": [1]}), mode="append")
    found = told("cache", "verify", "sums")
    assert (found["verdict"], found["version"], found["rows_kept"], found["rows_now"]) == (
        "reproducible",
        1,
        2,
        2,
    )
    assert shown("cache", "verify", "sums") == "sums 1: reproducible (2 rows)"
    assert (
        shown("cache", "verify", "chosen")
        == "chosen 0: cannot tell (inputs available only in the original session: wanted)"
    )
    assert complaint("cache", "verify", "nothing") == "there is no entry nothing"


def harmed(place, version):
    """Have a version of `sums` hold something else, as if it had been kept so."""
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
    """With the column that does."""
    harmed(place, 1)
    found = told("cache", "verify", "sums", code=1)
    assert (found["verdict"], found["columns"]) == ("differs", ["total"])
    assert (
        shown("cache", "verify", "sums", code=1)
        == "sums 1: differs (total; 2 rows stored, 2 recomputed)"
    )


def test_a_run_is_verified_with_the_runs_that_were_opened_in_it(place, run_id):
    """Each write that has a plan, each version by what it was made from; of the others it is said."""
    found = told("verify", run_id)
    assert [
        (write["name"], write["version"], write["verdict"], write["reason"])
        for write in found["writes"]
    ] == [
        ("facts", 0, "cannot_tell", "no plan was stored"),
        ("sums", 0, "reproducible", None),
        ("facts", 1, "cannot_tell", "no plan was stored"),
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
    assert shown("verify", run_id).endswith("4 cannot tell, 2 reproducible")
    assert [write["name"] for write in told("verify", "inner")["writes"]] == ["sums"]


def test_a_run_of_which_something_differs_is_a_failure(own):
    """And what differs is told; the rest is as it was. So it is with results that are gone."""
    run_id = load_run()
    harmed(own, 0)
    found = told("verify", run_id, code=1)
    assert (found["differs"], found["reproducible"]) == (1, 1)
    assert "sums 0: differs (total; 2 rows stored, 2 recomputed)" in shown("verify", run_id, code=1)
    shown("cache", "prune", "--older-than", "0.001s")
    reasons = {
        write["reason"] for write in told("verify", run_id)["writes"] if write["name"] == "sums"
    }
    assert reasons == {"version vacuumed: its data files are missing or damaged"}


def test_an_input_that_is_gone_is_said(own):
    """For each write that was made from it."""
    run_id = load_run()
    shutil.move("lake", "moved")
    reasons = {
        write["reason"] for write in told("verify", run_id)["writes"] if write["name"] == "sums"
    }
    assert reasons == {"input gone: the table facts does not exist"}


def test_without_plans_nobody_can_tell(tmp_path, monkeypatch):
    """That is the price of keeping none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DELTAWITNESS_KEEP_PLANS", "false")
    start(tmp_path, PROGRAM)
    run_id = next(row["run_id"] for row in told("runs") if row["job"] == "load")
    reasons = {
        write["reason"] for write in told("verify", run_id)["writes"] if write["name"] == "sums"
    }
    assert reasons == {"no plan was stored"}
    assert not list(tmp_path.rglob("_plans"))


def test_there_must_be_something(tmp_path, monkeypatch):
    """A cache, a ledger, a run."""
    monkeypatch.chdir(tmp_path)
    where = tmp_path / ".deltawitness"
    for command in (["ls"], ["prune"], ["verify", "x"]):
        assert complaint("cache", *command) == f"there is no cache at {where}"
    assert complaint("cache", "why", "x") == "there is no entry x"
    assert complaint("verify", "x") == f"there is no ledger at {where}"
    assert not where.exists()


def test_a_run_that_is_not_there(place):
    """Is said as by the other commands."""
    assert complaint("verify", "nothing") == "no run begins with nothing"


def test_the_root_can_be_elsewhere(place, run_id, tmp_path, monkeypatch):
    """Every command takes it."""
    monkeypatch.chdir(tmp_path)
    root = ["--root", place / ".deltawitness"]
    assert len(told("cache", "ls", *root)) == 3
    assert len(told("cache", "why", "sums", *root)["reads"]) == 3
    assert told("cache", "verify", "sums", *root)["verdict"] == "reproducible"
    assert told("verify", run_id, *root)["reproducible"] == 2
    assert told("cache", "prune", *root)["entries"] == []


def test_no_location_and_no_literal_is_shown(place, run_id):
    """What is told names tables, columns and files, as telemetry does."""
    for command in (
        ["cache", "ls"],
        ["cache", "why", "sums"],
        ["cache", "verify", "sums"],
        ["verify", run_id],
    ):
        for output in (ask(*command).output, ask(*command, "--json").output):
            assert str(place) not in output
    assert table_id(place / "lake/facts") not in shown("cache", "why", "sums")
