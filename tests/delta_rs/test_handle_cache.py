"""A cached handle writes exactly what a fresh open would, whatever other writers do to its table."""

from __future__ import annotations

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from deltawitness.delta_rs import handle_cache
from deltawitness.delta_rs.handle_cache import HandleCache


def rows(*ids):
    return pa.table({"id": pa.array(ids, pa.int64())})


def ids(uri):
    return sorted(DeltaTable(uri).to_pyarrow_table()["id"].to_pylist())


# --- writes by URI and through the cache -------------------------------------------------------------


def by_uri(uri, data, mode):
    write_deltalake(uri, data, mode=mode)


def through(cache):
    def write(uri, data, mode):
        with cache.lease(uri) as table:
            write_deltalake(uri if table is None else table, data, mode=mode)

    return write


# --- what a second writer does in between ------------------------------------------------------------


def nothing(uri):
    """Do nothing to the table."""


def append(uri):
    write_deltalake(uri, rows(100), mode="append")


def overwrite(uri):
    write_deltalake(uri, rows(200), mode="overwrite")


def delete(uri):
    DeltaTable(uri).delete("id < 2")


def optimize(uri):
    DeltaTable(uri).optimize.compact()


def vacuum(uri):
    DeltaTable(uri).vacuum(0, dry_run=False, enforce_retention_duration=False)


def checkpoint(uri):
    DeltaTable(uri).create_checkpoint()


def recreate(uri):
    versions = DeltaTable(uri).version()
    shutil.rmtree(uri)
    write_deltalake(uri, rows(300))
    for _ in range(versions):  # the same version that the handle has read
        write_deltalake(uri, rows(301), mode="append")


def remove(uri):
    shutil.rmtree(uri)


SECOND_WRITER = [nothing, append, overwrite, delete, optimize, vacuum, checkpoint, recreate, remove]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["append", "overwrite"])
@pytest.mark.parametrize("act", SECOND_WRITER, ids=lambda act: act.__name__)
def test_after_anything_a_second_writer_does_the_rows_are_those_of_a_fresh_open(
    act, mode, tmp_path
):
    """Each action of a second writer is run between two writes through the cache."""
    for place, write in (("kept", through(HandleCache())), ("twin", by_uri)):
        uri = tmp_path / place
        for i in range(3):
            write(uri, rows(i), "append")
        act(uri)
        write(uri, rows(9), mode)
    assert ids(tmp_path / "kept") == ids(tmp_path / "twin")


@pytest.mark.slow
def test_at_every_interleaving_point_the_rows_are_those_of_a_fresh_open(tmp_path, size):
    """Every pair of actions around every pair of writes is run; every triple in the long run."""
    modes = ["append", "overwrite"]
    acts = [act for act in SECOND_WRITER if act is not remove]
    points = size(2, 3)
    plans = itertools.product(
        itertools.product(acts, repeat=points), itertools.product(modes, repeat=points)
    )
    # Steps that have no factor in common with the number of modes, so that each mode is chosen.
    plans = list(plans)[:: size(5, 1, 17)]
    for number, (between, writes) in enumerate(plans):
        results = []
        for place, write in (("kept", through(HandleCache())), ("twin", by_uri)):
            uri = tmp_path / f"{place}{number}"
            write(uri, rows(0), "append")
            write(uri, rows(1), "append")
            for act, (step, mode) in zip(between, enumerate(writes), strict=True):
                act(uri)
                write(uri, rows(10 + step), mode)
            results.append(ids(uri))
            shutil.rmtree(uri)
        assert results[0] == results[1], (between, writes)
    print(f"{len(plans)} interleavings compared")
    assert len(plans) >= size(50, 64, 16)


def test_a_handle_of_an_unchanged_table_is_reused(tmp_path):
    """Without another writer, leases get the same handle."""
    write_deltalake(tmp_path, rows(0))
    cache, seen = HandleCache(), set()
    for i in range(5):
        with cache.lease(tmp_path) as table:
            seen.add(id(table))
            write_deltalake(table, rows(i), mode="append")
    assert len(seen) == 1


def test_a_handle_is_dropped_after_a_checkpoint(tmp_path):
    """Any checkpoint drops the handle, as an old handle gets slower with every commit."""
    write_deltalake(tmp_path, rows(0), configuration={"delta.checkpointInterval": "3"})
    cache, tables = HandleCache(), []
    for i in range(6):
        with cache.lease(tmp_path) as table:
            tables.append(table)
            write_deltalake(table, rows(i), mode="append")
    assert [table.version() for table in tables[-1:]] == [6]
    assert 1 < len({id(table) for table in tables}) < 6
    assert ids(tmp_path) == [0, 0, 1, 2, 3, 4, 5]


def test_a_handle_is_dropped_after_a_checkpoint_of_another_writer(tmp_path):
    """A checkpoint makes no commit, so the log has no later version."""
    write_deltalake(tmp_path, rows(0))
    cache = HandleCache()
    with cache.lease(tmp_path) as first:
        pass
    with cache.lease(tmp_path) as same:
        pass
    DeltaTable(tmp_path).create_checkpoint()
    with cache.lease(tmp_path) as second:
        pass
    assert same is first
    assert second is not first


def test_after_an_exception_a_handle_is_not_used_again(tmp_path):
    """A lease that ended in an exception does not return its handle to the cache."""
    write_deltalake(tmp_path, rows(0))
    cache = HandleCache()
    with pytest.raises(KeyError), cache.lease(tmp_path) as first:
        raise KeyError
    with cache.lease(tmp_path) as second:
        assert second is not first


def test_a_missing_table_is_none_until_it_is_created(tmp_path):
    """A missing table is None; after the first write has created it, it is opened."""
    cache = HandleCache()
    with cache.lease(tmp_path / "t") as table:
        assert table is None
        write_deltalake(tmp_path / "t", rows(1))
    with cache.lease(tmp_path / "t") as table:
        assert table.version() == 0


def test_storage_options_are_part_of_the_key(tmp_path):
    """Other storage options get another handle."""
    write_deltalake(tmp_path, rows(0))
    cache = HandleCache()
    with cache.lease(tmp_path, {"a": "1"}) as first:
        pass
    with cache.lease(tmp_path, {"a": "2"}) as second:
        assert second is not first
    with cache.lease(f"{tmp_path}/", {"a": "1"}) as third:
        assert third is first


def test_the_least_recently_used_table_goes_first(tmp_path):
    """The number of cached tables is bounded."""
    cache, first = HandleCache(capacity=2), {}
    for name in ("a", "b", "c"):
        write_deltalake(tmp_path / name, rows(0))
        with cache.lease(tmp_path / name) as first[name]:
            pass
    for name, is_kept in (("c", True), ("b", True), ("a", False)):
        with cache.lease(tmp_path / name) as again:
            assert (again is first[name]) == is_kept


def test_the_handles_of_one_table_are_bounded(tmp_path):
    """More threads that write to it at the same time open it anew."""
    write_deltalake(tmp_path, rows(0))
    cache, opened = HandleCache(), []
    for _ in range(2):
        with ExitStack() as stack:
            opened += [stack.enter_context(cache.lease(tmp_path)) for _ in range(6)]
    assert len({id(table) for table in opened}) == 2 * 6 - handle_cache.HANDLES_PER_TABLE


def test_a_remote_log_is_listed_now_and_then(tmp_path, monkeypatch):
    """A handle is older than the retention of the log if the next commit has been deleted."""
    monkeypatch.setattr(handle_cache, "local_log_directory", lambda _: None)
    write_deltalake(tmp_path, rows(0))
    cache = HandleCache()
    with cache.lease(tmp_path):
        pass
    append(tmp_path)
    append(tmp_path)
    checkpoint(tmp_path)
    (tmp_path / "_delta_log" / f"{1:020}.json").unlink()
    monkeypatch.setattr(handle_cache, "LISTED_AFTER_S", -1.0)
    with cache.lease(tmp_path) as table:
        assert table.version() == 2


def test_a_cleared_cache_is_empty(tmp_path):
    """After `clear()`, the next lease opens the table again."""
    write_deltalake(tmp_path, rows(0))
    cache = HandleCache()
    with cache.lease(tmp_path) as first:
        pass
    cache.clear()
    with cache.lease(tmp_path) as second:
        assert second is not first


@pytest.mark.slow
def test_threads_never_share_a_handle_and_lose_no_append(tmp_path, size):
    """Eight threads append through one cache; each handle is used by one thread at a time."""
    write_deltalake(tmp_path, rows(-1))
    cache, under_way = HandleCache(), set()
    count = size(64, 400, 32)

    def write(i):
        with cache.lease(tmp_path) as table:
            assert id(table) not in under_way
            under_way.add(id(table))
            try:
                write_deltalake(table, rows(i), mode="append")
            finally:
                under_way.discard(id(table))

    def write_until_committed(i):
        for _ in range(100):
            try:
                return write(i)
            except CommitFailedError:  # the engine gave up after 15 tries: nothing was written
                continue
        return pytest.fail("100 times 15 tries, and never committed")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_until_committed, range(count)))
    assert ids(tmp_path) == [-1, *range(count)]


def test_after_a_fork_the_cache_is_empty(tmp_path, monkeypatch):
    """The engine's runtime does not survive a fork, so a child starts with an empty cache."""
    write_deltalake(tmp_path, rows(0))
    cache = HandleCache()
    with cache.lease(tmp_path) as first:
        pass
    monkeypatch.setattr("os.getpid", lambda: -1)
    with cache.lease(tmp_path) as second:
        assert second is not first
