"""Killed drivers and workers: the rows of a key are in the table once, in one commit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness.instrumentation import DeltaLakeInstrumentor
from helpers.engine_versions import needs_deltalake
from helpers.new_processes import start_process
from programs import distributed_driver as driver

pytestmark = [
    pytest.mark.slow,
    needs_deltalake("1.6.3", "write transactions contain no application transactions"),
]

COUNT = 3


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "t")


@pytest.fixture(autouse=True)
def instrumented():
    DeltaLakeInstrumentor().instrument()


def found_ids(uri):
    return Counter(DeltaTable(uri).to_pyarrow_table()["id"].to_pylist())


def staged_files(uri):
    return {str(path.relative_to(uri)) for path in Path(uri).glob("staging-*/*.parquet")}


def check_cleaned(uri):
    """Remove the orphans by VACUUM and check that every remaining staged file belongs to the table."""
    table = DeltaTable(uri)
    before = found_ids(uri)
    removed = table.vacuum(
        retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True
    )
    live = {path.removeprefix(f"{uri}/") for path in DeltaTable(uri).file_uris()}
    assert staged_files(uri) <= live
    assert found_ids(uri) == before
    return removed


@pytest.mark.parametrize("exists", [True, False], ids=["existing table", "new table"])
@pytest.mark.parametrize("die", [driver.die_before_commit, driver.die_after_commit])
def test_a_killed_driver_is_repeated_with_the_same_key(die, exists, uri):
    """Exactly one commit, whether the driver died before or after it; the orphans are removed."""
    if exists:
        write_deltalake(uri, driver.Part(9)())
    process, _ = start_process(die, uri, COUNT)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    result = driver.write_once(uri, COUNT)
    again = driver.write_once(uri, COUNT)
    assert result.is_new is (die is driver.die_before_commit)
    assert (again.version, again.is_new, again.rows) == (result.version, False, 10 * COUNT)
    assert DeltaTable(uri).version() == result.version == int(exists)
    rows = list(range(10 * COUNT)) + (list(range(90, 100)) if exists else [])
    assert found_ids(uri) == dict.fromkeys(rows, 1)
    removed = check_cleaned(uri)
    orphans = {path for path in removed if path.endswith(".parquet")}
    assert len(orphans) == (COUNT if die is driver.die_before_commit else 0)


def test_a_killed_worker_fails_the_write_and_the_next_call_commits_once(uri, tmp_path):
    """The pool is broken, nothing is committed, and the next call writes all parts."""
    write_deltalake(uri, driver.Part(9)())
    fatal = tmp_path / "fatal"
    fatal.touch()
    with pytest.raises(BrokenProcessPool):
        driver.write_with_fatal_part(uri, COUNT, str(fatal))
    assert DeltaTable(uri).version() == 0
    result = driver.write_with_fatal_part(uri, COUNT, str(fatal))
    assert (result.version, result.rows) == (1, 10 * COUNT)
    assert set(found_ids(uri).values()) == {1}
    check_cleaned(uri)


@pytest.mark.timeout(280)
def test_drivers_that_race_and_get_killed_commit_each_key_once(uri, size, say):
    """Several processes write under the same keys, and some get killed at random times."""
    processes, keys, kills = size(3, 4, 2), size(8, 60, 4), size(6, 60, 3)
    chance, killed = random.Random(keys), 0
    arguments = driver.write_many, uri, COUNT, keys
    running = [start_process(*arguments) for _ in range(processes)]
    deadline = time.monotonic() + 240
    while running:
        assert time.monotonic() < deadline
        process, receiving = entry = chance.choice(running)
        process.join(chance.uniform(0.05, 0.4))
        if process.exitcode is not None:
            assert process.exitcode == 0
            running.remove(entry)
        elif killed < kills and receiving.poll():
            os.kill(process.pid, signal.SIGKILL)
            process.join(60)
            running.remove(entry)
            running.append(start_process(*arguments))
            killed += process.exitcode == -signal.SIGKILL
    assert found_ids(uri) == dict.fromkeys(range(10 * COUNT), keys)
    assert DeltaTable(uri).version() == keys - 1
    removed = check_cleaned(uri)
    say(
        f"distributed: {keys} keys, {killed} kills: each committed once, {len(removed)} orphans removed"
    )
