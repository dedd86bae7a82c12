"""Whatever has become of an entry or of its storage: the result is right, told once, and nothing is deleted."""

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
from helpers.new_processes import results_of
from programs import cache_crowd

QUERY = "SELECT id, x FROM t"
TRUTH = {"id": [1, 2], "x": [3, 4]}


@pytest.fixture
def opened(tmp_path):
    """Open the cache of the folder, in a session of its own."""
    write_deltalake(tmp_path / "t", pa.table({"id": [1, 2], "x": [3, 4]}))

    def opened(**more):
        ctx = ObservedSessionContext()
        ctx.register_delta("t", tmp_path / "t")
        return DeltaCache(ctx, tmp_path / "cache", **more)

    return opened


def entry(tmp_path):
    return tmp_path / "cache" / "cache_views" / "kept"


def newest(folder):
    return max((folder / "_delta_log").glob("*.json"))


def rewritten(path, change):
    """Change the lines of a commit."""
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
    # A folder of that name that is no table any more is none: it is absent, and its files stay.
    shutil.rmtree(folder / "_delta_log")


def garble_what_it_was_made_from(folder):
    def garble(info):
        for key in info:
            if "entry" in key:
                info[key] = "{"

    rewritten(newest(folder), garble)


def write_over_it(folder):
    write_deltalake(folder, pa.table({"id": [9], "x": [9]}), mode="append")


def delete_from_it(folder):
    DeltaTable(folder).delete("id = 1")


DAMAGES = {
    remove_a_file: "damaged: a file of it is missing or damaged",
    truncate_a_file: "damaged: a file of it is missing or damaged",
    break_the_log: "damaged: its table cannot be opened",
    empty_the_log: "damaged: its table cannot be opened",
    garble_what_it_was_made_from: "damaged: what its table says of it cannot be read",
    write_over_it: "damaged: somebody else has written it (WRITE)",
    delete_from_it: "damaged: somebody else has written it (DELETE)",
}


def files_under(folder):
    return Counter(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.internal_errors
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_damaged_is_computed_anew_and_kept_aside(damage, opened, tmp_path):
    """Also by a session that has served it; it is told once, and served again afterwards."""
    cache = opened()
    cache.view("kept", QUERY)
    damage(entry(tmp_path))
    left = files_under(tmp_path / "cache")
    assert [str(reason) for reason in cache.explain("kept").reasons] == [DAMAGES[damage]]
    (listed,) = cache.list()
    assert listed.problem == DAMAGES[damage]
    assert internal_errors.seen() == {}
    assert cache.view("kept", QUERY).to_pydict() == TRUTH
    assert internal_errors.seen() == {("cache", "DamagedEntryError"): 1}
    assert left - files_under(tmp_path / "cache") == Counter()
    (aside,) = entry(tmp_path).parent.glob(".kept.aside-*")
    assert aside.is_dir()
    assert str(cache.explain("kept")) == "kept: hit"
    assert opened().view("kept", QUERY).to_pydict() == TRUTH
    assert internal_errors.seen() == {("cache", "DamagedEntryError"): 1}


@pytest.mark.internal_errors
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_damaged_is_an_error_where_the_policy_says_so(damage, opened, tmp_path):
    """And is left as it is."""
    opened().view("kept", QUERY)
    damage(entry(tmp_path))
    left = files_under(tmp_path / "cache")
    strict = CachePolicy("strict", on_error="raise")
    with pytest.raises(CacheError, match="kept: "):
        opened().view("kept", QUERY, policy=strict)
    assert files_under(tmp_path / "cache") == left


def test_an_entry_without_a_log_is_absent(opened, tmp_path):
    """Its files stay where they are."""
    opened().view("kept", QUERY)
    lose_the_log(entry(tmp_path))
    left = files_under(tmp_path / "cache")
    assert opened().view("kept", QUERY).to_pydict() == TRUTH
    assert left - files_under(tmp_path / "cache") == Counter()


def test_rows_that_two_have_ordered_at_once_are_not_served(opened, tmp_path):
    """Two compactions from one version double every row, and both commit."""
    cache = opened()
    cache.view("kept", QUERY)
    write_deltalake(entry(tmp_path), pa.table({"id": [1], "x": [1]}), mode="append")
    one, other = DeltaTable(entry(tmp_path)), DeltaTable(entry(tmp_path))
    one.optimize.compact()
    other.optimize.compact()
    # As if the append had been the entry's own commit.
    rows = DeltaTable(entry(tmp_path)).to_pyarrow_table()
    assert len(rows) == 6
    told = newest_with_entry(entry(tmp_path))
    rewritten(
        entry(tmp_path) / "_delta_log" / f"{1:020}.json",
        lambda info: info.update(told, operationMetrics={"num_added_rows": 3}),
    )
    assert [str(r) for r in opened_reasons(opened)] == [
        "damaged: it holds other rows than were kept"
    ]


def newest_with_entry(folder):
    text = (folder / "_delta_log" / f"{0:020}.json").read_text()
    info = next(
        json.loads(line)["commitInfo"] for line in text.splitlines() if "commitInfo" in line
    )
    return {key: value for key, value in info.items() if "entry" in key}


def opened_reasons(opened):
    cache = opened()
    cache._recipes = opened_recipe(cache)
    return cache.explain("kept").reasons


def opened_recipe(cache):
    from deltawitness.cache.entries.definitions import define_view
    from deltawitness.cache.entries.policy import VIEW_DELTA_STAGING
    from deltawitness.semconv import CacheScope

    recipe = define_view(
        cache._ctx, "kept", QUERY, policy=VIEW_DELTA_STAGING, functions={}, version=None
    )
    return {(CacheScope.VIEW, "kept"): recipe}


def test_what_another_release_has_kept_is_written_over(opened, tmp_path):
    """With fields that this one does not know: it is not damaged, and not true either."""
    opened().view("kept", QUERY)

    def of_tomorrow(info):
        for key in [key for key in info if "entry" in key]:
            known = json.loads(info[key])
            known["fingerprint"]["weather"] = "fine"
            info[key] = json.dumps(known)

    rewritten(newest(entry(tmp_path)), of_tomorrow)
    assert [str(r) for r in opened_reasons(opened)] == [
        "it was kept by another release of deltawitness"
    ]
    assert opened().view("kept", QUERY).to_pydict() == TRUTH
    assert DeltaTable(entry(tmp_path)).version() == 1
    assert list(entry(tmp_path).parent.glob(".*")) == []


@pytest.mark.parametrize("engine", ["datafusion", "deltalake"])
def test_what_another_release_of_an_engine_has_computed_is_computed_anew(engine, opened, tmp_path):
    """It may compute otherwise, or read a table otherwise."""
    opened().view("kept", QUERY)
    now = f"datafusion {version('datafusion')}, deltalake {version('deltalake')}"
    before = now.replace(f"{engine} {version(engine)}", f"{engine} 1.0.0")

    def of_yesterday(info):
        known = json.loads(info["cache_entry"])
        assert known["fingerprint"]["engine"] == now
        known["fingerprint"]["engine"] = before
        info["cache_entry"] = json.dumps(known)

    rewritten(newest(entry(tmp_path)), of_yesterday)
    (reason,) = opened_reasons(opened)
    assert str(reason) == f"release changed: {before} -> {now}"


@pytest.mark.internal_errors
def test_a_cache_that_cannot_be_written_returns_what_was_computed(opened, tmp_path):
    """Told; and the name stands for it, so that views over it are right as well."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache_views").write_text("in the way")
    cache = opened()
    assert cache.view("kept", QUERY).to_pydict() == TRUTH
    assert [component for component, _ in internal_errors.seen()] == ["cache"]
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
def test_a_cache_that_was_removed_in_the_middle_is_made_again(opened, tmp_path):
    """Between two asks of one session, which has served from it."""
    cache = opened()
    cache.view("kept", QUERY)
    shutil.rmtree(tmp_path / "cache")
    assert cache.view("kept", QUERY).to_pydict() == TRUTH
    assert str(cache.explain("kept")) == "kept: hit"


@pytest.mark.parametrize(
    ("value", "error"),
    [("1 / (x - x)", r"[Dd]ivide by zero"), ("TIMESTAMP '1500-01-01'", "Overflow")],
)
def test_a_result_that_cannot_be_computed_is_the_engines_error(value, error, opened, tmp_path):
    """While it runs, or while it is planned; nothing is kept, and the lock is free afterwards."""
    cache = opened()
    for _ in range(2):
        with pytest.raises(Exception, match=error):
            cache.view("kept", f"SELECT {value} AS y FROM t").to_pydict()
    assert cache.list() == []


@pytest.mark.slow
def test_a_full_disk_costs_the_entry_only(opened, tmp_path):
    """What was half written is in no commit; it is kept once there is room again."""
    opened()
    ((found, components, explained),) = results_of(
        cache_crowd.ask_on_a_full_disk, [(str(tmp_path),)]
    )
    assert found == [10_000] * 3
    assert components == {"cache"}
    assert explained == "shared: hit"
