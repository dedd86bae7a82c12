"""Upper bounds of the requests that an operation makes on an object store.

The bounds are exact numbers, without time: a change that adds a request fails here. The table in
`docs/overhead.md` has the same numbers.
"""

from __future__ import annotations

import itertools
import json
import os
import threading

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.fs import DeltaStorageHandler

from deltawitness import (
    DeltaCache,
    DeltaLakeInstrumentor,
    Ledger,
    ObservedSessionContext,
    Settings,
    flush,
    run,
)
from deltawitness.cache.read_through import ReadThroughCache
from deltawitness.commit.log import RemoteLog
from deltawitness.delta_rs import handle_cache
from deltawitness.semconv import Env
from helpers.request_counts import command_line, counted, without_data

pytestmark = pytest.mark.slow

DATA = pa.table({"x": [1, 2]})
QUERY = "SELECT sum(x) AS s FROM t"


@pytest.fixture
def place(tmp_path):
    return f"s3://lake/{tmp_path.name}"


@pytest.fixture
def table(server, place):
    """The location of a table with one version and one file."""
    uri = f"{place}/t"
    write_deltalake(uri, DATA, storage_options=server.options)
    return uri


@pytest.fixture
def open_cache(server, place, table, tmp_path):
    """Open the cache in a new session that has registered the table."""

    def open_cache():
        ctx = ObservedSessionContext()
        ctx.register_delta("t", table, storage_options=server.options)
        settings = Settings(spool_dir=str(tmp_path / "spools"))
        return ctx, DeltaCache(ctx, f"{place}/cache", server.options, settings=settings)

    return open_cache


@pytest.fixture
def requests(server):
    """Return the requests of a call, including those of its observation."""

    def requests(act):
        def whole():
            act()
            flush()

        flush()
        return server.requests(whole)

    return requests


def overwrite(server, table, rows=DATA):
    write_deltalake(table, rows, mode="overwrite", storage_options=server.options)


def test_a_hit_takes_four_requests(open_cache, requests):
    """A hit reads the next commit and the last one, of the input and of the entry."""
    _, cache = open_cache()
    cache.view("v", QUERY)
    for _ in range(2):
        hit = requests(lambda: cache.view("v", QUERY))
        assert counted(hit) == {"GET commit": 4}
        assert sorted(line.split()[-1] for line in hit) == ["206", "206", "404", "404"]


def test_each_further_input_takes_two_requests(open_cache, requests, server, place):
    """The freshness of each input is checked, also when it has not changed."""
    ctx, cache = open_cache()
    write_deltalake(f"{place}/u", DATA, storage_options=server.options)
    ctx.register_delta("u", f"{place}/u", storage_options=server.options)
    query = "SELECT count(*) AS n FROM t JOIN u ON t.x = u.x"
    cache.view("v", query)
    assert counted(requests(lambda: cache.view("v", query))) == {"GET commit": 6}
    overwrite(server, f"{place}/u", pa.table({"x": [1]}))
    assert cache.view("v", query).to_pydict() == {"n": [1]}


def test_the_checks_of_a_hit_run_at_the_same_time(open_cache, server, place, monkeypatch):
    """Each request waits until all are there: the inputs' and the entry's, and a request alone would fail."""
    ctx, cache = open_cache()
    write_deltalake(f"{place}/u", DATA, storage_options=server.options)
    ctx.register_delta("u", f"{place}/u", storage_options=server.options)
    query = "SELECT count(*) AS n FROM t JOIN u ON t.x = u.x"
    cache.view("v", query)
    flush()  # the delivery of the writes reads commits, too
    together, reader = threading.Barrier(6, timeout=60), RemoteLog.reader

    def wait_for_all(log, versions):
        read = reader(log, versions)
        return lambda version: (together.wait(), read(version))[1]

    monkeypatch.setattr(RemoteLog, "reader", wait_for_all)
    assert str(cache.explain("v")) == "v: hit"


def test_an_entry_over_an_entry_is_a_hit(open_cache, requests, server, table):
    """The checks of both entries are separate; a change below is a miss of both."""
    _, cache = open_cache()
    for name, query in (("v", QUERY), ("w", "SELECT s + 1 AS s FROM v")):
        cache.view(name, query)
    hit = requests(lambda: cache.view("w", "SELECT s + 1 AS s FROM v"))
    assert counted(hit) == {"GET commit": 6}
    overwrite(server, table, pa.table({"x": [10]}))
    assert cache.view("w", "SELECT s + 1 AS s FROM v").to_pydict() == {"s": [11]}


def test_a_hit_of_another_process_opens_the_entry_once(open_cache, requests):
    """The first hit of a session opens the entry: four requests with one version, and two for the input."""
    open_cache()[1].view("v", QUERY)
    _, cache = open_cache()
    assert len(requests(lambda: cache.view("v", QUERY))) <= 7
    assert len(requests(lambda: cache.view("v", QUERY))) == 4


def test_a_miss_takes_few_requests_beyond_the_write(open_cache, requests, server, table):
    """A miss costs what its parts cost: reading the rows, the bare write, and the checks of the cache."""
    _, cache = open_cache()
    first = requests(lambda: cache.view("v", QUERY))
    assert without_data(first) <= 20
    for bound in (16, 16):
        overwrite(server, table)
        again = requests(lambda: cache.view("v", QUERY))
        assert without_data(again) <= bound
        assert counted(again)["GET data"] == 3


def test_an_entry_that_was_written_since_the_lookup_is_not_written_again(
    open_cache, server, place, monkeypatch
):
    """Between lookup and lock another session of this machine stores the entry, with one request less."""
    (_, first), (_, second) = open_cache(), open_cache()
    read = ReadThroughCache._read

    def read_and_wait(cache, definition):
        found = read(cache, definition)
        if cache is second._read_through:
            first.view("v", QUERY)
        return found

    monkeypatch.setattr(ReadThroughCache, "_read", read_and_wait)
    assert second.view("v", QUERY).to_pydict() == {"s": [3]}
    entry = DeltaTable(f"{place}/cache/cache_views/v", storage_options=server.options)
    assert entry.version() == 0


def test_changes_by_others_are_seen(open_cache, server, table, place):
    """With few requests, an entry is still not served after its input or its own table has changed."""
    _, cache = open_cache()
    assert cache.view("v", QUERY).to_pydict() == {"s": [3]}
    write_deltalake(table, DATA, mode="append", storage_options=server.options)
    assert cache.view("v", QUERY).to_pydict() == {"s": [6]}
    overwrite(server, table, pa.table({"x": [10]}))
    overwrite(server, table, pa.table({"x": [20]}))
    assert cache.view("v", QUERY).to_pydict() == {"s": [20]}
    _, other = open_cache()
    other.invalidate("v")
    assert str(cache.explain("v")) == "v: miss (invalidated)"
    assert cache.view("v", QUERY).to_pydict() == {"s": [20]}
    overwrite(server, f"{place}/cache/cache_views/v", pa.table({"s": [7]}))
    assert "another writer changed its table" in str(cache.explain("v"))


def test_a_table_that_was_created_again_is_seen(open_cache, server, table):
    """A table with the same number of versions and other content is not the one that was read."""
    _, cache = open_cache()
    overwrite(server, table)
    assert cache.view("v", QUERY).to_pydict() == {"s": [3]}
    store = DeltaStorageHandler(table, server.options)
    for version in range(2):
        store.delete_file(f"_delta_log/{version:020d}.json")
    write_deltalake(table, pa.table({"x": [5]}), storage_options=server.options)
    overwrite(server, table, pa.table({"x": [6]}))
    assert DeltaTable(table, storage_options=server.options).version() == 1
    assert cache.view("v", QUERY).to_pydict() == {"s": [6]}


def test_an_old_handle_lists_its_log(open_cache, requests, monkeypatch):
    """After some time a listing replaces the check of the next commit, which log cleanup could have deleted."""
    _, cache = open_cache()
    cache.view("v", QUERY)
    monkeypatch.setattr(handle_cache, "LISTED_AFTER_S", 0.0)
    listed = requests(lambda: cache.view("v", QUERY))
    assert counted(listed)["LIST log"] == 1


def test_a_log_is_listed_once_per_period(server, requests, table):
    """The listing of an old handle counts as new for the next check."""
    cache = handle_cache.HandleCache()

    def lease():
        with cache.lease(table, server.options) as handle:
            assert handle.version() == 0

    lease()
    for handle in itertools.chain(*cache._handles.values()):
        handle.listed -= handle_cache.LISTED_AFTER_S + 1
    assert [counted(requests(lease)).get("LIST log", 0) for _ in range(2)] == [1, 0]


def test_an_observed_append_takes_one_request_more(server, requests, place, table, tmp_path):
    """Observation reads the new commit; the ledger is written later, with no request of the append."""
    handle = DeltaTable(table, storage_options=server.options)
    bare = requests(lambda: write_deltalake(handle, DATA, mode="append"))
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(
        settings=Settings(cache_root=f"{place}/ledger", storage_options=server.options)
    )
    try:
        handle = DeltaTable(table, storage_options=server.options)
        observed = requests(lambda: write_deltalake(handle, DATA, mode="append"))
    finally:
        instrumentor.uninstrument()
    of_table = [line for line in observed if "/ledger/" not in line and "ledger%2F" not in line]
    assert len(of_table) <= len(bare) + 1


@pytest.fixture
def environment(server, place, tmp_path):
    """The environment of a command over a ledger with one run of one write, in one commit per table."""
    settings = Settings(
        cache_root=f"{place}/ledger",
        storage_options=server.options,
        spool_dir=str(tmp_path / "spools"),
    )
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(settings=settings)
    try:
        with run("nightly"):
            write_deltalake(f"{place}/w", DATA, storage_options=server.options)
        Ledger(settings=settings).drain()
    finally:
        instrumentor.uninstrument()
    options = json.dumps(server.options)
    return os.environ | {Env.CACHE_ROOT: f"{place}/ledger", Env.STORAGE_OPTIONS: options}


@pytest.mark.parametrize("command", ["runs", "writes"])
def test_a_listing_reads_one_table_and_each_file_once(requests, environment, command):
    """One request for each of shards, checkpoint, log, two or three commits; and for each data file."""
    listed = requests(lambda: command_line([command], environment))
    assert without_data(listed) <= 6
    assert counted(listed)["GET data"] <= 2
