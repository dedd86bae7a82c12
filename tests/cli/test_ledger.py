"""The command line keeps a ledger of each program, asks it, holds it against the logs, keeps it whole."""

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
    """Run a program under the command, in a folder."""
    program = [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)]
    return subprocess.run(
        [*COMMAND, "run", *options, "--", *program],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def ask(*arguments):
    """Run another command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def told(*arguments, code=0):
    """What a command says as JSON."""
    done = ask(*arguments, "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def complaint(*arguments, code=1):
    """The one line that a command ends with."""
    done = ask(*arguments)
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
    """A folder where three programs have run, the last of which was killed in the middle."""
    folder = tmp_path_factory.mktemp("place")
    done = [
        run(folder, LOAD, options=["--job", "load"]),
        run(folder, NESTED, options=["--job", "nested"]),
        run(folder, KILLED, options=["--job", "killed"]),
    ]
    assert [program.returncode for program in done] == [0, 0, -signal.SIGKILL], done
    (folder / "said.txt").write_text(done[0].stderr)
    (folder / "said_last.txt").write_text(done[2].stderr)
    return folder


@pytest.fixture
def copied(place, tmp_path, monkeypatch):
    """A copy of the ledger, to be harmed; the working directory is the folder above it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / ".deltawitness", ".deltawitness")
    return tmp_path / ".deltawitness/cache_ledgers"


@pytest.fixture
def here(place, monkeypatch):
    """The same, as the working directory."""
    monkeypatch.chdir(place)
    return place


# --- run ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_program_keeps_a_ledger_in_its_working_directory(here):
    """Which git leaves alone; the summary says where it is, and how to see the run."""
    assert (here / ".deltawitness/.gitignore").read_text() == "*\n"
    load = told("runs", "--job", "load")[0]
    last_line = (here / "said.txt").read_text().splitlines()[-1]
    expected = f"ledger {here / '.deltawitness'}: deltawitness show {load['run_id']}"
    assert last_line == expected


@pytest.mark.slow
def test_a_program_that_writes_nothing_leaves_nothing_behind(tmp_path):
    """However it ends; nor does its summary tell of a ledger."""
    for text in (
        "print(1)",
        "raise SystemExit(3)",
        "import deltalake, os; os.kill(os.getpid(), 9)",
    ):
        done = run(tmp_path, text)
        assert "ledger" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_run_of_a_program_that_writes_nothing_is_told_where_there_is_a_ledger(tmp_path):
    """It is one of the runs, with nothing in it."""
    run(tmp_path, LOAD, options=["--job", "load"])
    run(tmp_path, "print(1)", options=["--job", "idle"])
    rows = Ledger(tmp_path / ".deltawitness").runs().sort("start_time").to_pylist()
    assert [(row["job"], row["status"], row["writes"]) for row in rows] == [
        ("load", "ok", 4),
        ("idle", "ok", 0),
    ]


@pytest.mark.slow
def test_the_run_of_a_program_whose_children_write_ends_as_the_program_does(tmp_path):
    """Although it has written nothing itself."""
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
def test_a_ledger_that_is_not_wanted_is_not_kept(options, variables, tmp_path):
    """By an option, or by the setting."""
    done = run(tmp_path, LOAD, options=options, **variables)
    assert done.returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["lake"]
    assert "ledger" not in done.stderr


@pytest.mark.slow
def test_a_cache_root_of_the_environment_is_kept_to(tmp_path):
    """Also by a program that goes elsewhere; it is somebody's own folder, so git may look at it."""
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
def test_a_cache_root_that_is_a_uri_stays_what_it_is(tmp_path):
    """Percent-encoded blanks and all."""
    root = (tmp_path / "a b").as_uri()
    assert run(tmp_path, LOAD, DELTAWITNESS_CACHE_ROOT=root).returncode == 0
    assert Ledger(tmp_path / "a b").inventory().count() == 5


@pytest.mark.slow
def test_a_ledger_that_cannot_be_written_is_no_matter_of_the_program(tmp_path):
    """What was spooled waits for better times, and the exit code is the program's own."""
    (tmp_path / ".deltawitness").mkdir()
    (tmp_path / ".deltawitness/cache_ledgers").write_text("in the way")
    done = run(tmp_path, LOAD + "\n    raise SystemExit(3)", options=["--quiet"])
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "deltawitness: drain failed with" in done.stderr
    (tmp_path / ".deltawitness/cache_ledgers").unlink()
    assert told("drain", "--root", tmp_path / ".deltawitness")["operations"] == 5


def test_a_killed_program_is_told_of_by_the_command_that_ran_it(here):
    """Its run ended with an error and its signal, and each of its writes is a row."""
    (row,) = [each for each in told("runs", "--status", "error") if each["exit_code"] == -9]
    assert (row["job"], row["writes"], row["rows_added"]) == ("killed", 4, 4)
    rows = told("writes", "--run", row["run_id"])
    assert [(row["version"], row["result"]) for row in rows] == [
        (version, "write") for version in (3, 2, 1, 0)
    ]
    assert (
        "the program was ended by SIGKILL: its last writes may be missing above"
        in (here / "said_last.txt").read_text()
    )
    assert row["run_id"] in (here / "said_last.txt").read_text().splitlines()[-1]


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
def test_a_program_that_is_killed_inside_its_first_write_is_told_of(tmp_path):
    """Its run is there, although it has never finished anything."""
    assert run(tmp_path, IN_THE_MIDDLE).returncode == -signal.SIGKILL
    (row,) = Ledger(tmp_path / ".deltawitness").runs().to_pylist()
    assert (row["status"], row["exit_code"], row["writes"]) == ("error", -9, 0)


# --- runs, show, writes --------------------------------------------------------------------------------


def test_runs_are_listed_newest_first(here):
    """A line for each, and as JSON all that the ledger has."""
    rows = told("runs")
    assert [row["job"] for row in rows] == ["killed", "inner", "middle", "nested", "load"]
    assert set(rows[0]) == {*RUNS.schema.names, "processes"} - {PARTITION, "is_part"}
    shown = ask("runs").stdout.splitlines()[1:]
    assert [line.split()[1] for line in shown] == [row["job"] for row in rows]


def test_runs_are_told_apart(here):
    """By job, by status, by time, and no more than were asked for."""
    assert [row["status"] for row in told("runs", "--job", "load")] == ["ok"]
    assert [row["job"] for row in told("runs", "--status", "error")] == ["killed"]
    assert len(told("runs", "--limit", "2")) == 2
    assert len(told("runs", "--since", "1h")) == 5
    load = told("runs", "--job", "load")[0]
    assert len(told("runs", "--since", load["start_time"])) == 5
    assert len(told("runs", "--since", load["end_time"])) == 4
    assert told("runs", "--since", "2999-01-01") == []


def test_times_are_in_iso_8601(here):
    """With their zone."""
    for row in told("runs"):
        moment = datetime.fromisoformat(row["start_time"])
        assert moment.utcoffset() == timedelta(0)
        assert timedelta(0) <= datetime.now(UTC) - moment < timedelta(hours=1)


def test_every_status_can_be_asked_for(here):
    """And no other."""
    for status in RunStatus:
        told("runs", "--status", status.value)
    refused = ask("runs", "--status", "fine")
    assert refused.exit_code == 2
    assert "ok, error, abandoned" in refused.stderr


def test_a_run_is_shown_with_the_runs_that_were_opened_in_it(here):
    """Recursively, and their counts summed up."""
    nested = told("runs", "--job", "nested")[0]
    shown = told("show", nested["run_id"])
    (middle,) = shown["children"]
    (inner,) = middle["children"]
    assert (middle["run_id"], inner["run_id"], inner["children"]) == ("middle-1", "inner-1", [])
    counts = [row["writes"] for row in (shown["run"], middle, inner, shown["total"])]
    assert counts == [1, 1, 2, 4]
    lines = [(line["table"], line["operations"], line["rows_added"]) for line in shown["tables"]]
    assert lines == [("top", 1, 1), ("middle", 1, 1), ("inner", 2, 2)]
    text = ask("show", nested["run_id"]).stdout
    assert "nested  ok  writes 1, rows added 1; with its child runs writes 4, rows added 4" in text
    assert "└── middle  ok  writes 1, rows added 1  middle-1" in text
    assert "    └── inner  ok  writes 2, rows added 2  inner-1" in text


def test_an_inner_run_is_shown_by_itself(here):
    """With what the program said of it."""
    shown = told("show", "middle")
    assert shown["total"]["writes"] == 3
    assert shown["run"]["attributes"] == [{"name": "shard", "value": "3"}]
    text = ask("show", "middle").stdout
    assert f"child of run {shown['run']['parent_run_id']}" in text
    assert "shard: 3" in text


def test_what_failed_is_shown_with_its_reason(here):
    """Redacted, and whether it landed."""
    load = told("runs", "--job", "load")[0]
    (failed,) = told("show", load["run_id"])["failed"]
    assert (failed["error_type"], failed["landed"]) == ("table_exists", "no")
    place = (here / "lake/flights").as_uri()
    assert failed["error_message"] == f"Generic error: A table already exists at: {place}/"
    text = ask("show", load["run_id"]).stdout
    assert "table_exists" in text
    assert "A table already exists at:" in text
    lines = told("show", load["run_id"])["tables"]
    assert [(line["operation"], line["operations"], line["errors"]) for line in lines] == [
        ("WRITE", 4, 1),
        ("DELETE", 1, 0),
    ]


def test_the_beginning_of_an_id_is_enough_where_it_is_that_of_one(here):
    """Of none or of several is one clear line."""
    load = told("runs", "--job", "load")[0]["run_id"]
    assert told("show", load[:13])["run"]["run_id"] == load
    assert complaint("show", "nothing") == "no run begins with nothing"
    said = complaint("show", load[:4])
    assert said.startswith(f"3 runs begin with {load[:4]}: ")
    assert load in said


def test_a_run_without_an_end_is_shown_by_its_writes(lake):
    """Its spool was lost: a reconcile knows its writes, and not how it ended."""
    told("reconcile", "lake/inner", "--apply")
    shown = told("show", "inner-1")
    assert (shown["run"]["status"], shown["tables"][0]["operations"]) == (
        "reconstructed",
        2,
    )
    assert "reconstructed" in ask("show", "inner-1").stdout


def test_writes_are_listed_newest_first(here):
    """A line for each, and as JSON all that the ledger has."""
    rows = told("writes", "--limit", "100")
    assert len(rows) == 13
    assert [row["event_time"] for row in rows] == sorted(
        (row["event_time"] for row in rows), reverse=True
    )
    assert set(rows[0]) == set(INVENTORY.schema.names) - {PARTITION}
    shown = ask("writes", "--limit", "100").stdout
    assert shown.count("  WRITE ") == 12
    assert shown.count("  DELETE ") == 1


def test_writes_are_told_apart(here):
    """By table in any spelling, by run, result and time."""
    flights = here / "lake/flights"
    for spelling in ("flights", "lake/flights", flights, flights.as_uri(), table_id(flights)):
        assert len(told("writes", "--table", spelling)) == 5, spelling
    assert len(told("writes", "--table", table_id(flights)[:9])) == 5
    assert complaint("writes", "--table", "flight").startswith(
        "--table: the ledger has no table 'flight'; it has "
    )
    assert complaint("writes", "--run", "nosuch") == "--run: no run begins with nosuch"
    assert len(told("writes", "--result", "error")) == 1
    assert len(told("writes", "--run", "inner-1")) == 2
    assert len(told("writes", "--table", "flights", "--limit", "2")) == 2
    assert told("writes", "--since", "2999-01-01") == []
    assert ask("writes", "--result", "fine").exit_code == 2


def test_a_quote_in_a_name_is_a_quote(here):
    """What is asked for is no part of a query's text."""
    said = complaint("writes", "--table", "it's' OR '1'='1")
    assert said.startswith("--table: the ledger has no table ")
    assert complaint("writes", "--run", "x' OR '1'='1") == "--run: no run begins with x' OR '1'='1"


# --- audit ---------------------------------------------------------------------------------------------


@pytest.fixture
def lake(place, tmp_path, monkeypatch):
    """Four tables and no ledger; one commit is by somebody whom nobody observed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "lake", "lake", ignore=shutil.ignore_patterns("killed"))
    write_deltalake("lake/inner", pa.table({"x": [1]}), mode="append")
    return tmp_path / "lake"


def test_witnessed_commits_pass_an_audit(lake):
    """And the exit code is 0."""
    done = ask("audit", "lake/flights", "lake/top")
    assert (done.exit_code, done.stdout) == (
        0,
        "5 commits of 2 tables: 0 without the standard metadata\n",
    )


def test_a_commit_past_the_library_fails_an_audit(lake):
    """It is named with its operation, its engine and what it lacks."""
    audit = told("audit", lake / "*", code=1)
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
    done = ask("audit", lake / "inner")
    assert done.exit_code == 1
    assert "witness_version" in done.stdout


def test_an_audit_looks_only_at_new_commits_when_asked(lake):
    """From a version on, or the last of each."""
    assert told("audit", "lake/inner", "--last", "1", code=1)["commits"] == 1
    assert told("audit", "lake/inner", "--since-version", "1", code=1)["commits"] == 2
    assert told("audit", "lake/inner", "--since-version", "3")["commits"] == 0
    DeltaTable("lake/inner").restore(1)
    assert told("audit", "lake/inner", "--last", "1", code=1)["commits"] == 1


def test_a_table_that_cannot_be_read_is_told_by_the_exit_code(lake):
    """The others are looked at all the same."""
    done = ask("audit", "lake/nothing", "lake/none*", "lake/inner")
    assert done.exit_code == 2
    assert "3 commits of 3 tables: 1 without the standard metadata" in done.stdout
    assert done.stderr == (
        f"deltawitness: {lake / 'nothing'} cannot be read: there is no Delta log\n"
        "deltawitness: lake/none* cannot be read: no Delta table matches\n"
    )


# --- reconcile -----------------------------------------------------------------------------------------


def test_a_reconcile_shows_its_plan_and_changes_nothing(lake):
    """Nor does it make a ledger."""
    plan = told("reconcile", "lake/*", code=1)
    counts = {kind: len(plan[kind]) for kind in ("missing", "foreign", "phantom", "differing")}
    assert counts == {"missing": 8, "foreign": 1, "phantom": 0, "differing": 0}
    assert (plan["commits"], plan["applied"], plan["is_clean"]) == (9, None, False)
    assert [entry.name for entry in lake.parent.iterdir()] == ["lake"]
    text = ask("reconcile", "lake/*").stdout
    assert "9 commits of 4 tables read: 8 missing, 1 foreign" in text
    assert "--apply" in text


def test_an_applied_reconcile_makes_the_ledger_whole(lake):
    """A second one finds nothing; the folder that it made is not for git."""
    done = ask("reconcile", "lake/*", "--apply")
    assert done.exit_code == 0, done.output
    assert "appended: 9 rows" in done.stdout
    assert (lake.parent / ".deltawitness/.gitignore").read_text() == "*\n"
    assert told("reconcile", "--all")["is_clean"]
    assert told("reconcile", "--all", "--full")["commits"] == 9
    assert len(told("writes", "--limit", "100")) == 9
    assert "the ledger agrees with the logs" in ask("reconcile", "--all").stdout


def test_a_reconcile_tells_of_tables_that_cannot_be_read(lake):
    """Applied or not."""
    assert told("reconcile", "lake/none*", code=1)["unreadable"][0]["table_uri"] == "lake/none*"
    assert ask("reconcile", "lake/none*", "--apply").exit_code == 1


def test_a_reconcile_says_of_which_tables(lake):
    """Some, or all; not neither and not both."""
    assert complaint("reconcile", code=2) == "reconcile: expected either table paths or --all"
    complaint("reconcile", "lake/top", "--all", code=2)
    assert "no ledger at" in complaint("reconcile", "--all")


@pytest.mark.slow
def test_a_row_that_another_write_committed_is_told(tmp_path, monkeypatch):
    """It stays wrong, because the ledger is append-only."""
    monkeypatch.chdir(tmp_path)
    run(tmp_path, KILLED)
    row = told("writes", "--limit", "1")[0]
    log = tmp_path / f"lake/killed/_delta_log/{3:020d}.json"
    text = log.read_text().replace(row["write_id"], "another-1")
    time = int(re.search(r'"timestamp":(\d+)', text)[1])
    log.write_text(text.replace(str(time), str(time - 3_600_000)))
    plan = told("reconcile", "lake/killed", "--apply", code=1)
    assert [found["versions"] for found in plan["missing"]] == [[3]]
    (differing,) = plan["differing"]
    assert (differing["write_id"], differing["difference"]) == (row["write_id"], "other_write")
    done = ask("reconcile", "lake/killed", "--full")
    assert done.exit_code == 1
    assert "4 commits of 1 table read: 1 differing" in done.stdout


# --- drain, optimize, verify -----------------------------------------------------------------------------


PLAIN = """
    import os, signal, sys
    from deltawitness import DeltaLakeInstrumentor
    DeltaLakeInstrumentor().instrument()
"""


@pytest.mark.slow
def test_what_a_dead_process_left_is_drained(tmp_path, monkeypatch):
    """Until then there is no ledger, and the line that says so says what can be done."""
    monkeypatch.chdir(tmp_path)
    program = textwrap.dedent(PLAIN) + textwrap.dedent(KILLED)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, Env.CACHE_ROOT.value: ".deltawitness", Env.DRAIN_INTERVAL.value: "600"},
    )
    assert done.returncode == -signal.SIGKILL
    assert complaint("runs").endswith("; spools wait to be imported: run `deltawitness drain`")
    assert not (tmp_path / ".deltawitness/cache_ledgers").exists()
    drained = ask("drain")
    assert (drained.exit_code, drained.stdout) == (
        0,
        "imported 4 operations, 1 run and 0 snapshots of 1 dead process\n",
    )
    assert ask("drain").stdout == "no spools to import\n"
    assert told("drain")["operations"] == 0
    assert [row["status"] for row in told("runs")] == ["abandoned"]


@pytest.mark.internal_errors
@pytest.mark.slow
def test_what_cannot_be_drained_is_told_by_the_exit_code(tmp_path, monkeypatch):
    """And waits."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".deltawitness").mkdir()
    (tmp_path / ".deltawitness/cache_ledgers").write_text("in the way")
    run(tmp_path, KILLED)
    done = ask("drain")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        "deltawitness: the spools of 1 dead processes could not be imported and stay where they are"
    )
    assert "Traceback" not in done.stderr


def test_the_ledger_is_compacted(copied):
    """Its small files become one, and nothing is lost."""
    done = {table["table"]: table for table in told("ledger", "optimize")}
    inventory = done[INVENTORY.name]
    assert (inventory["is_done"], inventory["files_added"]) == (True, 1)
    assert inventory["files_removed"] >= 3
    assert "cache_inventory_v1" in ask("ledger", "optimize").stdout
    assert len(told("writes")) == 13


def test_a_good_ledger_is_verified(here):
    """By the exit code and in words."""
    done = ask("ledger", "verify")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        *("cache_inventory_v1: 13 rows", "cache_run_summary_v1: 5 rows", "no problems found"),
    ]
    verification = told("ledger", "verify")
    assert (verification["is_good"], verification["findings"]) == (True, [])


def test_a_bad_ledger_is_told_by_the_exit_code(copied):
    """An operation that is there twice is a finding."""
    inventory = copied / INVENTORY.name
    write_deltalake(inventory, DeltaTable(inventory).to_pyarrow_table()[:1], mode="append")
    verification = told("ledger", "verify", code=1)
    assert [finding["problem"] for finding in verification["findings"]] == ["doubled_operation"]
    done = ask("ledger", "verify")
    assert done.exit_code == 1
    assert done.stdout.startswith("doubled_operation in cache_inventory_v1: ")


# --- what is not there, or not readable --------------------------------------------------------------


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
def test_a_ledger_that_is_not_there_is_one_clear_line(command, tmp_path, monkeypatch):
    """And stays not there."""
    monkeypatch.chdir(tmp_path)
    assert complaint(*command) == f"there is no ledger at {tmp_path / '.deltawitness'}"
    assert complaint(*command, "--root", "other") == "there is no ledger at other"
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_of_the_environment_is_asked(place, tmp_path, monkeypatch):
    """Unless the command line names another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(Env.CACHE_ROOT, str(place / ".deltawitness"))
    assert len(told("runs")) == 5
    complaint("runs", "--root", tmp_path)


@pytest.mark.parametrize("command", [["runs"], ["show", "x"], ["ledger", "optimize"]], ids=" ".join)
def test_a_damaged_ledger_is_one_clear_line(command, copied):
    """Without a traceback, and the table stays as it is."""
    for log in copied.glob("*/_delta_log/*.json"):
        log.write_text("{")
    before = sorted(copied.rglob("*"))
    assert complaint(*command).startswith(f"the ledger at {copied.parent} cannot be ")
    assert sorted(copied.rglob("*")) == before


def test_a_damaged_ledger_is_a_finding(copied):
    """To verify it is to be told so, not to fail."""
    for log in copied.glob("*/_delta_log/*.json"):
        log.write_text("{")
    findings = told("ledger", "verify", code=1)["findings"]
    assert {finding["problem"] for finding in findings} == {"unreadable"}


def test_credentials_are_not_shown(monkeypatch):
    """Those in a location, and those in the options for it."""
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
        said = complaint(*command, "--root", "s3://key:hunter2hunter2@bucket/cache?sig=hunter2")
        assert said.startswith("the ledger at s3://bucket/cache cannot be ")
        assert "hunter2" not in said
        assert "AKIA" not in said


def test_an_invalid_setting_is_one_clear_line(monkeypatch):
    """And the exit code of a wrong argument."""
    monkeypatch.setenv(Env.STORAGE_OPTIONS, "[]")
    assert complaint("runs", code=2) == (
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
def test_moments_are_times_or_spans(text, expected):
    """A span ends now."""
    now = datetime(2024, 2, 29, 12, tzinfo=UTC)
    with fixed_clock(int(now.timestamp() * 1e9)):
        assert parse_time(text).isoformat() == expected


@pytest.mark.parametrize("text", ["2x", "yesterday", "", "-2h", "99999999999w"])
def test_other_moments_are_refused(text):
    """With what is allowed, before anything is read."""
    done = ask("runs", "--since", text)
    assert done.exit_code == 2
    assert "such as 2h or 7d" in done.stderr


def test_the_ledger_is_heavy_and_a_run_does_not_carry_it():
    """Neither Arrow nor an engine is imported before there is something to drain."""
    text = "import sys, deltawitness.cli; print({'pyarrow', 'deltalake', 'datafusion'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.stdout == "set()\n"
