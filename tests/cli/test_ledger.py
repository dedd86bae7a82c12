"""The command line shows what a ledger holds, and says in one line what cannot be read."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from deltawitness import table_id
from deltawitness.cli.durations import parse_time
from deltawitness.ledger.tables.run_rows import RunStatus
from deltawitness.ledger.tables.schema import INVENTORY, PARTITION, RUNS
from deltawitness.semconv import Env
from deltawitness.testing import fixed_clock
from helpers.ledger_commands import error_of, invoke, json_of

# --- runs, show, writes --------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_are_listed_newest_first(here):
    """Each is one line; the JSON has every column of the ledger."""
    rows = json_of("runs")
    assert [row["job"] for row in rows] == ["killed", "inner", "middle", "nested", "load"]
    assert set(rows[0]) == {*RUNS.schema.names, "processes"} - {PARTITION, "is_part"}
    shown = invoke("runs").stdout.splitlines()[1:]
    assert [line.split()[1] for line in shown] == [row["job"] for row in rows]


@pytest.mark.slow
def test_runs_are_filtered(here):
    """Runs are filtered by job, status and time, and limited in number."""
    assert [row["status"] for row in json_of("runs", "--job", "load")] == ["ok"]
    assert [row["job"] for row in json_of("runs", "--status", "error")] == ["killed"]
    assert len(json_of("runs", "--limit", "2")) == 2
    assert len(json_of("runs", "--since", "1h")) == 5
    load = json_of("runs", "--job", "load")[0]
    assert len(json_of("runs", "--since", load["start_time"])) == 5
    assert len(json_of("runs", "--since", load["end_time"])) == 4
    assert json_of("runs", "--since", "2999-01-01") == []


@pytest.mark.slow
def test_times_are_in_iso_8601(here):
    """Times have a UTC offset."""
    for row in json_of("runs"):
        moment = datetime.fromisoformat(row["start_time"])
        assert moment.utcoffset() == timedelta(0)
        assert timedelta(0) <= datetime.now(UTC) - moment < timedelta(hours=1)


@pytest.mark.slow
def test_every_status_is_a_filter(here):
    """Every status of `RunStatus` is accepted; any other is an error that lists them."""
    for status in RunStatus:
        json_of("runs", "--status", status.value)
    refused = invoke("runs", "--status", "fine")
    assert refused.exit_code == 2
    assert "ok, error, abandoned" in refused.stderr


@pytest.mark.slow
def test_a_run_is_shown_with_the_runs_that_were_opened_in_it(here):
    """Inner runs are shown recursively, with the sums of their counts."""
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


@pytest.mark.slow
def test_an_inner_run_is_shown_by_itself(here):
    """An inner run is shown with the attributes that the program gave it."""
    shown = json_of("show", "run:middle")
    assert shown["total"]["writes"] == 3
    assert shown["run"]["attributes"] == [{"name": "shard", "value": "3"}]
    text = invoke("show", "run:middle").stdout
    assert f"child of run {shown['run']['parent_run_id']}" in text
    assert "shard: 3" in text


@pytest.mark.slow
def test_a_failure_is_shown_with_its_reason(here):
    """The redacted error is shown, and whether the commit landed."""
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


@pytest.mark.slow
def test_an_unambiguous_prefix_of_an_id_is_enough(here):
    """A prefix of no run or of several runs is an error in one line."""
    load = json_of("runs", "--job", "load")[0]["run_id"]
    assert json_of("show", load[:13])["run"]["run_id"] == load
    assert error_of("show", "nothing").startswith("no run begins with nothing, and no table has ")
    said = error_of("show", load[:4])
    assert said.startswith(f"3 runs begin with {load[:4]}: ")
    assert load in said


@pytest.mark.slow
def test_a_run_without_an_end_is_shown_by_its_writes(lake):
    """After its spool was lost, reconcile has the writes of a run, and not its end."""
    json_of("reconcile", "lake/inner", "--apply")
    shown = json_of("show", "inner-1")
    assert (shown["run"]["status"], shown["tables"][0]["operations"]) == (
        "reconstructed",
        2,
    )
    assert "reconstructed" in invoke("show", "inner-1").stdout


@pytest.mark.slow
def test_writes_are_listed_newest_first(here):
    """Each is one line; the JSON has every column of the ledger."""
    rows = json_of("writes", "--limit", "100")
    assert len(rows) == 13
    assert [row["event_time"] for row in rows] == sorted(
        (row["event_time"] for row in rows), reverse=True
    )
    assert set(rows[0]) == set(INVENTORY.schema.names) - {PARTITION}
    shown = invoke("writes", "--limit", "100").stdout
    assert shown.count("  WRITE ") == 12
    assert shown.count("  DELETE ") == 1


@pytest.mark.slow
def test_writes_are_filtered(here):
    """Writes are filtered by table in any spelling, by run, result and time."""
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


def test_a_quote_in_an_argument_is_not_sql(here):
    """Arguments are quoted in queries of the ledger."""
    said = error_of("writes", "--table", "it's' OR '1'='1")
    assert said.startswith("--table: the ledger has no table ")
    assert error_of("writes", "--run", "x' OR '1'='1") == "--run: no run begins with x' OR '1'='1"


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
def test_a_missing_ledger_is_an_error_in_one_line(command, tmp_path, monkeypatch):
    """The command does not create the ledger."""
    monkeypatch.chdir(tmp_path)
    hint = "pass --root, or set DELTAWITNESS_ROOT"
    assert error_of(*command) == f"there is no ledger at {tmp_path / '.deltawitness'}: {hint}"
    assert error_of(*command, "--root", "other") == "there is no ledger at other"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_ledger_of_the_environment_is_read(place, tmp_path, monkeypatch):
    """The option `--root` takes precedence over the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(Env.CACHE_ROOT, str(place / ".deltawitness"))
    assert len(json_of("runs")) == 5
    error_of("runs", "--root", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["runs"], ["show", "x"], ["ledger", "optimize"]], ids=" ".join)
def test_a_damaged_ledger_is_an_error_in_one_line(command, copied):
    """There is no traceback, and the table is unchanged."""
    for log in copied.glob("*/_delta_log/*.json"):
        log.write_text("{")
    before = sorted(copied.rglob("*"))
    assert error_of(*command).startswith(f"the ledger at {copied.parent} cannot be ")
    assert sorted(copied.rglob("*")) == before


def test_a_damaged_ledger_is_a_finding(copied):
    """`ledger verify` reports the damage as a finding."""
    for log in copied.glob("*/_delta_log/*.json"):
        log.write_text("{")
    findings = json_of("ledger", "verify", code=1)["findings"]
    assert {finding["problem"] for finding in findings} == {"unreadable"}


def test_credentials_are_not_shown(monkeypatch):
    """Credentials in a location and in storage options are not printed."""
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
        said = error_of(*command, "--root", "s3://key:hunter2hunter2@bucket/cache?sig=hunter2")
        assert said.startswith("the ledger at s3://bucket/cache cannot be ")
        assert "hunter2" not in said
        assert "AKIA" not in said


def test_an_invalid_setting_is_an_error_in_one_line(monkeypatch):
    """The exit code is that of a wrong argument."""
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
def test_a_time_is_iso_8601_or_a_duration(text, expected):
    """A duration is counted back from now."""
    now = datetime(2024, 2, 29, 12, tzinfo=UTC)
    with fixed_clock(int(now.timestamp() * 1e9)):
        assert parse_time(text).isoformat() == expected


@pytest.mark.parametrize("text", ["2x", "yesterday", "", "-2h", "99999999999w"])
def test_an_invalid_time_is_refused(text):
    """The error shows the valid forms, before anything is read."""
    done = invoke("runs", "--since", text)
    assert done.exit_code == 2
    assert "such as 2h or 7d" in done.stderr


@pytest.mark.slow
def test_the_command_line_imports_no_engine():
    """Neither Arrow nor an engine is imported with the command line."""
    text = "import sys, deltawitness.cli; print({'pyarrow', 'deltalake', 'datafusion'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.stdout == "set()\n"
