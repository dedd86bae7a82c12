"""Adopt: tables of any writer get rows in the inventory and inferred runs, and are only read."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import time
from pathlib import Path

import pytest
from deltalake import CommitProperties, write_deltalake

from deltawitness import AdoptResult, Ledger, Settings, adopt
from deltawitness.cli import main
from deltawitness.ids_and_clock import fixed
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.ledger.tables.write_rows import ledger_uri
from helpers.ledger_parts import one, rows_of
from helpers.places import FOREIGN_TABLES
from helpers.reconcile_parts import add_commit, now_ms, observed_elsewhere

MINUTE = 60_000
NOON = 1_767_268_800_000
"""2026-01-01 12:00 UTC in milliseconds since the Unix epoch."""

SPARK = {"engineInfo": "Databricks-Runtime/16.4.x-scala2.12", "clusterId": "0101-120000-abc"}
JOB = {"jobId": "77", "jobName": "nightly sales", "jobOwnerId": "5", "triggerType": "periodic"}


def commit_of_spark(table, version, minutes, **info):
    """Add a commit of Spark at a number of minutes after noon."""
    Path(table, "_delta_log").mkdir(parents=True, exist_ok=True)
    metadata = {"id": f"id-{Path(table).name}", "format": {"provider": "parquet"}}
    created = [] if version else [{"metaData": {**metadata, "schemaString": "{}"}}]
    add_commit(
        table,
        version,
        {
            "commitInfo": {
                "timestamp": NOON + int(minutes * MINUTE),
                "operation": "WRITE",
                "operationParameters": {"mode": "Append"},
                "operationMetrics": {"numFiles": "1", "numOutputRows": "5", "numOutputBytes": "99"},
                "txnId": f"00000000-0000-4000-8000-{version:012d}",
                "userName": "ann@example.com",
                **SPARK,
                **info,
            }
        },
        *created,
        {"add": {"path": f"{version}.parquet", "size": 99, "dataChange": True}},
    )


def runs_in(ledger):
    """Return the runs with their attributes as a dict, by the time of their start."""
    rows = sorted(ledger.runs().to_pylist(), key=lambda row: (row["start_time"], row["run_id"]))
    for row in rows:
        row["attributes"] = {pair["name"]: pair["value"] for pair in row["attributes"] or ()}
    return rows


@pytest.fixture
def lake(tmp_path):
    return str(tmp_path / "lake")


@pytest.fixture
def ledger(tmp_path):
    return Ledger(str(tmp_path / "ledger"))


@pytest.mark.slow
def test_a_run_of_a_job_is_one_run_over_all_tables(lake, ledger):
    """The job run id says which commits belong together, whatever the time between them."""
    commit_of_spark(f"{lake}/a", 0, 0, job={**JOB, "runId": "901"}, userMetadata="backfill 12")
    commit_of_spark(f"{lake}/b", 0, 500, job={**JOB, "runId": "901"}, txnId="later")
    commit_of_spark(f"{lake}/b", 1, 501, job={**JOB, "runId": "902"})
    result = ledger.adopt([lake])
    assert result == AdoptResult(
        tables=(ledger_uri(f"{lake}/a"), ledger_uri(f"{lake}/b")),
        commits=3,
        operations=3,
        runs=2,
        unsettled=0,
        unreadable=(),
    )
    first, second = runs_in(ledger)
    assert (first["job"], first["status"], first["system"]) == (
        "nightly sales", "reconstructed", "databricks",
    )  # fmt: skip
    assert (first["pipeline_run_id"], second["pipeline_run_id"]) == ("901", "902")
    assert (first["writes"], first["rows_added"], first["tables_touched"]) == (2, 10, 2)
    assert first["start_time"].timestamp() * 1000 == NOON
    assert first["end_time"] - first["start_time"] == dt.timedelta(minutes=500)
    assert first["attributes"] == {
        "inferred_from": "job run",
        "engine": SPARK["engineInfo"],
        "job_id": "77",
        "cluster_id": SPARK["clusterId"],
        "transactions": "00000000-0000-4000-8000-000000000000, later",
    }
    rows = rows_of(ledger.root, INVENTORY, order="event_time")
    assert [row["run_id"] for row in rows] == [first["run_id"]] * 2 + [second["run_id"]]
    assert {row["source"] for row in rows} == {"reconstructed"}
    assert {row["job"] for row in rows} == {"nightly sales"}
    assert [row["message"] for row in rows] == ["backfill 12", None, None]
    assert "ann@example.com" not in str([*rows, first, second])
    assert ledger.verify().is_good


@pytest.mark.slow
def test_commits_without_a_job_run_are_split_at_gaps(lake, ledger):
    """A notebook is one run over all tables until it makes no commit for the gap."""
    notebook = {"notebook": {"notebookId": "5", "notebookPath": "/Users/ann@example.com/report"}}
    for name, minutes in zip("dcba", (0, 30, 59, 90), strict=True):
        commit_of_spark(f"{lake}/{name}", 0, minutes, **notebook)
    commit_of_spark(f"{lake}/other", 0, 31, notebook={"notebookId": "6"})
    assert ledger.adopt([lake]).runs == 3
    found = [(run["job"], run["writes"]) for run in runs_in(ledger)]
    assert found == [("report", 3), ("6", 1), ("report", 1)]
    shorter = Ledger(f"{lake}-2")
    assert shorter.adopt([lake], gap=dt.timedelta(minutes=10)).runs == 5


@pytest.mark.slow
def test_what_made_a_commit_is_part_of_its_run(lake, ledger):
    """A job on another cluster, and another kind of origin with the same ids, is another run."""
    commit_of_spark(f"{lake}/a", 0, 0, job={"jobId": "7"}, clusterId="c1")
    commit_of_spark(f"{lake}/b", 0, 1, job={"jobId": "7"}, clusterId="c2")
    commit_of_spark(f"{lake}/c", 0, 2, job={"jobId": "7", "runId": "8"})
    update = {"pipelineId": "7", "updateId": "8"}
    commit_of_spark(f"{lake}/d", 0, 3, operationParameters=update)
    commit_of_spark(f"{lake}/e", 0, 400, operationParameters=update)
    assert ledger.adopt([lake]).runs == 4
    found = [
        (run["attributes"]["inferred_from"], run["pipeline_run_id"], run["writes"])
        for run in runs_in(ledger)
    ]
    assert found == [
        ("job", None, 1),
        ("job", None, 1),
        ("job run", "8", 1),
        ("pipeline update", "8", 2),
    ]


@pytest.mark.slow
def test_a_commit_without_a_time_has_that_of_the_commit_before(lake, ledger):
    """It belongs to the run of the commit before it."""
    commit_of_spark(f"{lake}/a", 0, 0)
    commit_of_spark(f"{lake}/a", 1, 1, timestamp=None)
    commit_of_spark(f"{lake}/a", 2, 2)
    assert ledger.adopt([lake]).runs == 1


@pytest.mark.slow
def test_a_run_names_a_bounded_number_of_transactions(lake, ledger):
    """The first twenty of them."""
    for version in range(21):
        commit_of_spark(f"{lake}/a", version, version)
    ledger.adopt([lake])
    (run,) = runs_in(ledger)
    named = run["attributes"]["transactions"].split(", ")
    assert [int(text[-12:]) for text in named] == list(range(20))


@pytest.mark.slow
def test_an_engine_alone_is_one_run_per_table(lake, ledger):
    """Unobserved writes of delta-rs: two programs at the same time probably write different tables."""
    for name in ("a", "b"):
        for number in range(3):
            write_deltalake(f"{lake}/{name}", one(number), mode="append")
    write_deltalake(
        f"{lake}/a",
        one(9),
        mode="append",
        commit_properties=CommitProperties(custom_metadata={"userMetadata": "fix of May"}),
    )
    assert ledger.adopt([f"{lake}/**"]).operations == 7
    runs = runs_in(ledger)
    assert sorted(run["writes"] for run in runs) == [3, 4]
    assert {run["attributes"]["inferred_from"] for run in runs} == {"engine"}
    assert all(run["attributes"]["engine"].startswith("delta-rs") for run in runs)
    assert {run["job"] for run in runs} == {None}
    assert sum(run["rows_added"] for run in runs) == 7
    messages = [row["message"] for row in rows_of(ledger.root, INVENTORY) if row["message"]]
    assert messages == ["fix of May"]


@pytest.mark.slow
def test_a_second_adopt_adds_only_new_commits(lake, tmp_path, ledger):
    """New commits of a run that continues get the id of that run."""
    commit_of_spark(f"{lake}/a", 0, 0)
    commit_of_spark(f"{lake}/a", 1, 10)
    assert (ledger.adopt([lake]).operations, ledger.adopt([lake]).operations) == (2, 0)
    assert ledger.adopt([lake], gap=dt.timedelta(seconds=1)).runs == 0
    commit_of_spark(f"{lake}/a", 2, 20)
    result = ledger.adopt([lake])
    assert (result.operations, result.runs) == (1, 1)
    (run,) = runs_in(ledger)
    assert (run["writes"], run["rows_added"]) == (3, 15)
    assert ledger.reconcile([lake], full=True).is_clean
    again = Ledger(str(tmp_path / "again"))
    again.adopt([lake])
    assert [row["run_id"] for row in runs_in(again)] == [run["run_id"]]
    assert ledger.verify().is_good


@pytest.mark.slow
def test_rows_of_a_reconcile_stay(lake, ledger):
    """A commit that a reconcile has added has a row, so an adopt adds none."""
    commit_of_spark(f"{lake}/a", 0, 0)
    assert ledger.reconcile([lake]).apply() == 1
    assert ledger.adopt([lake]).operations == 0


@pytest.mark.slow
def test_observed_writes_keep_their_runs(lake, tmp_path, ledger):
    """A commit with our metadata gets its run and the source `reconciled`, as by a reconcile."""
    observed_elsewhere(tmp_path, f"{lake}/t", 2)
    write_deltalake(f"{lake}/t", one(3), mode="append")
    result = ledger.adopt([lake])
    assert (result.operations, result.runs) == (3, 2)
    rows = rows_of(ledger.root, INVENTORY, "source, witness_version", order="version")
    assert [row["source"] for row in rows] == ["reconciled", "reconciled", "reconstructed"]
    assert [row["witness_version"] is None for row in rows] == [False, False, True]


@pytest.mark.slow
def test_since_skips_earlier_commits(lake, ledger):
    commit_of_spark(f"{lake}/a", 0, 0)
    commit_of_spark(f"{lake}/a", 1, 10)
    since = dt.datetime.fromtimestamp(NOON / 1000 + 300, dt.UTC)
    assert ledger.adopt([lake], since=since).operations == 1
    assert ledger.adopt([lake]).operations == 1


@pytest.fixture
def time_zone_of_the_process(monkeypatch):
    """The time zone of the process is not UTC."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone of a process is fixed")
@pytest.mark.usefixtures("time_zone_of_the_process")
def test_since_without_a_time_zone_is_in_utc(lake, ledger):
    """As every other time that a caller passes, wherever the process runs."""
    commit_of_spark(f"{lake}/a", 0, 0)
    commit_of_spark(f"{lake}/a", 1, 10)
    since = dt.datetime.fromtimestamp(NOON / 1000 + 300, dt.UTC).replace(tzinfo=None)
    assert ledger.reconcile([lake], since=since).commits == 2
    assert ledger.adopt([lake], since=since).operations == 1


def files_in(folder):
    """Return the content and the modification time of each file."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


@pytest.mark.slow
def test_damaged_and_foreign_commits_are_adopted_without_a_write_to_the_tables(lake, ledger):
    commit_of_spark(f"{lake}/a", 0, 0, job="not a mapping", notebook=3, txnId=7, clusterId=["x"])
    commit_of_spark(f"{lake}/a", 1, 1, engineInfo=None, job={"jobId": 12, "runId": {"a": 1}})
    add_commit(f"{lake}/a", 2, b'{"commitInfo":')
    add_commit(f"{lake}/a", 3, {"commitInfo": {"operation": "WRITE", "timestamp": "\ud800"}})
    before = files_in(lake)
    assert ledger.adopt([lake]).operations == 4
    assert files_in(lake) == before
    assert ledger.adopt([lake]).operations == 0


@pytest.mark.skipif(
    not FOREIGN_TABLES.is_dir(),
    reason=f"needs tables of other writers in a folder {FOREIGN_TABLES.name} outside the repository",
)
def test_tables_of_other_writers(tmp_path, ledger, say):
    """Each commit has one row with a run, each run has the sums of its rows, and the logs are unchanged."""
    copies = Path(shutil.copytree(FOREIGN_TABLES, tmp_path / "copies"))
    before = files_in(copies)
    result = ledger.adopt([copies])
    assert files_in(copies) == before
    assert ledger.adopt([copies]).operations == 0
    rows = rows_of(ledger.root, INVENTORY)
    assert len(rows) == result.operations == result.commits
    runs = {row["run_id"]: row for row in runs_in(ledger)}
    assert {row["run_id"] for row in rows} == runs.keys()
    assert len(runs) == result.runs
    assert sum(run["writes"] for run in runs.values()) == len(rows)
    assert sum(run["rows_added"] or 0 for run in runs.values()) == sum(
        row["rows_added"] or 0 for row in rows
    )
    kinds = {run["attributes"]["inferred_from"] for run in runs.values()}
    assert kinds == {"pipeline update", "notebook", "cluster", "engine"}
    say(f"adopt: {result.commits} commits of {len(result.tables)} foreign tables, {len(runs)} runs")


@pytest.mark.slow
def test_the_command_adopts_a_folder(lake, tmp_path, monkeypatch, capsys):
    """It exits with 0, with 1 if a table cannot be read, and with 2 for a wrong option."""
    commit_of_spark(f"{lake}/a", 0, 0)

    def call(*arguments):
        root = ("--root", str(tmp_path / "ledger"))
        monkeypatch.setattr("sys.argv", ["deltawitness", "adopt", *root, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    code, shown = call(f"{lake}/*")
    assert (code, shown.out) == (0, "1 commit of 1 table read, appended: 1 operation and 1 run\n")
    code, shown = call("--json", "--gap", "1h", lake, f"{lake}/none*")
    found = json.loads(shown.out)
    assert (code, found["operations"], found["commits"]) == (1, 0, 1)
    assert found["unreadable"] == [{"table_uri": f"{lake}/none*", "text": "no Delta table matches"}]
    assert call(lake, "--gap", "soon")[0] == 2


@pytest.mark.slow
def test_adopt_on_an_object_store(server, tmp_path):
    """Tables and ledger are on the store; young commits wait until no process can still record them."""
    for name in ("x", "y/z"):
        for number in range(2):
            write_deltalake(
                f"s3://lake/adopt/{name}",
                one(number),
                mode="append",
                storage_options=server.options,
            )
    settings = Settings(
        cache_root="s3://lake/adopt/ledger",
        storage_options=server.options,
        spool_dir=str(tmp_path / "spool"),
    )
    young = adopt("s3://lake/adopt/**", settings=settings)
    assert (young.operations, young.unsettled) == (0, 4)
    with fixed(clock=lambda: (now_ms() + 10 * MINUTE) * 1_000_000):
        result = adopt("s3://lake/adopt/**", settings=settings)
        assert (result.operations, result.runs, len(result.tables)) == (4, 2, 2)
        assert adopt(["s3://lake/adopt"], settings=settings).operations == 0
    assert len(rows_of(Ledger(settings=settings).root, RUNS)) == 2
