"""A cache on S3-compatible storage serves its entries with the same guarantees as a local one."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext, Settings, internal_errors
from deltawitness.exceptions import CacheError

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path):
    return f"s3://lake/{tmp_path.name}/cache"


@pytest.fixture
def open_cache(server, root, tmp_path):
    """Open the cache in a new session, over a remote and a local table."""
    there, here = f"s3://lake/{tmp_path.name}/there", tmp_path / "here"
    write_deltalake(there, pa.table({"id": [1, 2], "x": [3, 4]}), storage_options=server.options)
    write_deltalake(here, pa.table({"id": [2, 3]}))

    def open_cache():
        ctx = ObservedSessionContext()
        ctx.register_delta("there", there, storage_options=server.options)
        ctx.register_delta("here", here)
        settings = Settings(spool_dir=str(tmp_path / "spools"))
        return ctx, DeltaCache(ctx, root, server.options, settings=settings)

    return open_cache


QUERY = "SELECT there.id, x FROM there JOIN here ON there.id = here.id"


def test_a_remote_entry_is_stored_and_served(open_cache, server, tmp_path):
    """A remote entry is served in this and another session, with views over it; input changes are detected."""
    for _ in range(2):
        ctx, cache = open_cache()
        assert cache.view("seen", QUERY).to_pydict() == {"id": [2], "x": [4]}
        assert ctx.sql("SELECT x + 1 AS y FROM seen WHERE id = 2").to_pydict() == {"y": [5]}
        assert str(cache.explain("seen")) == "seen: hit"
        assert [(e.name, e.version, e.problem) for e in cache.list()] == [("seen", 0, None)]
    there = DeltaTable(f"s3://lake/{tmp_path.name}/there", storage_options=server.options)
    write_deltalake(there, pa.table({"id": [3], "x": [5]}), mode="append")
    assert str(cache.explain("seen")) == "seen: miss (input changed: there 0 -> 1)"
    assert cache.view("over", "SELECT sum(x) AS s FROM seen").to_pydict() == {"s": [9]}
    assert str(cache.explain("over")) == "over: hit"
    assert cache.view("seen", QUERY).sort("id").to_pydict() == {"id": [2, 3], "x": [4, 5]}
    assert [entry.version for entry in cache.list()] == [0, 1]


def test_an_empty_result_and_partitions_are_served(open_cache):
    """An empty result and a partitioned one are served from remote entries."""
    _, cache = open_cache()
    policy = CachePolicy("parts", partition_by="id")
    for query in (QUERY, f"{QUERY} WHERE x > 100"):
        expected = {"id": [], "x": []} if "100" in query else {"id": [2], "x": [4]}
        for _ in range(2):
            frame = cache.view("seen", query, policy=policy).sort("id")
            assert frame.select("id", "x").to_pydict() == expected


def test_artifacts_and_datasets_are_stored(open_cache, server, tmp_path):
    """Artifacts and datasets are stored remotely, also a dataset of a remote Delta table."""
    _, cache = open_cache()
    cache.artifact("made", {"a": [1, None]})
    assert open_cache()[1].load_artifact("made") == {"a": [1, None]}
    source = f"s3://lake/{tmp_path.name}/there"
    for _ in range(2):
        frame = cache.dataset("staged", source, storage_options=server.options)
        assert frame.to_pydict() == {"id": [1, 2], "x": [3, 4]}
    assert str(cache.explain("staged")) == "staged: hit"
    cache.invalidate("staged")
    assert str(cache.explain("staged")) == "staged: miss (invalidated)"
    with pytest.raises(CacheError):
        cache.load_artifact("staged")


@pytest.mark.internal_errors
def test_a_damaged_remote_entry_is_recomputed_and_not_moved(open_cache, server, root):
    """A damaged remote entry cannot be quarantined: its result is computed on each request."""
    _, cache = open_cache()
    cache.view("seen", QUERY)
    entry = f"{root}/cache_views/seen"
    rows = pa.table({"id": [9], "x": [9]})
    write_deltalake(entry, rows, mode="append", storage_options=server.options)
    for _ in range(2):
        assert cache.view("seen", QUERY).to_pydict() == {"id": [2], "x": [4]}
    assert DeltaTable(entry, storage_options=server.options).version() == 1
    assert {component for component, _ in internal_errors.error_counts()} == {"cache"}


@pytest.mark.internal_errors
def test_an_unreachable_storage_loses_the_entry_only(tmp_path, server):
    """If the storage does not answer, the result is computed and the failure is reported."""
    ctx = ObservedSessionContext()
    ctx.from_pydict({"k": [1]}, name="m")
    options = server.options | {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "max_retries": "0",
        "connect_timeout": "200ms",
        "timeout": "500ms",
    }
    settings = Settings(spool_dir=str(tmp_path / "spools"))
    cache = DeltaCache(ctx, "s3://lake/nowhere", options, settings=settings)
    assert cache.view("seen", "SELECT * FROM m").to_pydict() == {"k": [1]}
    assert {component for component, _ in internal_errors.error_counts()} == {"cache"}
