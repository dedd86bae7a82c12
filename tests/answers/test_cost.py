"""`cost` says what jobs have written, rewritten, and left on the storage."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, cost, run
from helpers.histories import build_history

OPERATIONS_WITHOUT_BYTES = {"RESTORE", "CONVERT"}


@pytest.fixture
def lake(tmp_path):
    """A table of 100 rows by one job, rewritten by another."""
    root, uri = str(tmp_path / "ledger"), str(tmp_path / "t")
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=root))
    with run("load"):
        write_deltalake(uri, pa.table({"x": list(range(100))}))
    with run("fix"):
        DeltaTable(uri).update({"x": "x + 1000"}, predicate="x < 25")
    with run("compact"):
        write_deltalake(uri, pa.table({"x": [1]}), mode="append")
        DeltaTable(uri).optimize.compact()
    DeltaLakeInstrumentor().uninstrument()
    return root, uri


def actions(uri, version, name):
    path = Path(uri, "_delta_log", f"{version:020d}.json")
    found = (json.loads(line) for line in path.read_text().splitlines())
    return [each[name] for each in found if name in each]


def sizes(uri, version, name):
    return sum(action["size"] for action in actions(uri, version, name))


@pytest.mark.slow
def test_the_bytes_of_each_job_are_those_of_its_commits(lake):
    """Bytes are those of add and remove actions; of an UPDATE the part of the changed rows is new."""
    root, uri = lake
    by_job = {each.job: each for each in cost(uri, root=root).jobs}
    load, fix, compact = by_job["load"], by_job["fix"], by_job["compact"]
    assert (load.writes, load.bytes_written, load.amplification) == (1, sizes(uri, 0, "add"), 1.0)
    assert fix.bytes_written == sizes(uri, 1, "add")
    assert fix.amplification == pytest.approx(4.0, abs=0.01)
    assert (fix.held_files, fix.held_bytes) == (1, sizes(uri, 1, "remove"))
    assert compact.bytes_new == sizes(uri, 2, "add")
    assert compact.bytes_written == compact.bytes_new + sizes(uri, 3, "add")
    assert (compact.held_files, compact.bytes_removed) == (2, sizes(uri, 3, "remove"))


@pytest.mark.slow
def test_a_vacuum_releases_what_old_versions_hold(lake):
    """After a vacuum, no job holds bytes; commits of nobody observed have the job None."""
    root, uri = lake
    write_deltalake(uri, pa.table({"x": [2]}), mode="overwrite")
    held = {each.job: each.held_files for each in cost("t", root=root).jobs}
    assert held == {"load": 0, "fix": 1, "compact": 2, None: 1}
    DeltaTable(uri).vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert {each.held_files for each in cost("t", root=root).jobs} == {0}


@pytest.mark.slow
def test_jobs_and_times_are_filters(lake):
    """Other jobs and earlier commits are left out; without a listing, what is held is not known."""
    root, uri = lake
    assert [each.job for each in cost(root=root, job="fix").jobs] == ["fix"]
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    assert cost(root=root, since=tomorrow).jobs == ()
    assert len(cost(root=root, since=dt.datetime(2020, 1, 1)).jobs) == 3  # noqa: DTZ001 - in UTC
    assert {each.held_files for each in cost(uri, root=root, files=False).jobs} == {None}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_bytes_of_random_histories_are_those_of_their_logs(tmp_path, seed):
    """Over random histories, written and held bytes are those of the logs and of the storage."""
    history = build_history(tmp_path, seed)
    found = cost(root=history.root)
    assert found.notes == ()
    written = sum(
        sizes(history.uri(each.table), each.version, "add")
        for each in history.commits
        if each.is_observed and each.operation not in OPERATIONS_WITHOUT_BYTES
    )
    assert sum(each.bytes_written for each in found.jobs) == written
    held = 0
    for table in history.tables:
        active = {Path(uri).name for uri in DeltaTable(history.uri(table)).file_uris()}
        named = {
            action["path"]
            for commit in history.of(table)
            for action in actions(history.uri(table), commit.version, "add")
        }
        files = Path(history.uri(table)).glob("*.parquet")
        held += sum(
            each.stat().st_size for each in files if each.name not in active and each.name in named
        )
    assert sum(each.held_bytes for each in found.jobs) == held
