"""Racing and killed processes: every write of a key commits once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, once
from helpers.new_processes import start_process
from programs import once_crowd

pytestmark = pytest.mark.slow


@pytest.fixture
def instrumented():
    DeltaLakeInstrumentor().instrument()


def rows_in(folder):
    """Return how often each row is in the table."""
    rows = DeltaTable(f"{folder}/rows").to_pyarrow_table().to_pylist()
    return Counter((row["key"], row["part"]) for row in rows)


def run_and_kill(folder, processes, keys, kills, seed):
    """Run the work in processes, kill some at random times and start each again; return the kills."""
    chance, killed = random.Random(seed), 0
    arguments = once_crowd.work_through, str(folder), keys
    running = [start_process(*arguments) for _ in range(processes)]
    deadline = time.monotonic() + 240
    while running:
        assert time.monotonic() < deadline
        process, receiving = chance.choice(running)
        process.join(chance.uniform(0.05, 0.4))
        if process.exitcode is not None:
            assert process.exitcode == 0
            assert (receiving.recv(), receiving.recv()) == ("begun", keys)
            running.remove((process, receiving))
        elif killed < kills and receiving.poll():
            os.kill(process.pid, signal.SIGKILL)
            process.join(60)
            running.remove((process, receiving))
            running.append(start_process(*arguments))
            killed += process.exitcode == -signal.SIGKILL
    return killed


def test_each_key_commits_once_with_racing_and_killed_processes(tmp_path, size, say):
    """Processes race for the same keys, also to create the table; each write of a key commits once."""
    processes, keys, kills = size(8, 8, 4), size(30, 200, 8), size(12, 60, 3)
    write_deltalake(tmp_path / "counter", pa.table({"id": [0], "n": [0]}))
    killed = run_and_kill(tmp_path, processes, keys, kills, seed=keys)
    assert rows_in(tmp_path) == {(f"key-{n}", part): 1 for n in range(keys) for part in (0, 1)}
    counter = DeltaTable(tmp_path / "counter").to_pyarrow_table().to_pylist()
    counted = {row["id"]: row["n"] for row in counter}
    assert len(counted) == len(counter)
    merged = {n + 1: 1 for n in range(keys) if n % 4 == 1}
    assert counted == {0: len(range(0, keys, 4)), **merged}
    say(f"once: {processes} processes, {keys} keys, {killed} kills: every write once")


@pytest.mark.parametrize("die", [once_crowd.commit_and_die, once_crowd.create_and_die])
def test_a_killed_write_is_resolved_by_the_next_process(tmp_path, die, instrumented):
    """After a kill between commit and return, or between creation and commit, the rows are there once."""
    process, _ = start_process(die, str(tmp_path))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with once("load") as block:
        write_deltalake(tmp_path / "rows", once_crowd.rows_of("load", 0), mode="error")
    assert rows_in(tmp_path) == {("load", 0): 1}
    assert [(receipt.version, receipt.rows) for receipt in block.receipts] == [(1, 1)]
