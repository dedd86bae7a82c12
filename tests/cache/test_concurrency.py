"""Concurrent requests for one entry: one computation, no partial reads, and recovery after a kill."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from helpers.new_processes import PROCESSES, run_in_processes, start_process
from programs import cache_crowd


@pytest.fixture
def folder(tmp_path):
    """A folder with a Delta table of three rows."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2, 2]}))
    return tmp_path


RESULT = {"id": [1, 2], "n": [1, 2]}


def commits(folder, name="shared"):
    history = DeltaTable(folder / "cache" / "cache_views" / name).history()
    return Counter(commit["operation"] for commit in history)


def computations(folder):
    """Return how often the view was computed: its function is called once per partition."""
    path = folder / "computed"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
def test_processes_compute_an_absent_view_once(folder, size, say):
    """Several processes that request an absent view get its rows; one process computes and writes them."""
    processes = size(8, 8, 4)
    barrier = PROCESSES.Barrier(processes)
    results = run_in_processes(cache_crowd.ask, [(str(folder), barrier)] * processes)
    assert results == [(RESULT, {})] * processes
    assert (commits(folder), computations(folder)) == ({"WRITE": 1}, 1)
    say(f"cache: {processes} processes asked for one absent view: 1 commit, 1 computation")


@pytest.mark.slow
@pytest.mark.parametrize("is_one_session", [True, False], ids=["one session", "a session each"])
def test_sixteen_threads_compute_an_absent_view_once(folder, is_one_session):
    """Sixteen threads, with one shared session or a session each, compute an absent view once."""
    barrier = Barrier(16)
    shared = cache_crowd.open_cache(folder)
    cache_crowd.register_noted(shared[0], folder / "computed")

    def ask(_):
        ctx, cache = shared if is_one_session else cache_crowd.open_cache(folder)
        if not is_one_session:
            cache_crowd.register_noted(ctx, folder / "computed")
        barrier.wait(60)
        frame = cache.view("shared", cache_crowd.QUERY, functions={"noted": "1"})
        return frame.sort("id").to_pydict()

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(16))) == [RESULT] * 16
    assert (commits(folder), computations(folder)) == ({"WRITE": 1}, 1)


@pytest.mark.slow
def test_tasks_compute_an_absent_view_once(folder):
    """Tasks of an event loop, each in a thread, compute an absent view once."""
    ctx, cache = cache_crowd.open_cache(folder)
    cache_crowd.register_noted(ctx, folder / "computed")

    def ask():
        frame = cache.view("shared", cache_crowd.QUERY, functions={"noted": "1"})
        return frame.sort("id").to_pydict()

    async def all_of_them():
        return await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(8)))

    assert asyncio.run(all_of_them()) == [RESULT] * 8
    assert (commits(folder), computations(folder)) == ({"WRITE": 1}, 1)


def test_threads_that_compute_different_views_do_not_block_each_other(folder):
    """Two views whose computations wait for each other's threads are both computed."""
    both = Barrier(2)

    def ask(name):
        ctx, cache = cache_crowd.open_cache(folder)
        cache_crowd.register_noted(ctx, folder / name, lambda: both.wait(60))
        cache.view(name, "SELECT noted(id) AS id FROM t", functions={"noted": "1"})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, ["one", "two"]))
    assert commits(folder, "one") == commits(folder, "two") == {"WRITE": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "computed"), [("looking", 0), ("computing", 1), ("committing", 1)]
)
def test_the_next_process_recovers_from_a_killed_one(folder, moment, computed):
    """After a kill the next process gets the lock, serves what was committed, and finds nothing partial."""
    process, begun = start_process(cache_crowd.ask_and_die, str(folder), moment)
    assert begun.poll(60)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert computations(folder) == computed
    ctx, cache = cache_crowd.open_cache(folder)
    cache_crowd.register_noted(ctx, folder / "computed")
    frame = cache.view("shared", cache_crowd.QUERY, functions={"noted": "1"})
    assert frame.sort("id").to_pydict() == RESULT
    assert commits(folder) == {"WRITE": 1}
    assert computations(folder) == computed + (moment != "committing")


@pytest.mark.slow
def test_two_machines_race_without_stale_results(folder, size, say):
    """Without a common lock, one of two concurrent commits wins and no machine returns a stale result."""
    rounds = size(8, 60, 4)
    results = run_in_processes(cache_crowd.race, [(str(folder), n, rounds) for n in range(2)])
    assert [wrong for wrong, _ in results] == [[], []]
    assert [seen for _, seen in results] == [{}, {}]
    say(f"cache: two machines without a common lock, {2 * rounds} changes and asks: 0 old results")


@pytest.mark.slow
def test_readers_never_get_partial_results(folder, size, say):
    """Readers get complete results while the input changes and the view is recomputed."""
    rounds, begun, stop = size(8, 60, 4), PROCESSES.Barrier(4), PROCESSES.Event()
    readers = [start_process(cache_crowd.read, str(folder), begun, stop) for _ in range(3)]
    begun.wait(60)
    for number in range(rounds):
        write_deltalake(folder / "t", pa.table({"id": list(range(number))}), mode="append")
        _, cache = cache_crowd.open_cache(folder)
        cache.view("wide", "SELECT id, count(*) OVER () AS n FROM t")
    stop.set()
    results = [receiving.recv() for _, receiving in readers]
    for process, _ in readers:
        process.join(60)
    assert [(partial, seen) for partial, _, seen in results] == [([], {})] * 3
    reads = sum(reads for _, reads, _ in results)
    assert reads >= 6
    say(f"cache: {reads} reads beside {rounds} rewrites: none saw half of a result")
