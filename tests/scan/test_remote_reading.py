"""A session reads a table on an object store as one on a disk, for every way of registering it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
from datafusion import SessionContext
from datafusion.catalog import Table
from deltalake import DeltaTable, write_deltalake

from deltawitness import DataFusionInstrumentor, DeltaCache, ObservedSessionContext, suppressed
from deltawitness.scan.dataset import DeltaDataset
from deltawitness.session.core.table_providers import provider_of

NAN = float("nan")

DATA = pa.table(
    {
        "id": pa.array([1, 2, 3, 4, 5], pa.int32()),
        "x": [1.0, NAN, 3.0, None, -0.0],
        "s": ["a", "B", "a b", None, ""],
        "part": ["p", "p", "q", None, "q"],
    }
)


@pytest.fixture
def options(server, monkeypatch):
    """Storage options, also in the environment for statements that cannot pass them."""
    for name, value in server.options.items():
        monkeypatch.setenv(name, value)
    return server.options


@pytest.fixture
def table(request, options):
    """The location of a new table with two versions: all rows, and all but one."""
    uri = f"s3://lake/reading/{request.node.name.strip(']').replace('[', '-')}"
    with suppressed():
        write_deltalake(uri, DATA, partition_by=["part"], storage_options=options)
        DeltaTable(uri, storage_options=options).delete("id = 5")
    return uri


# --- ways of registering a table -------------------------------------------------------------------


def _register_delta(ctx, uri, options):
    ctx.register_delta("t", uri, storage_options=options)


def _register_table(ctx, uri, options):
    ctx.register_table("t", DeltaTable(uri, storage_options=options))


def _register_by_keyword(ctx, uri, options):
    ctx.register_table("t", table=DeltaTable(uri, storage_options=options))


def _register_provider(ctx, uri, options):
    ctx.register_table_provider("t", DeltaTable(uri, storage_options=options))


def _register_in_schema(ctx, uri, options):
    ctx.catalog().schema().register_table("t", DeltaTable(uri, storage_options=options))


def _register_in_schema_of_a_plain_session(ctx, uri, options):
    ctx.catalog("datafusion").schema("public").register_table(
        name="t", table=DeltaTable(uri, storage_options=options)
    )


def _register_view(ctx, uri, options):
    ctx.register_view("t", ctx.read_table(DeltaTable(uri, storage_options=options)))


def _create_external(ctx, uri, options):
    listed = ", ".join(f"'{name}' '{value}'" for name, value in options.items())
    ctx.sql(f"CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{uri}' OPTIONS ({listed})")


def _create_external_by_environment(ctx, uri, _):
    ctx.sql(f"CREATE EXTERNAL TABLE t STORED AS DELTATABLE LOCATION '{uri}'")


WAYS = (
    _register_delta,
    _register_table,
    _register_by_keyword,
    _register_provider,
    _register_in_schema,
    _register_in_schema_of_a_plain_session,
    _register_view,
    _create_external,
    _create_external_by_environment,
)


@contextmanager
def _observed():
    yield ObservedSessionContext()


@contextmanager
def _patched():
    DataFusionInstrumentor().instrument()
    try:
        yield SessionContext()
    finally:
        DataFusionInstrumentor().uninstrument()


def ids(ctx, condition, name="t"):
    found = ctx.sql(f"SELECT id FROM {name} WHERE {condition}").to_pydict()["id"]
    return sorted(found)


@pytest.mark.filterwarnings("ignore:Use register_table:DeprecationWarning")
@pytest.mark.parametrize("session", [_observed, _patched])
@pytest.mark.parametrize("register", WAYS, ids=lambda way: way.__name__.strip("_"))
@pytest.mark.slow
@pytest.mark.one_case_in(3)
def test_every_method_of_registration_reads_the_same_rows(table, options, register, session):
    """Each way reads the same rows; NaN is above every number, and NULL is neither in a list nor not in it."""
    with session() as ctx:
        register(ctx, table, options)
        assert ids(ctx, "x > 1") == [2, 3]
        assert ids(ctx, "NOT (x IN (1.0, 3.0, 7.0, 8.0))") == [2]
        assert ids(ctx, "s NOT IN ('a', 'x', 'y', 'z')") == [2, 3]
        assert ids(ctx, "part IS NULL") == [4]
        assert ctx.sql("SELECT count(*) AS n FROM t").to_pydict() == {"n": [4]}


@pytest.mark.parametrize("session", [_observed, _patched])
def test_a_frame_over_an_open_table_reads(table, options, session):
    """`read_table` accepts an open table by position and by keyword."""
    with session() as ctx:
        opened = DeltaTable(table, storage_options=options)
        for frame in (ctx.read_table(opened), ctx.read_table(table=opened)):
            assert sorted(frame.filter("x > 1").to_pydict()["id"]) == [2, 3]
            assert frame.count() == 4


def test_a_fixed_version_is_unchanged_by_later_writes(table, options):
    """A version fixed by number, by a handle or by a statement does not change."""
    ctx = ObservedSessionContext()
    ctx.register_delta("a", table, version=0, storage_options=options)
    ctx.register_table("b", DeltaTable(table, version=0, storage_options=options))
    ctx.sql(
        f"CREATE EXTERNAL TABLE c STORED AS DELTATABLE LOCATION '{table}' OPTIONS ('version' '0')"
    )
    write_deltalake(table, DATA, mode="append", storage_options=options)
    ctx.refresh()
    for name in "abc":
        assert ids(ctx, "x > 1 OR x = 0.0 OR id = 5", name) == [2, 3, 5]


def test_a_registered_table_is_pinned_against_changes_of_its_handle(table, options):
    """Later changes of a handle do not change a registered table, as with the engine's provider."""
    handle = DeltaTable(table, storage_options=options)
    ctx = ObservedSessionContext()
    ctx.register_table("t", handle)
    frame = ctx.table("t")
    write_deltalake(handle, DATA, mode="append")
    assert frame.count() == ctx.table("t").count() == 4
    ctx.refresh("t")
    assert (frame.count(), ctx.table("t").count()) == (4, 9)


@pytest.mark.slow
def test_own_writes_are_served_at_once_and_views_follow(table, options):
    """Views follow INSERT, UPDATE, DELETE, MERGE and INSERT OVERWRITE, with NaN and NULL values."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table, storage_options=options)
    ctx.sql("CREATE VIEW big AS SELECT id FROM t WHERE x > 1")
    ctx.sql("INSERT INTO t SELECT id + 10, x, s, part FROM t WHERE x > 1").collect()
    assert ids(ctx, "true", "big") == [2, 3, 12, 13]
    ctx.sql("UPDATE t SET x = 0 WHERE x > 1 AND id IN (SELECT id FROM big WHERE id > 10)").collect()
    assert ids(ctx, "true", "big") == [2, 3]
    ctx.sql("DELETE FROM t WHERE x > 3").collect()
    assert ids(ctx, "true", "big") == [3]
    ctx.sql(
        "MERGE INTO t USING (SELECT id FROM t WHERE x = 0.0) AS s ON t.id = s.id"
        " WHEN MATCHED THEN UPDATE SET x = 'NaN'"
    ).collect()
    assert ids(ctx, "true", "big") == [3, 12, 13]
    ctx.sql("INSERT OVERWRITE t SELECT * FROM t WHERE x > 3").collect()
    assert ids(ctx, "true") == [12, 13]


@pytest.mark.slow
def test_a_cache_on_an_object_store_serves_what_was_computed(table, options):
    """A remote cache entry is read like its remote source."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table, storage_options=options)
    cache = DeltaCache(ctx, f"{table}-cache", storage_options=options)
    for _ in range(2):
        cache.view("kept", ctx.sql("SELECT id, x FROM t WHERE x > 1 OR x IS NULL"))
        assert str(cache.explain("kept")) == "kept: hit"
        assert ids(ctx, "x > 1", "kept") == [2, 3]
        assert ids(ctx, "x IS NULL", "kept") == [4]


# --- plans -----------------------------------------------------------------------------------------


def test_each_scan_of_a_plan_has_its_own_filter(table, options):
    """Self joins, subqueries, unions, repeated and derived frames use the filter of each scan."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table, storage_options=options)
    joined = (
        "SELECT a.id, b.id AS other FROM t a JOIN t b ON a.id + 1 = b.id WHERE a.x > 1 AND b.id < 4"
    )
    assert ctx.sql(joined).to_pydict() == {"id": [2], "other": [3]}
    union = "SELECT id FROM t WHERE id = 1 UNION ALL SELECT id FROM t WHERE id > 3"
    assert sorted(ctx.sql(union).to_pydict()["id"]) == [1, 4]
    assert ids(ctx, "id IN (SELECT id FROM t WHERE x > 1) AND id < 3") == [2]
    frame = ctx.table("t").filter("id > 1")
    narrower = frame.filter("part = 'p'")
    for _ in range(2):
        assert sorted(frame.to_pydict()["id"]) == [2, 3, 4]
        assert narrower.to_pydict()["id"] == [2]


def test_queries_run_side_by_side(table, options):
    """Concurrent executions have separate streams."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table, storage_options=options)
    found = {}

    def run(number):
        found[number] = ids(ctx, f"id > {number} AND (x > 1 OR x IS NULL)")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [i for i in (2, 3, 4) if i > n] for n in range(5)}


def test_types_are_those_of_the_engines_own_provider(table, options):
    """Strings are string views as in the engine's provider, so that plans, casts and hashes agree."""
    opened = DeltaTable(table, storage_options=options)
    assert DeltaDataset(opened).schema.equals(Table(opened).schema, check_metadata=True)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("id = NULL AND part = 'p'", []),
        ("part = 'p' AND id = NULL", []),
        ("x > -'NaN'::double", [1, 2, 3]),
    ],
)
def test_filters_that_cannot_be_pushed_down_stay_above_the_scan(
    table, options, condition, expected
):
    """A filter that cannot be pushed down (a constant first, an unusual NaN) is applied above the scan."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table, storage_options=options)
    assert ids(ctx, condition) == expected
    assert sorted(ctx.table("t").filter(condition).to_pydict()["id"]) == expected
    ctx.sql(f"INSERT INTO t SELECT * FROM t WHERE {condition}").collect()
    assert ctx.table("t").count() == 4 + len(expected)


@pytest.mark.slow
def test_a_selective_query_reads_only_files_that_may_match(server, table, options):
    """Partitions, integers and strings skip files; floats do not, because statistics ignore NaN."""
    uri = f"{table}-files"
    with suppressed():
        for start in range(0, 500, 100):
            rows = {
                "id": range(start, start + 100),
                "x": np.arange(start, start + 100, dtype=float),
                "s": [f"row {start + n:06}" + "z" * 100 for n in range(100)],
                "part": [f"p{start}"] * 100,
            }
            write_deltalake(
                uri, pa.table(rows), mode="append", partition_by=["part"], storage_options=options
            )
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri, storage_options=options)

    def files(condition, expected):
        found = {}
        lines = server.requests(lambda: found.update(ids=ids(ctx, condition)))
        assert found["ids"] == expected
        return len({line.split()[1] for line in lines if ".parquet" in line})

    assert files("id >= 250 AND id < 252", [250, 251]) == 1
    assert files("part = 'p300' AND x < 302", [300, 301]) == 1
    assert files("s = 'row 000123" + "z" * 100 + "'", [123]) == 1
    assert files("id IN (5, 6, 7, 450) AND x > 0", [5, 6, 7, 450]) == 2
    assert files("x > 498", [499]) == 5


def test_closing_the_reader_ends_the_scan(table, options):
    """A reached limit ends the thread that reads ahead."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table, storage_options=options)
    assert ctx.sql("SELECT id FROM t LIMIT 1").count() == 1
    stream = ctx.table("t").execute_stream()
    next(iter(stream))
    del stream
    ctx.sql("SELECT 1").collect()
    alive = [thread for thread in threading.enumerate() if thread.name == "deltawitness-scan"]
    for thread in alive:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM t",
        "SELECT * FROM t ORDER BY x",
        "SELECT *, row_number() OVER (ORDER BY s) AS n FROM t",
    ],
)
def test_delta_rs_takes_a_frame_over_a_remote_table(table, options, query, tmp_path):
    """delta-rs can write a frame over a remote table, though its threads may not block on its own runtime."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table, storage_options=options)
    write_deltalake(tmp_path / "out", ctx.sql(query))
    assert pa.table(DeltaTable(tmp_path / "out").scan()).num_rows == 4
    merger = DeltaTable(table, storage_options=options).merge(
        ctx.sql("SELECT * FROM t WHERE x > 1"), "t.id = s.id", source_alias="s", target_alias="t"
    )
    assert merger.when_matched_delete().execute()["num_target_rows_deleted"] == 2


def test_no_credential_shows(server, table):
    """No plan, repr or error of a table has the credentials that it is read with."""
    options = {**server.options, "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_ACCESS_KEY_ID": "AKIA2"}
    provider = provider_of(DeltaTable(table, storage_options=options))
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table, storage_options=options)
    frame = ctx.sql("EXPLAIN VERBOSE SELECT * FROM t WHERE x > 1")
    dataset = DeltaDataset(DeltaTable(table, storage_options=options))
    shown = [
        repr(provider),
        repr(ctx.table("t")),
        str(frame.to_pydict()),
        repr(dataset),
        repr(next(dataset.get_fragments())),
        repr(dataset.scanner()),
    ]
    with pytest.raises(Exception, match="nope") as raised:
        ctx.sql("SELECT nope FROM t").collect()
    shown.append(str(raised.value))
    assert not any(secret in text for text in shown for secret in ("hunter2", "AKIA2"))


FED = """
import sys, threading
from deltalake import DeltaTable, write_deltalake
from deltawitness import ObservedSessionContext

uri, out = sys.argv[1:]
ctx = ObservedSessionContext()
ctx.register_delta("t", uri)
for name in "abc":
    write_deltalake(f"{out}/{name}", ctx.table("t").limit(1).to_arrow_table())
ctx.register_delta("a", f"{out}/a")

def merge():
    source = ctx.sql("SELECT * FROM t")
    merger = DeltaTable(f"{out}/b").merge(source, "s.id = t.id", source_alias="s", target_alias="t")
    merger.when_not_matched_insert_all().execute()

writes = [
    lambda: ctx.sql("INSERT INTO a SELECT * FROM t").collect(),
    merge,
    lambda: write_deltalake(f"{out}/c", ctx.sql("SELECT * FROM t ORDER BY x"), mode="append"),
]
threads = [threading.Thread(target=write) for write in writes]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print([DeltaTable(f"{out}/{name}").version() for name in "abc"])
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_writes_that_are_fed_by_remote_tables_do_not_wait_for_each_other(
    table, options, tmp_path, workers
):
    """Concurrent writes from remote tables do not deadlock: the scans need no thread of delta-rs's pool."""
    with suppressed():
        for start in range(0, 90_000, 30_000):
            rows = {
                "id": range(start, start + 30_000),
                "x": np.random.default_rng(1).random(30_000),
            }
            write_deltalake(f"{table}-fed", pa.table(rows), mode="append", storage_options=options)
    ended = subprocess.run(
        [sys.executable, "-c", FED, f"{table}-fed", str(tmp_path)],
        env={**os.environ, "TOKIO_WORKER_THREADS": str(workers)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.stdout.split("\n")[0] == "[1, 1, 1]", ended.stderr
