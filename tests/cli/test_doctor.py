"""`deltawitness doctor`, `time` and `cost` print their answers and exit by what they find."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, run
from helpers.ledger_commands import error_of, invoke, json_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with its default ledger and a table with two versions by one run."""
    monkeypatch.chdir(tmp_path)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=".deltawitness"))
    with run("load"):
        write_deltalake("lake/orders", pa.table({"x": [1, 2]}))
        DeltaTable("lake/orders").delete("x = 1")
    Ledger(".deltawitness").drain()
    DeltaLakeInstrumentor().uninstrument()
    return tmp_path


@pytest.mark.slow
def test_the_exit_code_of_doctor_is_that_of_the_worst_finding(folder):
    """0 for information, 3 for a warning, 4 for an error; the command that mends it is below each finding."""
    found = invoke("doctor", "orders", "--sizes")
    assert found.exit_code == 0, found.output
    assert "info: orders: old_versions: 1 file of old versions with" in found.stdout
    assert "orders  below 64 KiB      1" in found.stdout
    write_deltalake("lake/orders", pa.table({"x": [3]}), mode="append")
    found = invoke("doctor", "lake")
    assert found.exit_code == 3
    lines = found.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if "unannotated" in line)
    assert lines[at].startswith(
        "warning: orders: unannotated: 1 of 3 commits not observed: version 2"
    )
    place = folder / "lake" / "orders"
    assert lines[at + 1] == f"  deltawitness reconcile {place} --apply"
    assert lines[-1] == "1 table: 1 warning, 1 info"
    for uri in DeltaTable("lake/orders").file_uris():
        os.remove(uri)
    assert invoke("doctor", "orders").exit_code == 4
    printed = json_of("doctor", "orders", code=4)
    assert (printed["kind"], printed["severity"], printed["is_healthy"]) == (
        "health",
        "error",
        False,
    )
    (table,) = printed["tables"]
    assert {each["check"] for each in table["findings"]} >= {"missing_files", "unannotated"}


@pytest.mark.slow
def test_doctor_names_what_it_does_not_know(folder):
    """Unknown tables and a missing ledger exit 1, a bad argument 2."""
    assert "no table has the name" in error_of("doctor", "nothing")
    assert "there is no ledger" in error_of("doctor", "--root", "elsewhere")
    assert invoke("doctor", "--commits", "0").exit_code == 2
    assert invoke("doctor").exit_code == 0  # all tables of the ledger
    assert invoke("doctor", str(Path("lake", "orders")), "--root", "elsewhere").exit_code == 0


@pytest.mark.slow
def test_time_prints_the_parts_of_a_run(folder):
    """The table has a line for each operation; JSON has the same numbers; an unknown run exits 1."""
    (found,) = json_of("runs")
    printed = invoke("time", found["run_id"][:18])
    assert printed.exit_code == 0, printed.output
    lines = printed.stdout.splitlines()
    assert lines[0] == f"time of run {found['run_id']}  job load  ok"
    assert {line.split()[1] for line in lines[2:4]} == {"WRITE", "DELETE"}
    assert [line.split()[0] for line in lines[4:]] == [
        "run",
        "operations",
        "program",
        "observation",
    ]
    values = json_of("time", found["run_id"])
    assert values["kind"] == "time"
    assert {each["operation"] for each in values["operations"]} == {"WRITE", "DELETE"}
    assert "no run begins with ffff" in error_of("time", "ffff")


@pytest.mark.slow
def test_cost_prints_a_line_for_each_job_and_table(folder):
    """The table has the amplification and the sums; filters apply; unknown tables exit 1."""
    printed = invoke("cost")
    assert printed.exit_code == 0, printed.output
    lines = printed.stdout.splitlines()
    assert lines[0].split()[:6] == ["job", "table", "writes", "written", "new", "amplification"]
    assert lines[1].split()[:3] == ["load", "orders", "2"]
    (job,) = json_of("cost", "orders")["jobs"]
    assert (job["job"], job["writes"], job["held_files"]) == ("load", 2, 1)
    assert job["amplification"] > 1
    assert invoke("cost", "--job", "other").stdout == "no commit matches\n"
    assert "no table has the name" in error_of("cost", "nothing")
