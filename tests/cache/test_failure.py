"""A damaged entry or a failing storage: the result is right, reported once, and nothing is deleted."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from importlib.metadata import version

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext, internal_errors
from deltawitness.exceptions import CacheError
from helpers.new_processes import run_in_processes
from programs import cache_crowd

QUERY = "SELECT id, x FROM t"
TRUTH = {"id": [1, 2], "x": [3, 4]}


@pytest.fixture
def open_cache(tmp_path):
    """Open the cache of the folder, in a new session."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2], "x": [3, 4]}))

    def open_cache(**more):
        ctx = ObservedSessionContext()
        ctx.register_delta("t", tmp_path / "t")
        return DeltaCache(ctx, tmp_path / "cache", **more)

    return open_cache


def entry(tmp_path):
    return tmp_path / "cache" / "cache_views" / "kept"


def newest(folder):
    return max((folder / "_delta_log").glob("*.json"))


def rewrite_commit(path, change):
    """Rewrite the `commitInfo` of a commit file."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if "commitInfo" in line:
            change(line["commitInfo"])
    path.write_text("\n".join(map(json.dumps, lines)))


def remove_a_file(folder):
    next(folder.glob("*.parquet")).unlink()


def truncate_a_file(folder):
    path = next(folder.glob("*.parquet"))
    os.truncate(path, path.stat().st_size - 1)


def break_the_log(folder):
    newest(folder).write_text('{"commitInfo": ')


def empty_the_log(folder):
    newest(folder).write_text("")


def lose_the_log(folder):
    # A folder without a Delta log is not a table: the entry is absent and its files stay.
    shutil.rmtree(folder / "_delta_log")


def garble_the_fingerprint(folder):
    def garble(info):
        for key in info:
            if "entry" in key:
                info[key] = "{"

    rewrite_commit(newest(folder), garble)


def write_over_it(folder):
    write_deltalake(folder, pa.table({"id": [9], "x": [9]}), mode="append")


def delete_from_it(folder):
    DeltaTable(folder).delete("id = 1")


DAMAGES = {
    remove_a_file: "damaged: a data file is missing or has another size",
    truncate_a_file: "damaged: a data file is missing or has another size",
    break_the_log: "damaged: its table cannot be opened",
    empty_the_log: "damaged: its table cannot be opened",
    garble_the_fingerprint: "damaged: the entry's commit metadata is unreadable",
    write_over_it: "damaged: another writer changed its table (WRITE)",
    delete_from_it: "damaged: another writer changed its table (DELETE)",
}


def files_under(folder):
    return Counter(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.internal_errors
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_quarantined_and_recomputed(damage, open_cache, tmp_path):
    """A damaged entry is quarantined, reported once and recomputed, also in a session that had served it."""
    cache = open_cache()
    cache.view("kept", QUERY)
    damage(entry(tmp_path))
    left = files_under(tmp_path / "cache")
    assert [str(reason) for reason in cache.explain("kept").reasons] == [DAMAGES[damage]]
    (listed,) = cache.list()
    assert listed.problem == DAMAGES[damage]
    assert internal_errors.error_counts() == {}
    assert cache.view("kept", QUERY).to_pydict() == TRUTH
    assert internal_errors.error_counts() == {("cache", "DamagedEntryError"): 1}
    assert left - files_under(tmp_path / "cache") == Counter()
    (aside,) = entry(tmp_path).parent.glob(".kept.aside-*")
    assert aside.is_dir()
    assert str(cache.explain("kept")) == "kept: hit"
    assert open_cache().view("kept", QUERY).to_pydict() == TRUTH
    assert internal_errors.error_counts() == {("cache", "DamagedEntryError"): 1}


@pytest.mark.internal_errors
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_raises_with_on_error_raise(damage, open_cache, tmp_path):
    """With `on_error="raise"` a damaged entry raises and its files stay unchanged."""
    open_cache().view("kept", QUERY)
    damage(entry(tmp_path))
    left = files_under(tmp_path / "cache")
    strict = CachePolicy("strict", on_error="raise")
    with pytest.raises(CacheError, match="kept: "):
        open_cache().view("kept", QUERY, policy=strict)
    assert files_under(tmp_path / "cache") == left


def test_an_entry_without_a_log_is_absent(open_cache, tmp_path):
    """A folder without a Delta log is an absent entry; its files are not deleted."""
    open_cache().view("kept", QUERY)
    lose_the_log(entry(tmp_path))
    left = files_under(tmp_path / "cache")
    assert open_cache().view("kept", QUERY).to_pydict() == TRUTH
    assert left - files_under(tmp_path / "cache") == Counter()


def test_rows_doubled_by_concurrent_compactions_are_not_served(open_cache, tmp_path):
    """Two concurrent compactions of one version both commit and double the rows: the entry is damaged."""
    cache = open_cache()
    cache.view("kept", QUERY)
    write_deltalake(entry(tmp_path), pa.table({"id": [1], "x": [1]}), mode="append")
    one, other = DeltaTable(entry(tmp_path)), DeltaTable(entry(tmp_path))
    one.optimize.compact()
    other.optimize.compact()
    # Make the append look like the entry's own commit.
    rows = DeltaTable(entry(tmp_path)).to_pyarrow_table()
    assert len(rows) == 6
    metadata = newest_with_entry(entry(tmp_path))
    rewrite_commit(
        entry(tmp_path) / "_delta_log" / f"{1:020}.json",
        lambda info: info.update(metadata, operationMetrics={"num_added_rows": 3}),
    )
    assert [str(r) for r in reasons_in_new_session(open_cache)] == [
        "damaged: its row count differs from its commit"
    ]


def newest_with_entry(folder):
    text = (folder / "_delta_log" / f"{0:020}.json").read_text()
    info = next(
        json.loads(line)["commitInfo"] for line in text.splitlines() if "commitInfo" in line
    )
    return {key: value for key, value in info.items() if "entry" in key}


def reasons_in_new_session(open_cache):
    cache = open_cache()
    cache._definitions = definitions_of(cache)
    return cache.explain("kept").reasons


def definitions_of(cache):
    from deltawitness.cache.entries.definitions import define_view
    from deltawitness.cache.entries.policy import VIEW_DELTA_STAGING
    from deltawitness.semconv import CacheScope

    definition = define_view(
        cache._ctx, "kept", QUERY, policy=VIEW_DELTA_STAGING, functions={}, version=None
    )
    return {(CacheScope.VIEW, "kept"): definition}


def test_an_entry_of_another_release_is_overwritten(open_cache, tmp_path):
    """An entry with unknown fields, from another release, is a miss and is overwritten; it is not damaged."""
    open_cache().view("kept", QUERY)

    def add_unknown_field(info):
        for key in [key for key in info if "entry" in key]:
            stored = json.loads(info[key])
            stored["fingerprint"]["weather"] = "fine"
            info[key] = json.dumps(stored)

    rewrite_commit(newest(entry(tmp_path)), add_unknown_field)
    assert [str(r) for r in reasons_in_new_session(open_cache)] == [
        "it was written by another release of deltawitness"
    ]
    assert open_cache().view("kept", QUERY).to_pydict() == TRUTH
    assert DeltaTable(entry(tmp_path)).version() == 1
    assert list(entry(tmp_path).parent.glob(".*")) == []


@pytest.mark.parametrize("engine", ["datafusion", "deltalake"])
def test_an_entry_of_another_engine_release_is_a_miss(engine, open_cache, tmp_path):
    """An entry computed by another engine release is a miss: that release may compute differently."""
    open_cache().view("kept", QUERY)
    now = f"datafusion {version('datafusion')}, deltalake {version('deltalake')}"
    before = now.replace(f"{engine} {version(engine)}", f"{engine} 1.0.0")

    def set_engine(info):
        stored = json.loads(info["cache_entry"])
        assert stored["fingerprint"]["engine"] == now
        stored["fingerprint"]["engine"] = before
        info["cache_entry"] = json.dumps(stored)

    rewrite_commit(newest(entry(tmp_path)), set_engine)
    (reason,) = reasons_in_new_session(open_cache)
    assert str(reason) == f"release changed: {before} -> {now}"


@pytest.mark.slow
@pytest.mark.internal_errors
def test_a_cache_that_cannot_be_written_returns_the_computed_result(open_cache, tmp_path):
    """A failed write is reported; the name is registered for the result, so that views over it are right."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache_views").write_text("in the way")
    cache = open_cache()
    assert cache.view("kept", QUERY).to_pydict() == TRUTH
    assert [component for component, _ in internal_errors.error_counts()] == ["cache"]
    assert cache.view("over", "SELECT sum(x) AS s FROM kept").to_pydict() == {"s": [7]}
    write_deltalake(tmp_path / "t", pa.table({"id": [5], "x": [5]}), mode="append")
    assert cache.view("over", "SELECT sum(x) AS s FROM kept").to_pydict() == {"s": [12]}
    assert cache.view("kept", QUERY).count() == 3
    assert (tmp_path / "cache" / "cache_views").read_text() == "in the way"
    with pytest.raises(Exception, match=r"."):
        cache.view("kept", QUERY, policy=CachePolicy("strict", on_error="raise"))
    (tmp_path / "cache" / "cache_views").unlink()
    assert cache.view("over", "SELECT sum(x) AS s FROM kept").to_pydict() == {"s": [12]}
    assert str(cache.explain("over")) == "over: hit"
    assert str(cache.explain("kept")) == "kept: hit"


@pytest.mark.internal_errors
def test_a_cache_deleted_between_requests_is_created_again(open_cache, tmp_path):
    """A cache deleted between two requests of a session is created again."""
    cache = open_cache()
    cache.view("kept", QUERY)
    shutil.rmtree(tmp_path / "cache")
    assert cache.view("kept", QUERY).to_pydict() == TRUTH
    assert str(cache.explain("kept")) == "kept: hit"


@pytest.mark.parametrize(
    ("value", "error"),
    [("1 / (x - x)", r"[Dd]ivide by zero"), ("TIMESTAMP '1500-01-01'", "Overflow")],
)
def test_an_error_of_the_query_is_raised(value, error, open_cache, tmp_path):
    """An error of the query, in planning or execution, is raised; nothing is stored, the lock is released."""
    cache = open_cache()
    for _ in range(2):
        with pytest.raises(Exception, match=error):
            cache.view("kept", f"SELECT {value} AS y FROM t").to_pydict()
    assert cache.list() == []


@pytest.mark.slow
def test_a_full_disk_loses_the_entry_only(open_cache, tmp_path):
    """On a full disk the result is returned and no partial commit exists; later the entry is stored."""
    open_cache()
    ((found, components, explained),) = run_in_processes(
        cache_crowd.ask_on_a_full_disk, [(str(tmp_path),)]
    )
    assert found == [10_000] * 3
    assert components == {"cache"}
    assert explained == "shared: hit"
