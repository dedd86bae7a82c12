"""What is kept is made again over the versions that it was made from, and held against what is kept."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from datafusion import udf
from deltalake import DeltaTable, write_deltalake

from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext, Settings
from deltawitness.cache.verify.verifier import Verdict
from deltawitness.exceptions import CacheError
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.semconv import PLAN_DIRECTORY, CacheScope

ROWS = pa.table(
    {"id": range(100), "part": [n % 4 for n in range(100)], "x": [n / 7 for n in range(100)]}
)


@pytest.fixture
def lake(tmp_path):
    """Two tables."""
    write_deltalake(tmp_path / "facts", ROWS)
    write_deltalake(tmp_path / "names", pa.table({"part": range(4), "name": list("abcd")}))
    return tmp_path


def session(lake):
    """A session that knows the two tables, and one of them at its first version as well."""
    ctx = ObservedSessionContext()
    ctx.register_delta("facts", lake / "facts")
    ctx.register_delta("names", lake / "names")
    ctx.register_delta("first_facts", lake / "facts", version=0)
    return ctx


@pytest.fixture
def ctx(lake):
    return session(lake)


@pytest.fixture
def cache(lake, ctx):
    return DeltaCache(ctx, lake / "root")


def elsewhere(lake):
    """The cache as another session has it, which knows nothing."""
    return DeltaCache(ObservedSessionContext(), lake / "root")


def move_on(lake):
    """Have both tables hold something else."""
    write_deltalake(lake / "facts", ROWS.slice(0, 10), mode="append")
    DeltaTable(lake / "names").update(updates={"name": "'z'"}, predicate="part = 1")


def told(verified):
    """What came out, with the reason."""
    return verified.verdict.value, verified.reason


QUERIES = {
    "sum": "SELECT part, sum(id) AS total FROM facts GROUP BY part",
    "joined": "SELECT f.id, n.name FROM facts f JOIN names n ON f.part = n.part WHERE n.name <> 'c'",
    "subquery": "SELECT id FROM facts WHERE part IN (SELECT part FROM names WHERE name > 'b')",
    "window": "SELECT id, row_number() OVER (PARTITION BY part ORDER BY id) AS place FROM facts",
    "with": "WITH few AS (SELECT * FROM facts LIMIT 1000) SELECT count(*) AS n FROM few",
    "unnested": "SELECT id, unnest([1, 2]) AS twice FROM facts",
    "recursive": "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3)"
    " SELECT i, (SELECT count(*) FROM facts) AS c FROM n",
    "both": "SELECT 'now' AS at, id FROM facts UNION ALL SELECT 'first', id FROM first_facts",
    "values": "SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS v(i, t)",
    "nested": "SELECT part, array_agg(id ORDER BY id) AS ids, struct(part, 'x') AS s FROM facts GROUP BY part",
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_is_made_again_after_its_inputs_have_moved_on(name, lake, cache):
    """In its own session, and in one that knows nothing: over the versions that it was made from."""
    kept = cache.view(name, QUERIES[name]).count()
    assert told(cache.verify(name)) == ("reproducible", None)
    move_on(lake)
    for asked in (cache, elsewhere(lake)):
        verified = asked.verify(name)
        assert told(verified) == ("reproducible", None)
        assert (verified.rows_kept, verified.rows_now, verified.version) == (kept, kept, 0)


def test_a_frame_is_made_again(lake, ctx, cache):
    """Its plan is kept as Substrait, in place of a text."""
    frame = ctx.table("facts").filter("part = 2").select("id", "x")
    assert cache.view("frame", frame).count() == 25
    move_on(lake)
    assert told(cache.verify("frame")) == ("reproducible", None)
    assert told(elsewhere(lake).verify("frame")) == ("reproducible", None)


def test_a_view_of_the_session_is_followed_to_its_tables(lake, ctx, cache):
    """Another session does not know the view, and the plan holds what it stands for."""
    ctx.sql("CREATE VIEW even AS SELECT id, part FROM facts WHERE id % 2 = 0")
    assert cache.view("count", "SELECT part, count(*) AS n FROM even GROUP BY part").count() == 2
    move_on(lake)
    assert told(cache.verify("count")) == ("reproducible", None)
    assert told(elsewhere(lake).verify("count")) == ("reproducible", None)


def test_a_view_over_another_kept_view_is_made_again(lake, cache):
    """What is kept is a Delta table like any other."""
    cache.view("sums", QUERIES["sum"])
    cache.view("top", "SELECT max(total) AS m FROM sums")
    assert told(cache.verify("top")) == ("reproducible", None)
    assert told(elsewhere(lake).verify("top")) == ("reproducible", None)


def test_names_in_other_catalogs_and_quotes_mean_the_same(lake, cache, ctx):
    """Whatever they are called."""
    ctx.register_delta('"Facts of ""A"""', lake / "facts")
    cache.view("quoted", 'SELECT count(*) AS n FROM "Facts of ""A"""')
    move_on(lake)
    assert told(elsewhere(lake).verify("quoted")) == ("reproducible", None)


def test_settings_that_count_are_those_of_the_session(lake):
    """A moment of a session's own time zone is the same in a session that has none."""
    ctx = session(lake)
    ctx.sql("SET datafusion.execution.time_zone = '+05:00'").collect()
    cache = DeltaCache(ctx, lake / "root")
    cache.view("zone", "SELECT id, CAST('2024-02-29T00:00:00' AS TIMESTAMPTZ) AS t FROM facts")
    move_on(lake)
    assert told(cache.verify("zone")) == ("reproducible", None)
    assert told(elsewhere(lake).verify("zone")) == ("reproducible", None)


def test_functions_in_place_of_the_engines_own_are_there_again(lake):
    """Those of Spark, where the session had them."""
    ctx = session(lake)
    ctx.enable_spark_functions()
    cache = DeltaCache(ctx, lake / "root")
    cache.view("spark", "SELECT id, ceil(x) AS up FROM facts")
    move_on(lake)
    assert told(cache.verify("spark")) == ("reproducible", None)
    assert told(elsewhere(lake).verify("spark")) == ("reproducible", None)


def test_a_dataset_is_staged_again(lake, cache):
    """From a Delta table at its version, and from files that are what they were."""
    pq.write_table(ROWS, lake / "rows.parquet")
    cache.dataset("files", lake / "rows.parquet")
    cache.dataset("table", lake / "facts")
    move_on(lake)
    for asked in (cache, elsewhere(lake)):
        assert [told(asked.verify(name)) for name in ("files", "table")] == [
            ("reproducible", None)
        ] * 2


# --- it differs ----------------------------------------------------------------------------------------------


def register(ctx, act, kind=None):
    """Have a function of the program's own called `f`."""
    kind = kind or pa.int64()
    ctx.register_udf(udf(act, [kind], kind, "immutable", "f"))


def with_changed_function(lake, query, before, after, kind=None):
    """Keep a view, change what its function does, not its version, and verify."""
    ctx = session(lake)
    register(ctx, before, kind)
    DeltaCache(ctx, lake / "root").view("view", query, functions={"f": "1"})
    other = session(lake)
    register(other, after, kind)
    cache = DeltaCache(other, lake / "root")
    cache.view("view", query, functions={"f": "1"})
    return cache.verify("view")


def test_what_differs_is_named(lake):
    """The columns, and no other; and how many rows there are."""
    verified = with_changed_function(
        lake,
        "SELECT id, f(id) AS g FROM facts",
        lambda a: a,
        lambda a: pc.add(a, pc.cast(pc.equal(a, 7), pa.int64())),
    )
    assert (verified.verdict, verified.columns) == (Verdict.DIFFERS, ("g",))
    assert (verified.rows_kept, verified.rows_now) == (100, 100)
    assert str(verified) == "view 0: differs (g; 100 rows kept, 100 now)"


def test_other_rows_are_counted(lake):
    """Where there are more or fewer, every column holds something else."""
    verified = with_changed_function(
        lake, "SELECT id, part FROM facts WHERE f(id) < 50", lambda a: a, lambda a: pc.add(a, 1)
    )
    assert (verified.verdict, verified.columns) == (Verdict.DIFFERS, ("id", "part"))
    assert (verified.rows_kept, verified.rows_now) == (50, 49)


def test_values_that_stand_in_other_rows_are_a_difference(lake):
    """Though each column holds what it held."""
    verified = with_changed_function(
        lake, "SELECT id, f(id) AS g FROM facts", lambda a: a, lambda a: pc.subtract(99, a)
    )
    assert (verified.verdict, verified.columns) == (Verdict.DIFFERS, ())
    assert "the same values in other rows" in str(verified)


@pytest.mark.parametrize(
    ("off_by", "verdict", "rounded", "columns"),
    [(1e-12, "reproducible", ("g",), ()), (1e-6, "differs", (), ("g",))],
)
def test_the_order_of_a_sum_is_no_difference(off_by, verdict, rounded, columns, lake):
    """Floats that differ by a billionth at most are the same, and it is said."""
    verified = with_changed_function(
        lake,
        "SELECT CAST(id AS VARCHAR) AS t, f(x) AS g, [id, NULL] AS l FROM facts",
        lambda a: a,
        lambda a: pc.multiply(a, 1 + off_by),
        pa.float64(),
    )
    assert (verified.verdict, verified.rounded, verified.columns) == (verdict, rounded, columns)


# --- nobody can tell -----------------------------------------------------------------------------------------


def reason(verified):
    assert verified.verdict is Verdict.CANNOT_TELL
    assert (verified.columns, verified.rounded) == ((), ()) or "each time" in verified.reason
    return verified.reason


def test_a_function_that_is_not_at_hand(lake, ctx, cache):
    """In another session; and at another version in its own."""
    register(ctx, lambda a: a)
    query = "SELECT f(id) AS g FROM facts"
    cache.view("view", query, functions={"f": "1"})
    move_on(lake)
    assert told(cache.verify("view")) == ("reproducible", None)
    assert (
        reason(elsewhere(lake).verify("view"))
        == "a function of the program's own: f 1 is not at hand"
    )


def test_a_call_that_gives_another_result_each_time(lake, cache):
    """Unless it makes no difference."""
    hourly = CachePolicy("hourly", max_age=timedelta(hours=1))
    cache.view("drawn", "SELECT id, random() AS r FROM facts", policy=hourly)
    assert reason(cache.verify("drawn")) == "random() gives another result each time"
    cache.view("certain", "SELECT id FROM facts WHERE random() < 2", policy=hourly)
    assert told(elsewhere(lake).verify("certain")) == ("reproducible", None)


def test_a_table_in_memory(lake, ctx, cache):
    """It is looked at in its session, and is no part of another."""
    ctx.from_arrow(pa.table({"part": [1]}), name="wanted")
    cache.view("view", "SELECT id FROM facts JOIN wanted USING (part)")
    move_on(lake)
    assert told(cache.verify("view")) == ("reproducible", None)
    assert reason(elsewhere(lake).verify("view")) == "a source that only its session knows: wanted"
    ctx.deregister_table("wanted")
    ctx.from_arrow(pa.table({"part": [2]}), name="wanted")
    assert "wanted" in reason(cache.verify("view"))


def test_files_that_have_changed_or_are_gone(lake, ctx, cache):
    """Of a view, and of a dataset."""
    path = lake / "rows.parquet"
    pq.write_table(ROWS, path)
    ctx.register_parquet("rows", path)
    cache.view("view", "SELECT sum(id) AS s FROM rows")
    cache.dataset("dataset", path)
    pq.write_table(ROWS.slice(0, 50), path)
    assert "changed" in reason(cache.verify("view"))
    for asked in (cache, elsewhere(lake)):
        assert reason(asked.verify("dataset")) == "input changed: file changed: rows.parquet"
    path.unlink()
    assert (
        reason(elsewhere(lake).verify("dataset")) == "input gone: its files are not where they were"
    )
    assert cache.verify("view").verdict is Verdict.CANNOT_TELL


def test_a_version_that_was_vacuumed(lake, cache):
    """The log still knows it, and its files are gone."""
    cache.view("view", QUERIES["sum"])
    move_on(lake)
    DeltaTable(lake / "facts").optimize.compact()
    DeltaTable(lake / "facts").vacuum(0, dry_run=False, enforce_retention_duration=False)
    for asked in (cache, elsewhere(lake)):
        assert (
            reason(asked.verify("view"))
            == "version vacuumed: files of facts 0 are not there any more"
        )


def test_a_version_that_the_log_has_forgotten(lake, cache):
    """After a checkpoint, and its clean-up."""
    cache.view("view", QUERIES["sum"])
    move_on(lake)
    table = DeltaTable(lake / "facts")
    table.create_checkpoint()
    os.remove(lake / "facts/_delta_log/00000000000000000000.json")
    assert reason(elsewhere(lake).verify("view")) == "version gone: facts has no version 0 any more"


def test_an_input_that_is_gone(lake, cache):
    """Deleted, or made anew in the same place."""
    cache.view("view", QUERIES["sum"])
    shutil.move(lake / "facts", lake / "away")
    assert reason(elsewhere(lake).verify("view")) == "input gone: facts is not where it was"
    write_deltalake(lake / "facts", ROWS)
    assert reason(elsewhere(lake).verify("view")) == "input gone: facts was made anew"


def test_an_input_that_was_put_back_from_a_copy(lake, cache):
    """It is the same table, and has the version again, with other rows in it."""
    shutil.copytree(lake / "facts", lake / "copy")
    move_on(lake)
    cache.view("view", QUERIES["sum"])
    shutil.rmtree(lake / "facts")
    shutil.move(lake / "copy", lake / "facts")
    write_deltalake(lake / "facts", ROWS.slice(3, 4), mode="append")
    assert reason(elsewhere(lake).verify("view")) == "input gone: facts has another version 1 now"


def test_a_stream_can_be_read_only_once(lake, cache):
    """The session that has read it holds it; another cannot have it."""
    cache.dataset("stream", pa.RecordBatchReader.from_batches(ROWS.schema, ROWS.to_batches()))
    assert told(cache.verify("stream")) == ("reproducible", None)
    assert (
        reason(elsewhere(lake).verify("stream")) == "its source was a stream, or a table in memory"
    )


def test_what_no_plan_makes(lake, cache):
    """An artifact, and the metadata of a session."""
    cache.artifact("model", {"a": 1})
    cache.snapshot(["inputs"])
    assert reason(cache.verify("model")) == "an artifact is made by its program alone"
    assert (
        reason(cache.verify("session_inputs"))
        == "a session's metadata is made by the session alone"
    )


@pytest.mark.internal_errors
def test_an_entry_that_is_invalidated_or_damaged(lake, cache):
    """It is what it is; nothing is raised, and nothing is changed."""
    cache.view("view", QUERIES["sum"])
    cache.invalidate("view")
    assert reason(cache.verify("view")) == "it was invalidated"
    cache.view("view", QUERIES["sum"])
    for path in (lake / "root/cache_views/view").glob("*.parquet"):
        path.write_bytes(b"")
    assert reason(cache.verify("view")).startswith("damaged: ")


def test_an_entry_that_there_is_not(cache):
    """Is an error, as a wrong name is."""
    with pytest.raises(CacheError, match="there is no entry nothing"):
        cache.verify("nothing")


# --- plans ---------------------------------------------------------------------------------------------------


def plans(lake, scope="cache_views"):
    return sorted((lake / "root" / scope).glob(f"*/{PLAN_DIRECTORY}/*"))


def test_a_plan_lies_with_its_entry_and_nowhere_else(lake, cache):
    """For its owner to read; its literals are in no other file, and none is left half written."""
    cache.view(
        "view",
        "SELECT id FROM facts WHERE id <> 31415926 AND part IN (SELECT part FROM names WHERE name <> 'canary')",
    )
    (path,) = plans(lake)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    plan = json.loads(path.read_text())
    assert "canary" in plan["sql"]
    assert sorted(table["name"][-1] for table in plan["tables"]) == ["facts", "names"]
    for other in (lake / "root").rglob("*"):
        if other.is_file() and other != path:
            content = other.read_bytes()
            assert b"canary" not in content
            assert b"31415926" not in content


def test_no_plan_is_kept_when_that_is_switched_off(lake, ctx):
    """Then only the session that made it can tell."""
    cache = DeltaCache(ctx, lake / "root", settings=Settings(keep_plans=False))
    cache.view("view", QUERIES["sum"])
    assert plans(lake) == []
    move_on(lake)
    assert told(cache.verify("view")) == ("reproducible", None)
    assert reason(elsewhere(lake).verify("view")) == "its plan was not kept"


def test_a_plan_that_cannot_be_read_is_said(lake, cache):
    """Of a later release, or damaged."""
    cache.view("view", QUERIES["sum"])
    (path,) = plans(lake)
    for content in ('{"format":2}', "{", '{"format":1,"later":true}', ""):
        path.write_text(content)
        assert reason(elsewhere(lake).verify("view")) == "its plan cannot be read"


def test_the_plan_of_each_content_is_kept(lake, cache):
    """Each version of an entry is verified by its own."""
    cache.view("view", "SELECT count(*) AS n FROM facts")
    move_on(lake)
    cache.view("view", "SELECT count(*) + 1 AS n FROM facts")
    assert len(plans(lake)) == 2
    from deltawitness.cache.verify.verifier import Verifier

    uri = str(lake / "root/cache_views/view")
    verifier = Verifier(LedgerRoot(str(lake / "root")))
    found = [verifier.version("view", CacheScope.VIEW, uri, version) for version in (0, 1)]
    assert [told(each) for each in found] == [("reproducible", None)] * 2


@pytest.mark.internal_errors
def test_a_plan_that_cannot_be_kept_takes_nothing_from_the_result(lake, cache):
    """It is reported."""
    path = lake / "root/cache_views/view"
    path.mkdir(parents=True)
    (path / PLAN_DIRECTORY).write_text("in the way")
    assert cache.view("view", QUERIES["sum"]).count() == 4
    assert cache.explain("view").result == "hit"
    assert reason(elsewhere(lake).verify("view")) == "its plan was not kept"


OTHER_PROCESS = """
    import sys
    from deltawitness import DeltaCache, ObservedSessionContext
    cache = DeltaCache(ObservedSessionContext(), sys.argv[1])
    for name in sys.argv[2:]:
        print(cache.verify(name))
"""


@pytest.mark.slow
def test_another_process_makes_it_again(lake, ctx, cache):
    """With nothing but the cache and the tables."""
    names = ["sum", "joined", "both"]
    for name in names:
        cache.view(name, QUERIES[name])
    move_on(lake)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OTHER_PROCESS), str(lake / "root"), *names],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "sum 0: reproducible (4 rows)",
        "joined 0: reproducible (75 rows)",
        "both 0: reproducible (200 rows)",
    ]


def test_nothing_is_written_by_looking(lake, cache):
    """No commit, no file, neither of the entry nor of its inputs."""
    cache.view("view", QUERIES["joined"])
    move_on(lake)

    def everything():
        return {
            path: path.stat().st_mtime_ns
            for path in lake.rglob("*")
            if path.is_file() and "cache_locks" not in str(path)
        }

    before = everything()
    assert told(cache.verify("view")) == ("reproducible", None)
    assert everything() == before
