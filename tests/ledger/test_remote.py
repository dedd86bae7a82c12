"""A ledger on S3-compatible storage, shared by many processes."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from datafusion import SessionContext
from deltalake import write_deltalake

from deltawitness import Ledger, Settings
from helpers.ledger_truth import (
    assert_recorded_at_most_once,
    assert_runs_are_closed,
    unrecorded_commits,
)
from helpers.new_processes import run_in_processes, start_process
from programs import ledger_crowd, ledger_writer

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(server, tmp_path, request):
    """Settings of a ledger on the server, with spools on the local disk."""
    return {
        "cache_root": f"s3://lake/{request.node.name.replace('[', '-').strip(']')}/cache",
        "storage_options": server.options,
        "spool_dir": str(tmp_path / "spool"),
    }


@pytest.mark.parametrize("where", ["local", "remote"])
def test_eight_writers_share_a_remote_ledger(settings, size, say, where):
    """Concurrent writers fail in no write, every commit gets a row, and each run is one row."""
    processes, writes = size((8, 3), (8, 50), (4, 2))
    is_local = where == "local"
    folder = settings["spool_dir"] if is_local else settings["cache_root"]
    options = None if is_local else settings["storage_options"]
    tables = [f"{folder}-t{number}" for number in range(4)]
    for table in tables:
        write_deltalake(table, pa.table({"x": [0]}), storage_options=options)
    results = run_in_processes(
        ledger_crowd.write_many,
        [
            (settings, tables, options, range(number, number + writes))
            for number in range(processes)
        ],
    )
    assert results == [(writes, [], {})] * processes
    ledger = Ledger(settings=Settings(**settings))
    left = ledger.drain()
    inventory = ledger.inventory().select("table_uri", "version", "write_id").to_arrow_table()
    versions = [(row["table_uri"], row["version"]) for row in inventory.to_pylist()]
    assert Counter(versions) == {
        (uri, version): 1
        for uri in {uri for uri, _ in versions}
        for version in range(1, processes * writes // len(tables) + 1)
    }
    assert len(versions) == len(set(inventory["write_id"].to_pylist())) == processes * writes
    runs = ledger.runs().select("status", "writes", "processes").to_arrow_table().to_pylist()
    assert runs == [{"status": "ok", "writes": writes, "processes": 1}] * processes
    verification = ledger.verify()
    assert (verification.findings, verification.waiting) == ((), 0)
    ctx = SessionContext()
    ledger.register(ctx)
    counted = ctx.sql("SELECT count(*) AS n FROM cache_ledger.inventory").to_pylist()
    assert counted == [{"n": processes * writes}]
    say(
        f"ledger on S3: {processes} processes x {writes} writes, tables {where}:"
        f" {len(versions)} rows, {left.adopted} spools left to the next drain"
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_a_writer_that_is_killed_is_told_by_the_next(settings, tmp_path, seed):
    """A killed writer's spool is drained by another process; a reconcile finds the other commits."""
    arguments = str(tmp_path), settings, seed, None
    writer, begun = start_process(ledger_writer.write_until_killed, *arguments)
    assert begun.poll(60)
    writer.join(0.3 * seed)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(60)
    ledger = Ledger(settings=Settings(**settings))
    places = [tmp_path / name for name in ledger_writer.TABLES]
    tables = [table for table in places if any(table.glob("_delta_log/*.json"))]
    ledger.drain()
    assert_recorded_at_most_once(ledger.root, *tables)
    assert_runs_are_closed(ledger.root)
    plan = ledger.reconcile(tables)
    plan.apply()
    assert_recorded_at_most_once(ledger.root, *tables)
    # Processes on other machines may use this ledger and may still record young commits.
    assert len(unrecorded_commits(ledger.root, *tables)) == plan.unsettled
    assert ledger.verify().is_good
    assert list(Path(settings["spool_dir"]).glob("**/*.seg")) == []
