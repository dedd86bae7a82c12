"""Commits whose metadata is in `userMetadata` alone, as those of an observed Spark session, become rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from deltawitness import DeltaLakeInstrumentor, Ledger, run
from deltawitness.cli.app import app
from deltawitness.commit.metadata import keys_of_run
from deltawitness.commit.reader import read_commit_metadata
from deltawitness.ledger.tables.operation_names import cache_operation_of, operation_of
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.run_context import CacheContext, RunContext
from deltawitness.run_origin import RunOrigin
from deltawitness.semconv import CacheOperation, CacheScope, CommitKey, Operation
from helpers.ledger_parts import one, rows_of
from helpers.reconcile_parts import add_commit, now_ms, observe

RUN = RunContext(
    "run-of-spark", "nightly", message="load", origin=RunOrigin(code_version="abc1234")
)
WRITE_IDS = [f"0190a1b2-0000-7000-8000-{number:012d}" for number in range(4)]


def commit_of_spark(table, version, operation="WRITE", **keys):
    """Add a commit with a file by Spark, an hour ago."""
    Path(table, "_delta_log").mkdir(parents=True, exist_ok=True)
    metadata = {"id": "id-1", "format": {"provider": "parquet"}, "schemaString": "{}"}
    info = {
        "timestamp": now_ms() - 3_600_000 + version,
        "operation": operation,
        "operationParameters": {"mode": "Append"},
        "operationMetrics": {"numFiles": "1", "numOutputRows": "5", "numOutputBytes": "99"},
        "engineInfo": "Apache-Spark/4.2.0 Delta-Lake/4.4.0",
        "userMetadata": json.dumps({**keys_of_run(RUN, CacheContext()), **keys}),
    }
    created = [] if version else [{"metaData": metadata}]
    added = {"add": {"path": f"{version}.parquet", "size": 99, "dataChange": True}}
    add_commit(table, version, {"commitInfo": info}, *created, added)


@pytest.mark.slow
def test_each_commit_has_a_row_with_the_run_and_the_job(tmp_path):
    """A commit with a write id is the row of that write; one without, of a stream, has its own row."""
    table = str(tmp_path / "orders")
    commit_of_spark(table, 0, write_id=WRITE_IDS[0])
    commit_of_spark(table, 1, "STREAMING UPDATE")
    commit_of_spark(table, 2, "STREAMING UPDATE")
    commit_of_spark(table, 3, "VACUUM START", write_id=WRITE_IDS[1])
    commit_of_spark(table, 4, "VACUUM END", write_id=WRITE_IDS[1])
    ledger = Ledger(tmp_path / "ledger")
    plan = ledger.reconcile([table])
    assert (len(plan.missing), plan.foreign) == (4, ())
    assert plan.apply() == 4
    rows = rows_of(ledger.root, INVENTORY, order="version")
    assert [row["versions"] for row in rows] == [[0], [1], [2], [3, 4]]
    assert {row["source"] for row in rows} == {"spark"}
    assert {(row["run_id"], row["job"], row["message"]) for row in rows} == {
        ("run-of-spark", "nightly", "load")
    }
    assert [row["write_id"] for row in rows if row["version"] in {0, 4}] == WRITE_IDS[:2]
    streamed = {row["write_id"] for row in rows if row["version"] in {1, 2}}
    assert len(streamed) == 2
    assert all(name.startswith("spark:") for name in streamed)
    assert [row["cache_operation"] for row in rows] == ["write", "write", "write", "vacuum"]
    (found,) = rows_of(ledger.root, RUNS)
    assert (found["job"], found["status"], found["writes"]) == ("nightly", "reconstructed", 4)
    assert ledger.reconcile([table], full=True).is_clean


@pytest.mark.slow
def test_a_recorded_run_includes_its_writes_by_spark(tmp_path):
    """The process counts its own writes, and the reconcile adds those that Spark has made in the run."""
    table, ours = str(tmp_path / "orders"), str(tmp_path / "ours")
    ledger = Ledger(tmp_path / "ledger")
    observe(str(ledger.root.uri))
    with run("nightly", run_id=RUN.run_id):
        write_deltalake(ours, one(1))
        commit_of_spark(table, 0, write_id=WRITE_IDS[0])
        assert ledger.reconcile([table]).apply() == 1
    DeltaLakeInstrumentor().uninstrument()
    commit_of_spark(table, 1, "STREAMING UPDATE")
    assert ledger.reconcile([table]).apply() == 1
    (found,) = ledger.runs().to_pylist()
    assert (found["status"], found["writes"], found["rows_added"]) == ("ok", 3, 11)
    assert found["tables_touched"] == 2


def test_an_adopt_infers_no_run_for_them(tmp_path):
    """They have a run."""
    table = str(tmp_path / "orders")
    commit_of_spark(table, 0, "STREAMING UPDATE")
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.adopt([table]).operations == 1
    (row,) = rows_of(ledger.root, INVENTORY)
    assert (row["run_id"], row["source"]) == ("run-of-spark", "spark")


def test_an_audit_requires_what_spark_can_write(tmp_path):
    """The operation is that of the commit, and a commit of a stream has no write id."""
    table = str(tmp_path / "orders")
    commit_of_spark(table, 0, "STREAMING UPDATE")
    assert CliRunner().invoke(app, ["audit", table]).exit_code == 0
    add_commit(table, 1, {"commitInfo": {"operation": "WRITE", "userMetadata": '{"a": 1}'}})
    audited = CliRunner().invoke(app, ["audit", table])
    assert audited.exit_code == 1
    assert "2 commits of 1 table: 1 without the standard metadata" in audited.output


def test_the_metadata_are_read_from_the_text(tmp_path):
    """The keys of run, job and origin are there, without those that only delta-rs writes."""
    table = str(tmp_path / "orders")
    commit_of_spark(table, 0, write_id=WRITE_IDS[0])
    commit = read_commit_metadata(table)
    assert commit.is_from_spark
    assert (commit.run_id, commit.write_id) == ("run-of-spark", WRITE_IDS[0])
    assert commit.witness[CommitKey.CODE_VERSION] == "abc1234"
    assert CommitKey.CACHE_OPERATION not in commit.witness


def test_the_context_of_the_cache_is_in_the_metadata():
    """Policy, scope and message are those of the context, and the key is hashed."""
    context = CacheContext("daily", CacheScope.VIEW, "secret/key", "by hand")
    keys = keys_of_run(RUN, context)
    assert (keys["cache_policy"], keys["cache_scope"], keys["message"]) == (
        *("daily", "view", "by hand"),
    )
    assert "secret" not in keys["cache_key"]
    assert keys_of_run(RUN, CacheContext())["cache_policy"] == "unmanaged"


@pytest.mark.parametrize(
    ("name", "operation", "cache_operation"),
    [
        ("WRITE", Operation.WRITE, CacheOperation.WRITE),
        ("STREAMING UPDATE", None, CacheOperation.WRITE),
        ("CREATE TABLE AS SELECT", None, CacheOperation.CREATE),
        ("CREATE OR REPLACE TABLE AS SELECT", None, CacheOperation.CREATE),
        ("REPLACE TABLE AS SELECT", None, CacheOperation.CREATE),
        ("ADD COLUMNS", Operation.ADD_COLUMNS, CacheOperation.ALTER),
        ("VACUUM END", Operation.VACUUM, CacheOperation.VACUUM),
        ("TRUNCATE", None, CacheOperation.DELETE),
        ("UPGRADE PROTOCOL", None, CacheOperation.ALTER),
        ("CLONE", None, CacheOperation.CREATE),
    ],
)
def test_names_of_operations_of_spark(name, operation, cache_operation):
    """Each name has an operation of the ledger; its own name stays where there is no such operation."""
    assert operation_of(name) is operation
    assert cache_operation_of(name) is cache_operation
