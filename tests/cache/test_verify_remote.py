"""Entries on an object store are verified, pruned and recorded like local ones."""

from __future__ import annotations

import json
from datetime import timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaCache, ObservedSessionContext
from deltawitness.cache.entries.plan_store import PLAN, read_plan
from deltawitness.semconv import CACHE_ENTRY


def cache_of(server):
    return DeltaCache(ObservedSessionContext(), "s3://lake/root", server.options)


@pytest.mark.slow
def test_a_remote_cache_is_verified_snapshotted_and_pruned(server):
    """Plans are stored next to remote entries, and no stored file contains credentials."""
    write_deltalake("s3://lake/facts", pa.table({"id": [1, 2, 3]}), storage_options=server.options)
    ctx = ObservedSessionContext()
    ctx.register_delta("facts", "s3://lake/facts", storage_options=server.options)
    cache = DeltaCache(ctx, "s3://lake/root", server.options)
    assert cache.view("view", "SELECT sum(id) AS s FROM facts").to_pydict() == {"s": [6]}
    write_deltalake(
        "s3://lake/facts", pa.table({"id": [4]}), mode="append", storage_options=server.options
    )
    for asked in (cache, cache_of(server)):
        assert str(asked.verify("view")) == "view 0: reproducible (1 row)"
    table = DeltaTable("s3://lake/root/cache_views/view", storage_options=server.options)
    entry = json.loads(table.history()[0][CACHE_ENTRY])
    plan = read_plan("s3://lake/root/cache_views/view", entry["facts"][PLAN], server.options)
    assert (plan.sql, [each.uri for each in plan.tables]) == (
        "SELECT sum(id) AS s FROM facts",
        ["s3://lake/facts"],
    )
    assert [each.result.value for each in cache.snapshot(["inputs", "tables"])] == ["write"] * 2
    assert [each.result.value for each in cache_of(server).snapshot([])] == []
    assert [each.result.value for each in cache.snapshot(["inputs", "tables"])] == ["noop"] * 2
    pruned = cache_of(server).prune(older_than=timedelta(microseconds=1))
    assert pruned.entries == ("view", "session_inputs", "session_tables")
    assert (pruned.files, pruned.failed, pruned.damaged) == (3, (), ())
    assert pruned.bytes > 0
    versions = DeltaTable(
        "s3://lake/root/cache_views/view", storage_options=server.options
    ).version()
    assert cache_of(server).prune(older_than=timedelta(microseconds=1)).files == 0
    table = DeltaTable("s3://lake/root/cache_views/view", storage_options=server.options)
    assert table.version() == versions
    assert str(cache.explain("view")) == "view: miss (pruned)"
    assert cache.view("view", "SELECT sum(id) AS s FROM facts").to_pydict() == {"s": [10]}
