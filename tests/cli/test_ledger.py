"""Commands of the ledger: record programs, list runs and writes, audit, reconcile, drain, verify."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from typer.testing import CliRunner

from deltawitness import Ledger, table_id
from deltawitness.cli.app import app
from deltawitness.cli.durations import parse_time
from deltawitness.ledger.tables.run_rows import RunStatus
from deltawitness.ledger.tables.schema import INVENTORY, PARTITION, RUNS
from deltawitness.semconv import Env
from deltawitness.testing import fixed_clock

COMMAND = [sys.executable, "-m", "deltawitness"]


def run(folder, text, *arguments, options=(), **variables):
    """Run a program under `deltawitness run` in a folder."""
    program = [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)]
    return subprocess.run(
        [*COMMAND, "run", *options, "--", *program],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def invoke(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def json_of(*arguments, code=0):
    """Return a command's JSON output."""
    done = invoke(*arguments, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def error_of(*arguments, code=1):
    """Return the one line on stderr of a command that fails."""
    done = invoke(*arguments)
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("deltawitness: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("deltawitness: ").strip()


LOAD = """
    import sys, pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    for x in range(3):
        write_deltalake("lake/flights", pa.table({"x": [x, x]}), mode="append")
    DeltaTable("lake/flights").delete("x = 0")
    try:
        write_deltalake("lake/flights", pa.table({"x": [0]}))
    except Exception:
        pass
"""

NESTED = """
    import pyarrow as pa
    from deltalake import write_deltalake
    from deltawitness import run
    def write(table):
        write_deltalake(table, pa.table({"x": [1]}), mode="append")
    write("lake/top")
    with run("middle", attributes={"shard": "3"}, run_id="middle-1"):
        write("lake/middle")
        with run("inner", run_id="inner-1"):
            write("lake/inner")
            write("lake/inner")
"""

KILLED = """
    import os, signal, pyarrow as pa
    from deltalake import write_deltalake
    for x in range(4):
        write_deltalake("lake/killed", pa.table({"x": [x]}), mode="append")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which three programs have run; the last one was killed after its writes."""
    folder = tmp_path_factory.mktemp("place")
    done = [
        run(folder, LOAD, options=["--job", "load"]),
        run(folder, NESTED, options=["--job", "nested"]),
        run(folder, KILLED, options=["--job", "killed"]),
    ]
    assert [program.returncode for program in done] == [0, 0, -signal.SIGKILL], done
    (folder / "stderr.txt").write_text(done[0].stderr)
    (folder / "stderr_killed.txt").write_text(done[2].stderr)
    return folder


@pytest.fixture
def copied(place, tmp_path, monkeypatch):
    """A copy of the ledger that a test may change; the working directory is the folder that holds it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / ".deltawitness", ".deltawitness")
    return tmp_path / ".deltawitness/cache_ledgers"


@pytest.fixture
def here(place, monkeypatch):
    """The folder of the three programs, as the working directory."""
    monkeypatch.chdir(place)
    return place


# --- run ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_program_has_a_ledger_in_its_working_directory(here):
    """The folder has a .gitignore; the summary names the location and the command that shows the run."""
    assert (here / ".deltawitness/.gitignore").read_text() == "*\n"
    load = json_of("runs", "--job", "load")[0]
    last_line = (here / "stderr.txt").read_text().splitlines()[-1]
    expected = f"ledger {here / '.deltawitness'}: deltawitness show {load['run_id']}"
    assert last_line == expected


@pytest.mark.slow
def test_a_program_that_writes_nothing_leaves_nothing_behind(tmp_path):
    """No folder is created whether it succeeds, fails or is killed, and the summary names no ledger."""
    for text in (
        "print(1)",
        "raise SystemExit(3)",
        "import deltalake, os; os.kill(os.getpid(), 9)",
    ):
        done = run(tmp_path, text)
        assert "ledger" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_run_of_a_program_without_writes_is_recorded_in_an_existing_ledger(tmp_path):
    """An existing ledger gets a row for the run, with zero writes."""
    run(tmp_path, LOAD, options=["--job", "load"])
    run(tmp_path, "print(1)", options=["--job", "idle"])
    rows = Ledger(tmp_path / ".deltawitness").runs().sort("start_time").to_pylist()
    assert [(row["job"], row["status"], row["writes"]) for row in rows] == [
        ("load", "ok", 4),
        ("idle", "ok", 0),
    ]


@pytest.mark.slow
def test_the_run_of_a_program_whose_children_write_ends_as_the_program_does(tmp_path):
    """The run has the error of the program, which has no writes, and the writes of its child."""
    text = f"""
        import subprocess, sys
        subprocess.run([sys.executable, "-c", {textwrap.dedent(LOAD)!r}], check=True)
        raise RuntimeError("after all")
    """
    assert run(tmp_path, text).returncode == 1
    (row,) = Ledger(tmp_path / ".deltawitness").runs().to_pylist()
    assert (row["status"], row["error_type"], row["writes"]) == ("error", "RuntimeError", 4)
    assert row["processes"] == 2


@pytest.mark.parametrize(
    ("options", "variables"),
    [(["--no-ledger"], {}), ([], {Env.LEDGER.value: "false"})],
    ids=["option", "variable"],
)
@pytest.mark.slow
def test_a_ledger_that_is_turned_off_is_not_created(options, variables, tmp_path):
    """Neither with --no-ledger nor with DELTAWITNESS_LEDGER=false."""
    done = run(tmp_path, LOAD, options=options, **variables)
    assert done.returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["lake"]
    assert "ledger" not in done.stderr


@pytest.mark.slow
def test_the_cache_root_of_the_environment_is_used(tmp_path):
    """It holds also for a program that changes its directory; a root that the user chose gets no .gitignore."""
    (tmp_path / "else").mkdir()
    text = "import os; os.chdir('else')\n" + textwrap.dedent(LOAD)
    done = run(tmp_path, text, DELTAWITNESS_CACHE_ROOT="cache")
    assert str(tmp_path / "cache") in "".join(done.stderr.splitlines())  # a long line is wrapped
    assert sorted(entry.name for entry in (tmp_path / "cache").iterdir()) == [
        "cache_ledgers",
        "cache_spool",
    ]
    assert Ledger(tmp_path / "cache").inventory().count() == 5


@pytest.mark.slow
def test_a_cache_root_can_be_a_uri(tmp_path):
    """A URI with percent-encoded blanks names the same folder in the program and in the command."""
    root = (tmp_path / "a b").as_uri()
    assert run(tmp_path, LOAD, DELTAWITNESS_CACHE_ROOT=root).returncode == 0
    assert Ledger(tmp_path / "a b").inventory().count() == 5


@pytest.mark.slow
def test_a_ledger_that_cannot_be_written_does_not_change_the_exit_code(tmp_path):
    """The exit code is that of the program, and a later drain imports the spooled rows."""
    (tmp_path / ".deltawitness").mkdir()
    (tmp_path / ".deltawitness/cache_ledgers").write_text("in the way")
    done = run(tmp_path, LOAD + "\n    raise SystemExit(3)", options=["--quiet"])
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "deltawitness: drain failed with" in done.stderr
    (tmp_path / ".deltawitness/cache_ledgers").unlink()
    assert json_of("drain", "--root", tmp_path / ".deltawitness")["operations"] == 5


def test_the_command_records_the_end_of_a_killed_program(here):
    """Its run has the status `error` and the signal, and each of its writes has a row."""
    (row,) = [run for run in json_of("runs", "--status", "error") if run["exit_code"] == -9]
    assert (row["job"], row["writes"], row["rows_added"]) == ("killed", 4, 4)
    rows = json_of("writes", "--run", row["run_id"])
    assert [(row["version"], row["result"]) for row in rows] == [
        (version, "write") for version in (3, 2, 1, 0)
    ]
    assert (
        "the program was ended by SIGKILL: its last writes may be missing above"
        in (here / "stderr_killed.txt").read_text()
    )
    assert row["run_id"] in (here / "stderr_killed.txt").read_text().splitlines()[-1]


IN_THE_MIDDLE = """
    import os, signal, pyarrow as pa
    from deltalake import write_deltalake
    def batches():
        os.kill(os.getpid(), signal.SIGKILL)
        yield
    schema = pa.schema([("x", pa.int64())])
    write_deltalake("t", pa.RecordBatchReader.from_batches(schema, batches()))
"""


@pytest.mark.slow
def test_a_program_that_is_killed_inside_its_first_write_is_recorded(tmp_path):
    """The run has a row, although it has no finished write."""
    assert run(tmp_path, IN_THE_MIDDLE).returncode == -signal.SIGKILL
    (row,) = Ledger(tmp_path / ".deltawitness").runs().to_pylist()
    assert (row["status"], row["exit_code"], row["writes"]) == ("error", -9, 0)


# --- runs, show, writes --------------------------------------------------------------------------------


def test_runs_are_listed_newest_first(here):
    """The output is a line per row; --json has every column of the ledger."""
    rows = json_of("runs")
    assert [row["job"] for row in rows] == ["killed", "inner", "middle", "nested", "load"]
    assert set(rows[0]) == {*RUNS.schema.names, "processes"} - {PARTITION, "is_part"}
    shown = invoke("runs").stdout.splitlines()[1:]
    assert [line.split()[1] for line in shown] == [row["job"] for row in rows]


def test_runs_are_filtered(here):
    """The filters are the job, the status and the time; --limit is the maximum number."""
    assert [row["status"] for row in json_of("runs", "--job", "load")] == ["ok"]
    assert [row["job"] for row in json_of("runs", "--status", "error")] == ["killed"]
    assert len(json_of("runs", "--limit", "2")) == 2
    assert len(json_of("runs", "--since", "1h")) == 5
    load = json_of("runs", "--job", "load")[0]
    assert len(json_of("runs", "--since", load["start_time"])) == 5
    assert len(json_of("runs", "--since", load["end_time"])) == 4
    assert json_of("runs", "--since", "2999-01-01") == []


def test_times_are_in_iso_8601(here):
    """Each time is in ISO 8601 with the offset of UTC."""
    for row in json_of("runs"):
        time = datetime.fromisoformat(row["start_time"])
        assert time.utcoffset() == timedelta(0)
        assert timedelta(0) <= datetime.now(UTC) - time < timedelta(hours=1)


def test_every_status_is_accepted(here):
    """Every `RunStatus` is accepted, and another text is an error that lists them."""
    for status in RunStatus:
        json_of("runs", "--status", status.value)
    refused = invoke("runs", "--status", "fine")
    assert refused.exit_code == 2
    assert "ok, error, abandoned" in refused.stderr


def test_a_run_is_shown_with_its_child_runs(here):
    """Child runs are shown at every depth, with the sum of their counts."""
    nested = json_of("runs", "--job", "nested")[0]
    shown = json_of("show", nested["run_id"])
    (middle,) = shown["children"]
    (inner,) = middle["children"]
    assert (middle["run_id"], inner["run_id"], inner["children"]) == ("middle-1", "inner-1", [])
    counts = [row["writes"] for row in (shown["run"], middle, inner, shown["total"])]
    assert counts == [1, 1, 2, 4]
    lines = [(line["table"], line["operations"], line["rows_added"]) for line in shown["tables"]]
    assert lines == [("top", 1, 1), ("middle", 1, 1), ("inner", 2, 2)]
    text = invoke("show", nested["run_id"]).stdout
    assert "nested  ok  writes 1, rows added 1; with its child runs writes 4, rows added 4" in text
    assert "└── middle  ok  writes 1, rows added 1  middle-1" in text
    assert "    └── inner  ok  writes 2, rows added 2  inner-1" in text


def test_an_inner_run_is_shown_by_itself(here):
    """Its parent and its attributes are shown."""
    shown = json_of("show", "middle")
    assert shown["total"]["writes"] == 3
    assert shown["run"]["attributes"] == [{"name": "shard", "value": "3"}]
    text = invoke("show", "middle").stdout
    assert f"child of run {shown['run']['parent_run_id']}" in text
    assert "shard: 3" in text


def test_what_failed_is_shown_with_its_reason(here):
    """The message is redacted, and the row says whether a commit landed."""
    load = json_of("runs", "--job", "load")[0]
    (failed,) = json_of("show", load["run_id"])["failed"]
    assert (failed["error_type"], failed["landed"]) == ("table_exists", "no")
    place = (here / "lake/flights").as_uri()
    assert failed["error_message"] == f"Generic error: A table already exists at: {place}/"
    text = invoke("show", load["run_id"]).stdout
    assert "table_exists" in text
    assert "A table already exists at:" in text
    lines = json_of("show", load["run_id"])["tables"]
    assert [(line["operation"], line["operations"], line["errors"]) for line in lines] == [
        ("WRITE", 4, 1),
        ("DELETE", 1, 0),
    ]


def test_an_unambiguous_prefix_of_an_id_is_enough(here):
    """A prefix of no run or of several runs is an error in one line."""
    load = json_of("runs", "--job", "load")[0]["run_id"]
    assert json_of("show", load[:13])["run"]["run_id"] == load
    assert error_of("show", "nothing") == "no run begins with nothing"
    error = error_of("show", load[:4])
    assert error.startswith(f"3 runs begin with {load[:4]}: ")
    assert load in error


def test_a_run_without_an_end_is_shown_by_its_writes(lake):
    """A reconcile finds the writes of a run whose spool is lost, but not its end."""
    json_of("reconcile", "lake/inner", "--apply")
    shown = json_of("show", "inner-1")
    assert (shown["run"]["status"], shown["tables"][0]["operations"]) == (
        "reconstructed",
        2,
    )
    assert "reconstructed" in invoke("show", "inner-1").stdout


def test_writes_are_listed_newest_first(here):
    """The output is a line per row; --json has every column of the ledger."""
    rows = json_of("writes", "--limit", "100")
    assert len(rows) == 13
    assert [row["event_time"] for row in rows] == sorted(
        (row["event_time"] for row in rows), reverse=True
    )
    assert set(rows[0]) == set(INVENTORY.schema.names) - {PARTITION}
    shown = invoke("writes", "--limit", "100").stdout
    assert shown.count("  WRITE ") == 12
    assert shown.count("  DELETE ") == 1


def test_writes_are_filtered(here):
    """The filters are the table (name, path, URI or id), the run, the result and the time."""
    flights = here / "lake/flights"
    for spelling in ("flights", "lake/flights", flights, flights.as_uri(), table_id(flights)):
        assert len(json_of("writes", "--table", spelling)) == 5, spelling
    assert len(json_of("writes", "--table", table_id(flights)[:9])) == 5
    assert error_of("writes", "--table", "flight").startswith(
        "--table: the ledger has no table 'flight'; it has "
    )
    assert error_of("writes", "--run", "nosuch") == "--run: no run begins with nosuch"
    assert len(json_of("writes", "--result", "error")) == 1
    assert len(json_of("writes", "--run", "inner-1")) == 2
    assert len(json_of("writes", "--table", "flights", "--limit", "2")) == 2
    assert json_of("writes", "--since", "2999-01-01") == []
    assert invoke("writes", "--result", "fine").exit_code == 2


def test_a_quote_in_a_name_is_a_quote(here):
    """A quote in the value of a filter does not change the query."""
    error = error_of("writes", "--table", "it's' OR '1'='1")
    assert error.startswith("--table: the ledger has no table ")
    assert error_of("writes", "--run", "x' OR '1'='1") == "--run: no run begins with x' OR '1'='1"


# --- audit ---------------------------------------------------------------------------------------------


@pytest.fixture
def lake(place, tmp_path, monkeypatch):
    """Four tables without a ledger; one commit was not observed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "lake", "lake", ignore=shutil.ignore_patterns("killed"))
    write_deltalake("lake/inner", pa.table({"x": [1]}), mode="append")
    return tmp_path / "lake"


def test_witnessed_commits_pass_an_audit(lake):
    """The exit code is 0."""
    done = invoke("audit", "lake/flights", "lake/top")
    assert (done.exit_code, done.stdout) == (
        0,
        "5 commits of 2 tables: 0 without the standard metadata\n",
    )


def test_an_unobserved_commit_fails_an_audit(lake):
    """The result has its operation, its engine and the missing keys."""
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
    assert "witness_version" in done.stdout


def test_an_audit_can_be_limited_to_new_commits(lake):
    """The range starts at a version, or is the last commits of each table."""
    assert json_of("audit", "lake/inner", "--last", "1", code=1)["commits"] == 1
    assert json_of("audit", "lake/inner", "--since-version", "1", code=1)["commits"] == 2
    assert json_of("audit", "lake/inner", "--since-version", "3")["commits"] == 0
    DeltaTable("lake/inner").restore(1)
    assert json_of("audit", "lake/inner", "--last", "1", code=1)["commits"] == 1


def test_an_audit_of_an_unreadable_table_exits_with_2(lake):
    """The other tables are audited too, and the exit code is 2."""
    done = invoke("audit", "lake/nothing", "lake/none*", "lake/inner")
    assert done.exit_code == 2
    assert "3 commits of 3 tables: 1 without the standard metadata" in done.stdout
    assert done.stderr == (
        f"deltawitness: {lake / 'nothing'} cannot be read: there is no Delta log\n"
        "deltawitness: lake/none* cannot be read: no Delta table matches\n"
    )


# --- reconcile -----------------------------------------------------------------------------------------


def test_a_reconcile_shows_its_plan_and_changes_nothing(lake):
    """Without --apply no row is appended and no ledger is created."""
    plan = json_of("reconcile", "lake/*", code=1)
    counts = {kind: len(plan[kind]) for kind in ("missing", "foreign", "phantom", "differing")}
    assert counts == {"missing": 8, "foreign": 1, "phantom": 0, "differing": 0}
    assert (plan["commits"], plan["applied"], plan["is_clean"]) == (9, None, False)
    assert [entry.name for entry in lake.parent.iterdir()] == ["lake"]
    text = invoke("reconcile", "lake/*").stdout
    assert "9 commits of 4 tables read: 8 missing, 1 foreign" in text
    assert "--apply" in text


def test_an_applied_reconcile_appends_the_missing_rows(lake):
    """A second one finds nothing; the folder that it created has a .gitignore."""
    done = invoke("reconcile", "lake/*", "--apply")
    assert done.exit_code == 0, done.output
    assert "appended: 9 rows" in done.stdout
    assert (lake.parent / ".deltawitness/.gitignore").read_text() == "*\n"
    assert json_of("reconcile", "--all")["is_clean"]
    assert json_of("reconcile", "--all", "--full")["commits"] == 9
    assert len(json_of("writes", "--limit", "100")) == 9
    assert "the ledger agrees with the logs" in invoke("reconcile", "--all").stdout


def test_a_reconcile_reports_unreadable_tables(lake):
    """The exit code is 1 with and without --apply."""
    assert json_of("reconcile", "lake/none*", code=1)["unreadable"][0]["table_uri"] == "lake/none*"
    assert invoke("reconcile", "lake/none*", "--apply").exit_code == 1


def test_a_reconcile_needs_tables_or_all(lake):
    """It needs table paths or --all, not both."""
    assert error_of("reconcile", code=2) == "reconcile: expected either table paths or --all"
    error_of("reconcile", "lake/top", "--all", code=2)
    assert "no ledger at" in error_of("reconcile", "--all")


@pytest.mark.slow
def test_a_row_of_a_version_of_another_write_is_reported(tmp_path, monkeypatch):
    """The finding remains after --apply, because the ledger is append-only."""
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
    """Before the drain there is no ledger, and the error names the command that imports the spools."""
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


@pytest.mark.internal_errors
@pytest.mark.slow
def test_a_spool_that_cannot_be_drained_exits_with_1(tmp_path, monkeypatch):
    """The exit code is 1, and the spool stays."""
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


def test_the_ledger_is_compacted(copied):
    """The small files become one file, and no row is lost."""
    done = {table["table"]: table for table in json_of("ledger", "optimize")}
    inventory = done[INVENTORY.name]
    assert (inventory["is_done"], inventory["files_added"]) == (True, 1)
    assert inventory["files_removed"] >= 3
    assert "cache_inventory_v1" in invoke("ledger", "optimize").stdout
    assert len(json_of("writes")) == 13


def test_a_correct_ledger_passes_verify(here):
    """The exit code is 0, and the output has the number of rows."""
    done = invoke("ledger", "verify")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        *("cache_inventory_v1: 13 rows", "cache_run_summary_v1: 5 rows", "no problems found"),
    ]
    verification = json_of("ledger", "verify")
    assert (verification["is_good"], verification["findings"]) == (True, [])


def test_a_duplicate_row_fails_verify(copied):
    """An operation with two rows is a finding, and the exit code is 1."""
    inventory = copied / INVENTORY.name
    write_deltalake(inventory, DeltaTable(inventory).to_pyarrow_table()[:1], mode="append")
    verification = json_of("ledger", "verify", code=1)
    assert [finding["problem"] for finding in verification["findings"]] == ["doubled_operation"]
    done = invoke("ledger", "verify")
    assert done.exit_code == 1
    assert done.stdout.startswith("doubled_operation in cache_inventory_v1: ")


# --- missing and unreadable ledgers ------------------------------------------------------------------


READING = [
    ["runs"],
    ["show", "x"],
    ["writes"],
    ["reconcile", "--all"],
    ["drain"],
    ["ledger", "optimize"],
    ["ledger", "verify"],
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_missing_ledger_is_an_error_in_one_line(command, tmp_path, monkeypatch):
    """The error names the location, and no ledger is created."""
    monkeypatch.chdir(tmp_path)
    assert error_of(*command) == f"there is no ledger at {tmp_path / '.deltawitness'}"
    assert error_of(*command, "--root", "other") == "there is no ledger at other"
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_of_the_environment_is_used(place, tmp_path, monkeypatch):
    """DELTAWITNESS_CACHE_ROOT selects the ledger, unless --root is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(Env.CACHE_ROOT, str(place / ".deltawitness"))
    assert len(json_of("runs")) == 5
    error_of("runs", "--root", tmp_path)


@pytest.mark.parametrize("command", [["runs"], ["show", "x"], ["ledger", "optimize"]], ids=" ".join)
def test_a_damaged_ledger_is_an_error_in_one_line(command, copied):
    """There is no traceback, and no file is changed."""
    for log in copied.glob("*/_delta_log/*.json"):
        log.write_text("{")
    before = sorted(copied.rglob("*"))
    assert error_of(*command).startswith(f"the ledger at {copied.parent} cannot be ")
    assert sorted(copied.rglob("*")) == before


def test_a_damaged_ledger_is_a_finding(copied):
    """`ledger verify` reports the table as unreadable instead of failing."""
    for log in copied.glob("*/_delta_log/*.json"):
        log.write_text("{")
    findings = json_of("ledger", "verify", code=1)["findings"]
    assert {finding["problem"] for finding in findings} == {"unreadable"}


def test_credentials_are_not_shown(monkeypatch):
    """Credentials in the location and in the storage options are removed from errors."""
    options = {
        "aws_endpoint": "http://127.0.0.1:1",
        "aws_allow_http": "true",
        "aws_region": "none",
        "aws_access_key_id": "AKIAQWERTYUIOPASDF",
        "aws_secret_access_key": "hunter2hunter2",
        "max_retries": "0",
    }
    monkeypatch.setenv(Env.STORAGE_OPTIONS, json.dumps(options))
    for command in (["runs"], ["drain"], ["ledger", "verify"]):
        error = error_of(*command, "--root", "s3://key:hunter2hunter2@bucket/cache?sig=hunter2")
        assert error.startswith("the ledger at s3://bucket/cache cannot be ")
        assert "hunter2" not in error
        assert "AKIA" not in error


def test_an_invalid_setting_is_an_error_in_one_line(monkeypatch):
    """The error names the variable, and the exit code is 2."""
    monkeypatch.setenv(Env.STORAGE_OPTIONS, "[]")
    assert error_of("runs", code=2) == (
        "DELTAWITNESS_STORAGE_OPTIONS: expected a JSON object of text to text"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", "2024-02-29T11:58:30+00:00"),
        ("2h", "2024-02-29T10:00:00+00:00"),
        ("7d", "2024-02-22T12:00:00+00:00"),
        ("1.5w", "2024-02-19T00:00:00+00:00"),
        ("2024-02-01", "2024-02-01T00:00:00+00:00"),
        ("2024-02-01T10:00+02:00", "2024-02-01T08:00:00+00:00"),
    ],
)
def test_since_is_a_time_or_a_duration(text, expected):
    """A duration is subtracted from the current time."""
    now = datetime(2024, 2, 29, 12, tzinfo=UTC)
    with fixed_clock(int(now.timestamp() * 1e9)):
        assert parse_time(text).isoformat() == expected


@pytest.mark.parametrize("text", ["2x", "yesterday", "", "-2h", "99999999999w"])
def test_other_values_of_since_are_refused(text):
    """The error has the allowed forms, and the exit code is 2."""
    done = invoke("runs", "--since", text)
    assert done.exit_code == 2
    assert "such as 2h or 7d" in done.stderr


def test_the_command_line_does_not_import_the_ledger():
    """Importing the command line imports neither Arrow nor an engine."""
    text = "import sys, deltawitness.cli; print({'pyarrow', 'deltalake', 'datafusion'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.stdout == "set()\n"
