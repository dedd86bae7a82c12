"""Spark and LakeSail: their commits carry the run, and become rows of the ledger.

The programs run in an environment with Spark (`helpers.spark_environment`), with jars from Maven. The
program with every kind of write takes minutes: CI has its shorter parts, `TEST_SIZE=long` all of it.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter

import pytest
from typer.testing import CliRunner

from deltawitness import Ledger
from deltawitness.cli.app import app
from deltawitness.commit.reader import history
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from helpers.ledger_parts import rows_of
from helpers.places import PROGRAMS, REPOSITORY
from helpers.repository_tools import load_example
from helpers.spark_environment import missing, run_program

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

IS_LONG = os.environ.get("TEST_SIZE") == "long"
PARTS = () if IS_LONG else ("settings", "delta-rs")
needs_all = pytest.mark.skipif(
    not IS_LONG, reason="every kind of write takes minutes: TEST_SIZE=long"
)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """The program that writes in many ways, after it has ended."""
    return run_program(PROGRAMS / "spark_calls.py", tmp_path_factory.mktemp("calls"), *PARTS)


@pytest.fixture(scope="module")
def printed(calls):
    """What the program has printed."""
    return json.loads(calls.stdout.splitlines()[-1])


def commits_of(calls, table):
    """Return the commits of a table, oldest first."""
    return [*history(calls.folder / table)][::-1]


def operations_of(commits):
    return [commit.operation for commit in commits]


@needs_all
def test_each_frame_write_has_the_run_the_span_and_a_write_id(calls, printed):
    """Writers of both versions, `insertInto` and a function for batches carry the run of the program."""
    commits = commits_of(calls, "frames")
    own = [each for each in commits if each.metadata.get("userMetadata") == "of the program"]
    assert [each.witness for each in own] == [{}]
    ours = [each for each in commits if each not in own]
    assert len(ours) == 6
    assert {each.run_id for each in ours} == {printed["frames"]}
    assert {each.witness["traceparent"] for each in ours} == {TRACE}
    *writes, batch = ours
    assert len({each.write_id for each in writes}) == len(writes)
    assert batch.write_id is None


@needs_all
def test_each_statement_has_the_run_and_a_write_id(calls):
    """DML, DDL, MERGE and maintenance by SQL; the two commits of a VACUUM have one write id."""
    commits = commits_of(calls, "statements")
    assert operations_of(commits) == [
        *("CREATE TABLE", "WRITE", "WRITE", "UPDATE", "DELETE", "MERGE"),
        *("ADD COLUMNS", "SET TBLPROPERTIES", "OPTIMIZE", "VACUUM START", "VACUUM END", "RESTORE"),
    ]
    assert {each.witness["job_name"] for each in commits} == {"statements"}
    assert {each.witness["message"] for each in commits} == {"by SQL"}
    assert {each.witness["cache_policy"] for each in commits} == {"daily"}
    shared = [count for count in Counter(each.write_id for each in commits).values() if count > 1]
    assert shared == [2]
    assert commits_of(calls, "copied")[0].witness["job_name"] == "statements"


@needs_all
def test_each_call_of_a_delta_table_has_the_run_and_a_write_id(calls):
    """The classes of delta-spark are observed, too."""
    commits = commits_of(calls, "calls")
    assert operations_of(commits) == [
        *("WRITE", "UPDATE", "DELETE", "RESTORE", "MERGE", "MERGE"),
    ]
    assert {each.witness["job_name"] for each in commits} == {"calls"}
    assert len({each.write_id for each in commits}) == len(commits)
    assert commits_of(calls, "built")[0].write_id is not None


@needs_all
def test_threads_with_different_runs_never_get_each_others_run(calls):
    """Where a commit may be of two runs, it carries none; with a session each, it has its run."""
    for number in range(2):
        commits = commits_of(calls, f"thread-{number}")
        assert len(commits) == 3
        assert {each.witness.get("job_name") for each in commits} <= {f"thread-{number}", None}
        (commit,) = commits_of(calls, f"session-{number}")
        assert commit.witness["job_name"] == f"session-{number}"


@needs_all
def test_writes_over_spark_connect_have_the_run_and_a_write_id(calls):
    """A client of Spark Connect is observed; an option of the program is kept, however it is spelled."""
    commits = commits_of(calls, "connect")
    assert operations_of(commits) == [
        "WRITE",
        "WRITE",
        "WRITE",
        "WRITE",
        "UPDATE",
        "MERGE",
        "DELETE",
    ]
    own, last = commits.pop(2), commits.pop()
    assert own.metadata["userMetadata"] == "of the program"
    assert "userMetadata" not in last.metadata
    assert {each.witness["message"] for each in commits} == {"by a client"}
    assert len({each.write_id for each in commits}) == len(commits)


def test_the_programs_own_setting_is_kept(calls, printed):
    """A value of the program is neither replaced nor lost; ours is removed at the end."""
    seen = printed["settings"]
    assert seen["before"] is None
    assert seen["kept"] == seen["after"] == "of the program"
    assert seen["stopped"] is None
    assert seen["error"] == "AnalysisException"
    assert seen["is_replaced"] == [False, True]
    assert seen["idle"]["job_name"] == "idle"
    assert seen["idle"]["message"] == "costs ${env:HOME}"
    first, option, plain, suppressed = commits_of(calls, "settings")
    assert first.metadata["userMetadata"] == "of the program"
    assert json.loads(option.metadata["userMetadata"])["ticket"] == "OPS-7"
    assert option.write_id is not None
    assert plain.witness["message"] == "costs ${env:HOME}"
    assert "userMetadata" not in suppressed.metadata
    assert "userMetadata" not in commits_of(calls, "unobserved")[0].metadata


def test_commits_of_delta_rs_are_in_the_history_of_spark(printed):
    """`DESCRIBE HISTORY` shows run, job and message of our commits in `userMetadata`."""
    *newer, second, first = printed["delta-rs"]["history"]
    assert [each[1] for each in newer] == ["WRITE", "OPTIMIZE", "UPDATE", "DELETE"]
    for _, _, text, engine in [*newer[1:], second, first]:
        keys = json.loads(text)
        assert engine.startswith("delta-rs")
        assert (keys["job_name"], keys["message"]) == ("by-delta-rs", 'of the "shop"')
        assert keys["run_id"]
        assert keys["write_id"]
    assert json.loads(newer[0][2])["job_name"] == "by-spark"


def test_spark_reads_the_tables_of_the_ledger(printed):
    """The rows of the writes of delta-rs, with their lists."""
    operations = ["DELETE", "OPTIMIZE", "UPDATE", "WRITE", "WRITE"]
    assert printed["delta-rs"]["ledger"] == [
        [operation, "by-delta-rs", 1] for operation in operations
    ]


@needs_all
def test_each_commit_of_spark_becomes_a_row_of_its_run(calls, tmp_path):
    """Rows have the source `spark`, the job, the operation and the counts; a second pass adds nothing."""
    tables = [str(calls.folder / name) for name in ("frames", "statements", "calls", "copied")]
    ledger = Ledger(tmp_path / "ledger")
    plan = ledger.reconcile(tables)
    assert [each.operation for each in plan.foreign] == ["WRITE"]
    assert plan.apply() == len(plan.missing) + 1
    assert ledger.reconcile(tables, full=True).is_clean
    assert ledger.adopt(tables).operations == 0
    rows = rows_of(ledger.root, INVENTORY)
    ours = [row for row in rows if row["source"] == "spark"]
    assert len(ours) == len(plan.missing)
    found = {
        (row["table_name"], row["version"]): (row["job"], row["operation"], row["cache_operation"])
        for row in ours
    }
    assert found["statements", 6] == ("statements", "ADD COLUMN", "alter")
    assert found["statements", 10] == ("statements", "VACUUM", "vacuum")
    assert found["calls", 4] == ("calls", "MERGE", "merge")
    assert found["copied", 0] == ("statements", "CREATE TABLE AS SELECT", "create")
    counts = {(row["table_name"], row["version"]): row for row in ours}
    assert counts["frames", 0]["rows_added"] == 4
    assert counts["statements", 4]["rows_deleted"] == 1
    assert counts["calls", 4]["rows_updated"] == 1
    assert counts["frames", 0]["trace_id"] == TRACE[3:35]
    runs = {row["job"]: row["status"] for row in rows_of(ledger.root, RUNS) if row["job"]}
    assert {"frames", "statements", "calls"} <= runs.keys()
    assert CliRunner().invoke(app, ["audit", *tables[1:]]).exit_code == 0
    audited = CliRunner().invoke(app, ["audit", tables[0]])
    assert audited.exit_code == 1
    assert "of 1 table: 1 without the standard metadata" in audited.output


COMMANDS = (
    ["reconcile", "orders", "--apply", "--root", "ledger"],
    ["writes", "--root", "ledger"],
    ["runs", "--root", "ledger"],
    ["audit", "orders"],
)


def blocks_of(page):
    """Return the text blocks of a page in `docs`."""
    text = (REPOSITORY / "docs" / page).read_text()
    return [part.split("```")[0] for part in text.split("```text\n")[1:]]


def transcript_of(program, path, monkeypatch):
    """Return the output of an example and of commands after it, with ids and times masked."""
    monkeypatch.chdir(program.folder)
    monkeypatch.setenv("COLUMNS", "120")
    mask = load_example("ledger_transcript").Mask()
    lines = [f"$ python examples/{path} .\n", program.stdout]
    for command in COMMANDS:
        output = CliRunner().invoke(app, command).output
        lines += [f"$ deltawitness {' '.join(command)}\n", *map(stripped, output.splitlines())]
    return mask(DURATION.sub(zero, "".join(lines)))


DURATION = re.compile(r"\b\d+\.\d{3}\b")


def zero(found):
    """Return a duration of zero in the width of another one."""
    return "0.000".rjust(len(found[0]))


def stripped(line):
    """Return a line of the console without the spaces at its end."""
    return line.rstrip() + "\n"


def test_the_example_of_spark_is_the_transcript_on_the_page(tmp_path, monkeypatch):
    """Writes, a MERGE and a stream of Spark, then the rows and runs of the ledger."""
    program = run_program(REPOSITORY / "examples/spark_observed.py", tmp_path)
    assert transcript_of(program, "spark_observed.py", monkeypatch) in blocks_of("spark.md")


def test_the_example_of_lakesail_is_the_transcript_on_the_page(tmp_path, monkeypatch):
    """DataFrame writes of LakeSail, then the rows and runs of the ledger."""
    program = run_program(REPOSITORY / "examples/sail_observed.py", tmp_path)
    assert transcript_of(program, "sail_observed.py", monkeypatch) in blocks_of("spark.md")
