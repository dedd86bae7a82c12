"""`bisect`, `blame`, `overdue`, `regressions` and `ci-report`: output, JSON and exit codes."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, run
from helpers.ledger_commands import error_of, invoke, json_of
from helpers.past_ledgers import AT, PastLedger


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The root of a ledger: a bad row in `raw` that `report` has copied."""
    folder = tmp_path_factory.mktemp("causes")
    root = str(folder / "ledger")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=root))
    try:
        for day, value in enumerate((1, 2, -3, 4)):
            with run("load", message=f"day {day}"):
                rows = pa.table({"id": [day], "x": [float(value)]})
                write_deltalake(folder / "raw", rows, mode="append")
            with run("report"):
                rows = DeltaTable(folder / "raw").to_pyarrow_table()
                write_deltalake(folder / "report", rows, mode="overwrite")
        with run("tidy"):
            DeltaTable(folder / "raw").delete("id = 0")
            DeltaTable(folder / "raw").optimize.compact()
    finally:
        DeltaLakeInstrumentor().uninstrument()
    return root


@pytest.mark.slow
def test_bisect_prints_the_way_to_the_cause(root):
    done = invoke("bisect", "report", "--bad", "x < 0", "--root", root)
    lines = done.stdout.splitlines()
    assert (done.exit_code, done.stderr) == (0, "")
    assert (
        lines[0] == "report@2 is the first bad version (report@1 is good; 4 of 4 versions tested)"
    )
    assert "job report" in lines[1]
    assert "  input raw@2 (inferred, before 1): bad" in lines
    assert "    raw@2 is the first bad version (raw@1 is good; 3 of 3 versions tested)" in lines
    assert "      message: day 2" in lines
    assert lines[-2] == "cause: raw@2"
    assert lines[-1].startswith("what differs: deltawitness diff ")
    compared = invoke(*lines[-1].split()[3:], "--root", root)
    assert (compared.exit_code, compared.stderr) == (0, "")  # the appended value differs


@pytest.mark.slow
def test_bisect_as_json(root):
    found = json_of("bisect", "report", "--bad", "x < 0", "--root", root)
    assert (found["kind"], found["state"], found["table"]["version"]) == ("bisect", "found", 2)
    (read,) = found["inputs"]
    assert (read["is_changed"], read["cause"]["commit"]["message"]) == (True, "day 2")


@pytest.mark.slow
def test_exit_codes_of_bisect(root):
    done = invoke("bisect", "raw", "--bad", "x > 99", "--root", root)
    assert (done.exit_code, done.stdout) == (
        3,
        "raw: no tested version is bad (6 of 6 versions tested)\n",
    )
    assert "No field named y" in error_of("bisect", "raw", "--bad", "y < 0", "--root", root)
    assert "no table has" in error_of("bisect", "nope", "--bad", "x < 0", "--root", root)
    assert invoke("bisect", "raw", "--root", root).exit_code == 2
    assert invoke("bisect", "raw", "--bad", "x < 0", "--depth", "0", "--root", root).exit_code == 2


@pytest.mark.slow
def test_bisect_prints_what_it_could_not_test(tmp_path):
    """Candidates, versions without files, and versions that are good again."""
    table, ledger = tmp_path / "t", str(tmp_path / "ledger")

    def write(*values):
        for value in values:
            rows = pa.table({"x": [value]})
            write_deltalake(table, rows, mode="overwrite")

    def lines(*words):
        done = invoke("bisect", table, "--root", ledger, "--bad", "abs(x) <> x", *words)
        return done.exit_code, done.stdout.splitlines()

    write(1, -2, 3, -4)
    code, shown = lines()
    assert (code, shown[0][:31]) == (0, "t@1 is the first bad version (t")
    assert shown[-1] == (
        "  note: later versions are good again: 2; there may be several changes to bad"
    )
    assert (
        "  note: not every version was tested: --checks tests more of them"
        in lines("--checks", "0")[1]
    )
    for file in pa.table(DeltaTable(table, version=2).get_add_actions())["path"].to_pylist():
        (table / file).unlink()
    code, shown = lines("--good", "1")
    assert (code, shown[0]) == (
        0,
        "the first bad version of t is one of 2 to 3 (1 of 2 versions tested)",
    )
    assert [line.split("  ")[1] for line in shown[1:3]] == [
        "2: WRITE overwrite",
        "3: WRITE overwrite",
    ]
    assert shown[3] == "  note: version 2 cannot be tested: a data file was deleted"
    DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
    code, shown = lines()
    assert code == 3
    assert shown[0].startswith("t@3 is already bad, and no older version can be tested (")
    assert "  note: versions 0 to 2 cannot be tested: a data file was deleted" in shown


@pytest.mark.slow
def test_blame_prints_commits_and_values_only_on_request(root):
    done = invoke("blame", "raw", "--where", "id = 2", "--root", root)
    assert done.exit_code == 0
    assert done.stdout.startswith("raw@5: 1 row WHERE id = 2\n")
    assert "WRITE append" in done.stdout
    assert "day 2" in done.stdout
    assert "x=-3.0" not in done.stdout
    shown = invoke("blame", "raw", "--where", "id = 2", "--show-rows", "--root", root).stdout
    assert "id=2, x=-3.0" in shown
    found = json_of("blame", "raw", "--where", "id = 2", "--root", root)
    assert (found["versions"], found["rows"][0]["values"]) == ([2], None)
    assert found["rows"][0]["writes"][0]["commit"]["message"] == "day 2"


@pytest.mark.slow
def test_blame_prints_a_line_for_each_commit_if_it_prints_no_values(root):
    done = invoke("blame", "report", "--where", "id > 0", "--root", root)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert (lines[0][0], lines[0][1]) == ("report@3:", "3")
    assert [line[:6] for line in lines[2:]] == [["1", "to", "3", "3", "WRITE", "overwrite"]]
    shown = invoke("blame", "report", "--where", "id > 0", "--root", root, "--show-rows").stdout
    assert len(shown.splitlines()) == 5


@pytest.mark.slow
def test_exit_codes_of_blame(root):
    done = invoke("blame", "raw", "--where", "id = 99", "--root", root)
    assert (done.exit_code, done.stdout) == (3, "raw@5 has no row WHERE id = 99\n")
    assert "No field named y" in error_of("blame", "raw", "--where", "y = 1", "--root", root)
    assert invoke("blame", "raw", "--root", root).exit_code == 2


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    """The root of a ledger with a late table and a broken job."""
    ledger = PastLedger()
    for back in reversed(range(1, 12)):
        ledger.run("good", AT - back * timedelta(hours=1))
        if back > 4:
            ledger.run("late", AT - back * timedelta(hours=1))
        status = "ok" if back > 1 else "error"
        ledger.run("bad", AT - back * timedelta(hours=1), rows=None, status=status)
    return ledger.save(tmp_path_factory.mktemp("past") / "ledger")


@pytest.mark.slow
def test_overdue(past):
    at = ("--at", AT.isoformat(), "--root", past)
    done = invoke("overdue", *at)
    assert done.exit_code == 1
    assert done.stdout.startswith("2 tables, 1 late; 0 unusual numbers of rows; 0 runs without")
    assert "good" not in done.stdout
    assert "fresh" in invoke("overdue", "--all", *at).stdout
    assert invoke("overdue", "good", *at).exit_code == 0
    found = json_of("overdue", *at, code=1)
    assert (found["kind"], found["is_ok"]) == ("overdue", False)
    assert [each["state"] for each in found["tables"]] == ["late", "fresh"]


@pytest.mark.slow
def test_unusual_runs_are_printed(tmp_path):
    ledger = PastLedger()
    for back in reversed(range(1, 9)):
        start, is_last = AT - back * timedelta(hours=1), back == 1
        ledger.run("many", start, rows=90_000 if is_last else 100)
        ledger.run("empty", start, rows=None if is_last else 100)
        ledger.run(
            "slow", start, seconds=90 if is_last else 10, code_version="b" if is_last else "a"
        )
        ledger.run("few", start, rows=3 if is_last else 100)
    ledger.run("new", AT - timedelta(hours=1))
    at = ("--at", AT.isoformat(), "--root", ledger.save(tmp_path / "ledger"))
    shown = " ".join(invoke("overdue", *at).stdout.split())
    assert "5 tables, 1 late; 2 unusual numbers of rows; 1 run without a change" in shown
    assert "90,000 100 50 to 201 7 2026-03-02 11:00:00 many run-28" in shown, shown
    assert "empty 2026-03-02 11:00:00 7 7 100 run-29" in shown
    assert "note: 1 table has too few changes to be late" in shown
    shown = " ".join(invoke("regressions", *at).stdout.split())
    assert "slower 2026-03-02 11:00:00 90.0 s, median 10.0 s run-30 run-26 a -> b" in shown
    assert "smaller 2026-03-02 11:00:00 3 rows, median 100 run-31 run-27" in shown


@pytest.mark.slow
def test_regressions(past):
    at = ("--at", AT.isoformat(), "--root", past)
    done = invoke("regressions", *at)
    assert done.exit_code == 1
    assert done.stdout.startswith("3 jobs, 1 regression\n")
    assert "1 of the last 11 runs failed" in done.stdout
    assert invoke("regressions", "--job", "good", *at).stdout == "1 job, 0 regressions\n"
    (found,) = json_of("regressions", *at, code=1)["regressions"]
    assert (found["kind"], found["job"], found["has_new_code"]) == ("broken", "bad", False)


@pytest.mark.slow
def test_ci_report(past):
    at = ("--at", AT.isoformat(), "--root", past)
    done = invoke("ci-report", *at)
    assert done.exit_code == 1
    assert "## deltawitness: 2 problems" in done.stdout
    assert invoke("ci-report", "--fail-on", "slower", *at).exit_code == 0
    assert invoke("ci-report", "--fail-on", "", *at).exit_code == 0
    assert invoke("ci-report", "--fail-on", "sloth", *at).exit_code == 2
    found = json_of("ci-report", *at, code=1)
    assert [each["check"] for each in found["problems"]] == ["broken", "late"]


@pytest.mark.parametrize("name", ["overdue", "regressions", "ci-report"])
def test_an_error_is_no_finding(tmp_path, name):
    """Exit code 1 is for findings, so an error is 2."""
    error = error_of(name, "--root", str(tmp_path / "nothing"), code=2)
    assert "there is no ledger" in error
