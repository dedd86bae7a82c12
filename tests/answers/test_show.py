"""`show` answers for a version of a table and for a run, by every spelling of their names."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    Ledger,
    RunRow,
    Settings,
    ShownCommit,
    WriteRow,
    errors,
    run,
    runs,
    show,
    suppressed,
    table_id,
    writes,
)
from deltawitness.answers.commits import NOT_IN_LEDGER, NOT_IN_LOG, OTHER_WRITE
from deltawitness.answers.run_report import RunReport
from deltawitness.answers.trace_links import trace_url
from deltawitness.cli.console import console
from deltawitness.exceptions import ConfigurationError, LedgerLookupError
from deltawitness.ledger.tables.schema import INVENTORY, PARTITION, RUNS
from deltawitness.report.runs import print_run
from deltawitness.semconv import Env
from helpers.ledger_commands import error_of, invoke, json_of

DATA = pa.table({"x": [1, 2, 3]})


@pytest.fixture(scope="module")
def lakehouse(tmp_path_factory):
    """A folder with tables and a ledger: runs `orders-1` and `nightly-1`, two tables called `twin`."""
    folder = tmp_path_factory.mktemp("lakehouse")
    settings = Settings(cache_root=str(folder / ".deltawitness"), author="Team Lake")
    DeltaLakeInstrumentor().instrument(settings=settings)
    orders = str(folder / "lake/orders")
    with run("load", run_id="orders-1", message="first load"):
        write_deltalake(orders, DATA)
        write_deltalake(str(folder / "a/twin"), DATA)
        write_deltalake(str(folder / "b/twin"), DATA)
        write_deltalake(str(folder / "lake/at@3"), DATA)
    with run("nightly", run_id="nightly-1"):
        DeltaTable(orders).delete("x = 2")
        DeltaTable(orders).vacuum(
            retention_hours=0, dry_run=False, enforce_retention_duration=False
        )
        with pytest.raises(Exception, match="already exists"):
            write_deltalake(orders, DATA)
        with suppressed():
            write_deltalake(orders, DATA, mode="append")
    DeltaLakeInstrumentor().uninstrument()
    return folder


@pytest.fixture
def here(lakehouse, monkeypatch):
    """The lakehouse as the working directory."""
    monkeypatch.chdir(lakehouse)
    return lakehouse


@pytest.fixture
def copied(lakehouse, tmp_path, monkeypatch):
    """A table `t` with one observed commit, and its ledger, to be changed."""
    monkeypatch.chdir(tmp_path)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=".deltawitness"))
    write_deltalake("t", DATA)
    DeltaLakeInstrumentor().uninstrument()
    return tmp_path


# --- a version of a table ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_version_is_shown_by_every_name_of_its_table(here):
    """Name, path, URI, id and a prefix of the id select the table; `@` selects the version."""
    place = here / "lake/orders"
    ids = table_id(place), table_id(place)[:12]
    shown = [
        json_of("show", f"{name}@1")
        for name in ("table:orders", "lake/orders", place, place.as_uri(), *ids)
    ]
    assert all(each == shown[0] for each in shown)
    assert (shown[0]["kind"], shown[0]["operation"], shown[0]["job"]) == (
        *("commit", "DELETE", "nightly"),
    )
    assert shown[0]["table"] == {
        "name": "orders",
        "uri": place.as_uri(),
        "table_id": table_id(place),
        "version": 1,
    }
    assert json_of("show", "orders@1") == shown[0]


@pytest.mark.slow
def test_the_text_has_what_is_known(here):
    """Run, job, author, message, call site, predicate and counts are lines; unknown values have none."""
    text = invoke("show", "orders@1").stdout
    lines = dict(line.split(maxsplit=1) for line in text.splitlines()[2:] if "  " in line)
    assert text.startswith("orders@1  DELETE\n")
    assert lines["run"].strip() == "nightly-1 (ok)"
    assert lines["author"].strip() == "Team Lake"
    assert lines["predicate"].strip() == "x = 2"
    assert lines["rows"].split() in (["-1"], ["copied", "2"])
    assert "message" not in lines
    assert "note:" not in text
    assert "first load" in invoke("show", "orders@0").stdout
    assert "tests/answers/test_show.py:" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["März 2024", "100%", "日本", "it's", "a@3", "a+b"])
def test_a_folder_with_other_letters_names_its_table(tmp_path, monkeypatch, name):
    """The ledger has no name of such a table; the last folder of its location is one for the commands."""
    monkeypatch.chdir(tmp_path)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=".deltawitness"))
    write_deltalake(f"lake/{name}", DATA)
    write_deltalake(f"lake/{name}", DATA, mode="append")
    write_deltalake("lake/other", DATA)
    Ledger(".deltawitness").drain()
    DeltaLakeInstrumentor().uninstrument()
    assert json_of("show", name)["table"]["version"] == 1
    assert json_of("show", f"{name}@0")["in_ledger"] is True
    assert [row["version"] for row in json_of("writes", "--table", name)] == [1, 0]
    assert f"  {name}  " in invoke("writes").stdout


@pytest.mark.slow
def test_each_version_of_a_vacuum_is_the_vacuum(here):
    """The two commits of a VACUUM are one write."""
    for version in (2, 3):
        shown = json_of("show", f"orders@{version}")
        assert (shown["versions"], shown["table"]["version"]) == ([2, 3], version)
        assert shown["operation"] == "VACUUM"


def test_the_last_version_is_shown_without_a_version(here):
    """It is the last one in the log, which the ledger does not have here; the answer says so."""
    shown = json_of("show", "lake/orders")
    assert (shown["table"]["version"], shown["in_ledger"], shown["in_log"]) == (4, False, True)
    assert shown["mode"] in {"append", "overwrite", "error", None}  # not as the log spells it
    assert shown["notes"] == [NOT_IN_LEDGER]
    assert (shown["run_id"], shown["operation"], shown["metrics"]["rows_added"]) == (
        *(None, "WRITE", 3),
    )
    assert f"note: {NOT_IN_LEDGER}" in invoke("show", "lake/orders").stdout


def test_a_version_that_does_not_exist_is_an_error(here):
    """The error says which versions there are."""
    said = error_of("show", "orders@9")
    assert said == (
        "orders: neither the table's log nor the ledger has version 9; its log has 0 to 4"
    )


def test_a_table_is_shown_without_a_ledger(tmp_path, monkeypatch):
    """The log alone answers for a path; a name alone needs the ledger."""
    monkeypatch.chdir(tmp_path)
    write_deltalake("t", DATA)
    shown = json_of("show", "t@0")
    assert (shown["in_ledger"], shown["notes"]) == (False, [NOT_IN_LEDGER])
    assert error_of("show", "other").startswith("there is no ledger at ")
    assert isinstance(show("t", root="nowhere"), ShownCommit)


@pytest.mark.slow
def test_a_commit_that_the_log_has_lost_is_shown_from_the_ledger(copied):
    """The table may be deleted; the answer says that the log does not have the commit."""
    shutil.rmtree("t")
    shown = json_of("show", "t")
    assert (shown["in_ledger"], shown["in_log"], shown["notes"]) == (True, False, [NOT_IN_LOG])
    assert (shown["table"]["version"], shown["metrics"]["rows_added"]) == (0, 3)
    assert json_of("show", "t@0") == shown


@pytest.mark.slow
def test_a_table_that_was_recreated_is_not_mistaken_for_the_old_one(copied):
    """A version that another write has made now is not answered with the ledger's row of the old one."""
    shutil.rmtree("t")
    write_deltalake("t", DATA, mode="overwrite")
    shown = json_of("show", "t@0")
    assert (shown["in_ledger"], shown["notes"]) == (False, [NOT_IN_LEDGER, OTHER_WRITE])
    assert shown["run_id"] is None


@pytest.mark.slow
def test_a_log_that_cannot_be_read_is_a_note(copied):
    """The ledger answers alone."""
    shutil.rmtree("t/_delta_log")
    Path("t/_delta_log").mkdir()
    Path(f"t/_delta_log/{0:020d}.json").mkdir()
    shown = json_of("show", "t@0")
    assert (shown["in_ledger"], shown["in_log"]) == (True, None)
    assert shown["notes"][0].startswith("the table's log cannot be read: ")


@pytest.mark.slow
def test_a_reconciled_commit_is_in_the_ledger(copied):
    """Reconcile adds the row of a commit without our metadata; `show` finds it."""
    write_deltalake("t", DATA, mode="append")
    Ledger(".deltawitness").reconcile(["t"]).apply()
    shown = json_of("show", "t@1")
    assert (shown["in_ledger"], shown["source"], shown["notes"]) == (True, "reconciled", [])


def test_the_commit_of_another_engine_is_shown(tmp_path):
    """Its predicate, its own message and what ran it are those of the log."""
    info = {
        "timestamp": 1_700_000_000_000,
        "operation": "MERGE",
        "operationParameters": {"mergePredicate": "(t.id = s.id)", "predicate": ""},
        "operationMetrics": {"numTargetRowsInserted": "7"},
        "engineInfo": "Apache-Spark/4.0.0 Delta-Lake/4.0.0",
        "userMetadata": "repair of March",
        "job": {"jobId": "12"},
    }
    log = tmp_path / "t/_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020d}.json").write_text(json.dumps({"commitInfo": info}))
    shown = show(str(tmp_path / "t"), root=str(tmp_path / "none"))
    assert (shown.predicate, shown.message) == ("(t.id = s.id)", "repair of March")
    assert (shown.origin, shown.metrics.rows_added) == ({"job": {"jobId": "12"}}, 7)
    assert shown.time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    text = invoke("show", tmp_path / "t", "--root", tmp_path / "none").stdout
    assert "Apache-Spark/4.0.0" in text
    assert "engine's job" in text


@pytest.mark.parametrize(
    "line", ["{", '{"commitInfo": {"timestamp": 1e300, "operation": 7}}', "[]"]
)
def test_a_strange_commit_is_shown_as_far_as_it_can_be(tmp_path, line):
    """A log may contain anything."""
    log = tmp_path / "t/_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020d}.json").write_text(line)
    shown = show(str(tmp_path / "t"), root=str(tmp_path / "none"))
    assert (shown.in_log, shown.operation, shown.time) == (True, None, None)


# --- names -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_name_of_a_run_and_a_table_is_an_error_that_says_how_to_choose(here):
    """`orders` is a table, and the beginning of a run's id."""
    said = error_of("show", "orders")
    assert said == "orders names a run and a table: use run:orders or table:orders"
    assert json_of("show", "run:orders")["run"]["run_id"] == "orders-1"
    assert json_of("show", "table:orders")["table"]["version"] == 4
    assert json_of("show", "orders-1")["kind"] == "run"
    with pytest.raises(LedgerLookupError, match="run:orders"):
        show("orders", root=".deltawitness")


@pytest.mark.slow
def test_two_tables_of_a_name_are_an_error_that_lists_them(here):
    """A path selects one of them."""
    said = error_of("show", "twin")
    places = [(here / each / "twin").as_uri() for each in "ab"]
    assert said == f"2 tables are named twin: {', '.join(places)}"
    assert json_of("show", "a/twin")["table"]["uri"] == places[0]
    assert error_of("show", "twin@0").startswith("2 tables are named ")


@pytest.mark.slow
def test_the_name_of_a_table_may_look_like_a_version(here):
    """A complete name takes precedence over a name with a version."""
    shown = json_of("show", "lake/at@3")
    assert shown["table"]["uri"].endswith("/lake/at@3")
    assert shown["table"]["version"] == 0
    assert json_of("show", "lake/at@3@0")["table"] == shown["table"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "nothing",
            "no run begins with nothing, and no table has the name, id or location nothing;",
        ),
        ("run:nothing", "no run begins with nothing"),
        ("table:nothing", "no table has the name, id or location nothing; it has "),
        ("x' OR '1'='1", "no run begins with x' OR '1'='1"),
        ("", "no run begins with "),
    ],
)
def test_an_unknown_name_is_an_error_in_one_line(here, name, said):
    """The error lists the tables that were written last."""
    assert error_of("show", name).startswith(said)


# --- traces ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_link_to_a_trace_follows_the_template(tmp_path, monkeypatch):
    """A version and a run have a link, in the text and in the JSON."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    monkeypatch.chdir(tmp_path)
    provider = sdk.TracerProvider()
    settings = Settings(cache_root=".deltawitness")
    DeltaLakeInstrumentor().instrument(settings=settings, tracer_provider=provider)
    with run("traced", run_id="traced-1"):
        write_deltalake("t", DATA)
    DeltaLakeInstrumentor().uninstrument()
    assert json_of("show", "t@0")["trace_url"] is None
    monkeypatch.setenv(Env.TRACE_URL, "https://tempo.example/trace/{trace_id}?span={span_id}")
    shown = json_of("show", "t@0")
    link = f"https://tempo.example/trace/{shown['trace_id']}?span={shown['span_id']}"
    assert shown["trace_url"] == link
    assert link in invoke("show", "t@0").stdout
    (trace,) = json_of("show", "traced-1")["traces"]
    assert trace["url"].startswith(f"https://tempo.example/trace/{shown['trace_id']}")
    assert f"trace: {trace['url']}" in invoke("show", "traced-1").stdout
    assert trace_url(None, "1") is trace_url("https://x/{trace_id}", None) is None


@pytest.mark.parametrize(
    "template",
    [
        "tempo.example/{trace_id}",
        "https://tempo.example/",
        "https://tempo.example/{traceid}",
        "https://tempo.example/{trace_id}/{user}",
        "https://tempo.example/ {trace_id}",
        "javascript:{trace_id}",
    ],
)
def test_an_invalid_template_is_refused(template):
    """The error names the variable and shows a valid value."""
    with pytest.raises(ConfigurationError, match=r"DELTAWITNESS_TRACE_URL: expected a URL with"):
        Settings(trace_url=template)


# --- runs, errors, and the values of all answers -----------------------------------------------------


@pytest.mark.slow
def test_a_run_is_shown_with_its_operations_and_outputs(here):
    """The text has the outputs and the operations; the value has the rows."""
    shown = show("nightly-1", root=".deltawitness")
    assert [str(output.table) for output in shown.outputs] == ["orders@3"]
    assert shown.outputs[0].versions == (1, 2, 3)
    assert [row.operation for row in shown.writes] == ["DELETE", "VACUUM", "WRITE"]
    assert [row.error_type for row in shown.failed] == ["table_exists"]
    assert [process.status for process in shown.processes] == ["ok"]
    text = invoke("show", "nightly-1").stdout
    assert "outputs: orders@3\n" in text
    assert "operations:\n" in text
    assert "A table already exists at:" in text


@pytest.mark.slow
def test_a_run_of_several_processes_lists_them(here, capsys):
    """A run of one process does not."""
    found = json_of("show", "nightly-1")
    assert len(found["processes"]) == 1
    shown = show("nightly-1", root=".deltawitness")
    start = shown.run.start_time
    part = {
        "run_id": "nightly-1", "host": "worker-7", "pid": 7, "is_part": True, "status": "ok",
        "error_type": None, "exit_code": None, "start_time": start,
        "end_time": start + timedelta(seconds=2), "writes": 3, "noops": 0, "errors": 0, "rows_added": 9,
    }  # fmt: skip
    row = {**found["run"], "start_time": start, "end_time": start}
    print_run(console(sys.stdout), RunReport(row, {}, [], [], [part, {**part, "pid": 8}]))
    text = capsys.readouterr().out
    assert "2 processes:" in text
    assert text.count("worker-7") == 2


@pytest.mark.slow
def test_errors_are_listed_with_their_runs(here):
    """The exit code is 0 with and without failures."""
    text = invoke("errors").stdout
    assert text.splitlines()[1].split()[2:6] == ["nightly", "nightly-1", "orders", "WRITE"]
    assert "A table already exists at:" in text
    none = invoke("errors", "--job", "load")
    assert (none.exit_code, none.stdout) == (0, "no failed operations\n")
    assert json_of("errors", "--since", "2999-01-01") == []
    assert error_of("errors", "--table", "nothing").startswith("--table: the ledger has no table ")


def test_the_values_have_the_columns_of_the_ledger():
    """The classes of rows have each column, under its name and in its order."""
    inventory = [name for name in INVENTORY.schema.names if name != PARTITION]
    assert [each.name for each in fields(WriteRow)] == inventory
    columns = [name for name in RUNS.schema.names if name not in {PARTITION, "is_part"}]
    assert sorted(each.name for each in fields(RunRow)) == sorted([*columns, "processes"])


@pytest.mark.slow
def test_the_functions_return_what_the_commands_print(here):
    """Rows of `writes`, `errors` and `runs` are those of the commands, as values."""
    root = ".deltawitness"
    assert [row.write_id for row in writes(root=root)] == [
        row["write_id"] for row in json_of("writes", "--limit", "100")
    ]
    assert [row.run_id for row in runs(root=root)] == [row["run_id"] for row in json_of("runs")]
    assert [row.error_type for row in errors(root=root, since=datetime(2020, 1, 1))] == [  # noqa: DTZ001 - UTC is the default
        "table_exists"
    ]
    assert runs(root=root, status="error") == []
    assert {row.job for row in runs(root=root, job="load", limit=1)} == {"load"}
    with pytest.raises(LedgerLookupError, match=r"there is no ledger at .*nowhere"):
        writes(root="nowhere")
    with pytest.raises(ValueError, match="fine"):
        writes(root=root, result="fine")


@pytest.mark.slow
def test_writes_are_filtered_by_version_operation_and_author(here):
    """The options combine; a version of a VACUUM is found by each of its commits."""
    rows = json_of("writes", "--table", "orders", "--version", "2")
    assert [row["operation"] for row in rows] == ["VACUUM"]
    assert json_of("writes", "--table", "orders", "--version", "3") == rows
    assert len(json_of("writes", "--operation", "delete")) == 1
    assert len(json_of("writes", "--user", "team lake")) == len(json_of("writes"))
    assert json_of("writes", "--user", "nobody") == []
    assert len(json_of("writes", "--job", "nightly", "--result", "write")) == 2
    assert invoke("writes", "--version", "-1").exit_code == 2


@pytest.mark.slow
def test_own_writes_are_in_the_answer_at_once(tmp_path):
    """A process that observes itself asks about a write that it has just made."""
    settings = Settings(cache_root=str(tmp_path / "ledger"), drain_interval=3600)
    DeltaLakeInstrumentor().instrument(settings=settings)
    write_deltalake(str(tmp_path / "t"), DATA)
    assert show("t", settings=settings).in_ledger
    assert len(writes(settings=settings)) == 1
