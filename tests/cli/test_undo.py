"""`deltawitness undo` prints a plan, and restores tables only with `--apply`."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, run
from helpers.ledger_commands import error_of, invoke, json_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with its default ledger and three runs."""
    monkeypatch.chdir(tmp_path)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=".deltawitness"))
    with run("first"):
        append("flights", 1)
        append("orders", 1)
        append("others", 1)
    with run("second"):
        append("flights", 2)
        DeltaTable("lake/orders").delete()
        append("new", 1)
    with run("third"):
        append("others", 2)
    Ledger(".deltawitness").drain()
    DeltaLakeInstrumentor().uninstrument()


def append(name, number):
    write_deltalake(f"lake/{name}", pa.table({"x": [number]}), mode="append")


def run_id(job):
    """Return the id of the run of a job."""
    (found,) = json_of("runs", "--job", job)
    return found["run_id"]


@pytest.mark.slow
def test_a_run_is_undone(folder):
    """The plan exits 3 because of the created table, and changes nothing; `--apply` restores, once."""
    second = run_id("second")
    plan = invoke("undo", second[:18])
    assert plan.exit_code == 3, plan.output
    lines = plan.stdout.splitlines()
    assert lines[0] == f"undo of run {second}  job second  ok"
    assert [line.split() for line in lines[1:5]] == [
        ["table", "state", "versions", "last", "before"],
        ["flights", "restore", "1", "1", "0"],
        ["orders", "restore", "1", "1", "0"],
        ["new", "created", "0", "0"],
    ]
    assert lines[5:] == [
        "3 tables: 2 to restore, 1 created by the run and not dropped",
        "use --apply to restore",
    ]
    assert DeltaTable("lake/flights").version() == 1
    done = json_of("undo", second, "--apply", code=3)
    assert (done["is_applied"], done["is_complete"], done["run_id"]) == (True, True, second)
    assert [(table["name"], table["state"]) for table in done["tables"]] == [
        ("flights", "restored"),
        ("orders", "restored"),
        ("new", "created"),
    ]
    assert DeltaTable("lake/orders").to_pyarrow_table().to_pydict() == {"x": [1]}
    shown = invoke("show", second).stdout
    assert f"undone by run {done['undo_run_id']} at " in shown
    assert [row["run_id"] for row in json_of("show", second)["undone_by"]] == [done["undo_run_id"]]
    again = invoke("undo", second, "--apply").stdout.splitlines()
    assert again[-1] == "3 tables: 2 restored, 1 created by the run and not dropped"
    (undone,) = json_of("runs", "--job", "undo")
    assert (undone["status"], undone["writes"]) == ("ok", 2)


@pytest.mark.slow
def test_a_refused_table_is_an_error(folder):
    """Later commits of others are listed, and discarded only with the option."""
    second = run_id("second")
    append("flights", 3)
    for options in ([], ["--apply"]):
        done = invoke("undo", second, *options)
        assert done.exit_code == 1, done.output
        assert "later commits of others would be discarded: version 2" in done.stdout
        assert "flights@2 would be discarded: WRITE, not observed\n" in done.stdout
    assert "3 tables: 1 restored, 1 created by the run and not dropped, 1 refused" in done.stdout
    assert f"undone in part by run {run_id('undo')} at " in invoke("show", second).stdout
    done = invoke("undo", second, "--apply", "--discard-later")
    assert done.exit_code == 3, done.output
    assert "flights@2 was discarded: WRITE, not observed\n" in done.stdout
    assert DeltaTable("lake/flights").to_pyarrow_table().to_pydict() == {"x": [1]}


@pytest.mark.slow
def test_a_run_that_creates_no_table_exits_with_0(folder):
    """Exit code 0 says that every table can be restored, or is."""
    third = run_id("third")
    assert json_of("undo", third)["is_complete"] is False
    assert json_of("undo", third, "--apply")["is_complete"] is True


@pytest.mark.slow
def test_mistakes_are_one_line(folder, tmp_path_factory, monkeypatch):
    """An unknown run and a missing ledger are errors with exit code 1."""
    assert error_of("undo", "nothing") == "no run begins with nothing"
    assert error_of("undo", "nothing", "--apply") == "no run begins with nothing"
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    assert error_of("undo", "nothing").startswith("there is no ledger at ")
    assert error_of("undo", "nothing", "--apply").startswith("there is no ledger at ")


@pytest.mark.slow
def test_an_undo_has_the_restored_versions_as_inputs_and_no_line_of_a_program(folder):
    """The restores were made by the command, from earlier versions; the plan names the parent run."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=".deltawitness"))
    with run("night") as night, run("load"):
        append("flights", 3)
        append("orders", 3)
    Ledger(".deltawitness").drain()
    DeltaLakeInstrumentor().uninstrument()
    note = f"note: it is a child of run {night.run_id}, which may have written other tables, too"
    assert note in invoke("undo", run_id("load")).stdout
    assert invoke("undo", run_id("load"), "--apply").exit_code == 0
    for table in ("flights", "orders"):
        restored = json_of("show", table)
        assert (restored["operation"], restored["job"]) == ("RESTORE", "undo")
        inputs = [(each["name"], each["version"]) for each in restored["inputs"]]
        assert (inputs, restored["call_site"]) == ([(table, 1)], None)
