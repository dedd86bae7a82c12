"""`verify` recomputes entries from the recorded versions of their inputs, and compares the rows."""

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
from deltawitness.cache.verify import compare
from deltawitness.cache.verify.results import Verdict
from deltawitness.exceptions import CacheError
from deltawitness.ledger.tables.schema import LedgerRoot
from deltawitness.semconv import PLAN_DIRECTORY, CacheScope

ROWS = pa.table(
    {"id": range(100), "part": [n % 4 for n in range(100)], "x": [n / 7 for n in range(100)]}
)


@pytest.fixture
def lake(tmp_path):
    """A folder with two Delta tables."""
    write_deltalake(tmp_path / "facts", ROWS)
    write_deltalake(tmp_path / "names", pa.table({"part": range(4), "name": list("abcd")}))
    return tmp_path


def session(lake):
    """A session with the two tables, and one of them at its first version as well."""
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


def in_new_session(lake):
    """The cache in another session, without tables and definitions."""
    return DeltaCache(ObservedSessionContext(), lake / "root")


def change_tables(lake):
    """Append to one table and update the other."""
    write_deltalake(lake / "facts", ROWS.slice(0, 10), mode="append")
    DeltaTable(lake / "names").update(updates={"name": "'z'"}, predicate="part = 1")


def verdict_of(verified):
    """The verdict and the reason."""
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


@pytest.mark.slow
@pytest.mark.parametrize("name", QUERIES)
def test_a_query_is_recomputed_at_the_recorded_versions(name, lake, cache):
    """A query is recomputed at the recorded versions, in its own session and in an empty one."""
    kept = cache.view(name, QUERIES[name]).count()
    assert verdict_of(cache.verify(name)) == ("reproducible", None)
    change_tables(lake)
    for asked in (cache, in_new_session(lake)):
        verified = asked.verify(name)
        assert verdict_of(verified) == ("reproducible", None)
        assert (verified.rows_kept, verified.rows_now, verified.version) == (kept, kept, 0)


@pytest.mark.slow
def test_a_frame_is_recomputed_from_substrait(lake, ctx, cache):
    """A view defined by a frame is recomputed from its Substrait plan."""
    frame = ctx.table("facts").filter("part = 2").select("id", "x")
    assert cache.view("frame", frame).count() == 25
    change_tables(lake)
    assert verdict_of(cache.verify("frame")) == ("reproducible", None)
    assert verdict_of(in_new_session(lake).verify("frame")) == ("reproducible", None)


@pytest.mark.slow
def test_a_stored_plan_contains_the_views_of_the_session(lake, ctx, cache):
    """A stored plan contains the content of the session's views, which another session lacks."""
    ctx.sql("CREATE VIEW even AS SELECT id, part FROM facts WHERE id % 2 = 0")
    assert cache.view("count", "SELECT part, count(*) AS n FROM even GROUP BY part").count() == 2
    change_tables(lake)
    assert verdict_of(cache.verify("count")) == ("reproducible", None)
    assert verdict_of(in_new_session(lake).verify("count")) == ("reproducible", None)


@pytest.mark.slow
def test_a_view_over_a_cached_view_is_recomputed(lake, cache):
    """A cached view is an input like any other Delta table."""
    cache.view("sums", QUERIES["sum"])
    cache.view("top", "SELECT max(total) AS m FROM sums")
    assert verdict_of(cache.verify("top")) == ("reproducible", None)
    assert verdict_of(in_new_session(lake).verify("top")) == ("reproducible", None)


def test_quoted_names_and_other_catalogs_are_resolved(lake, cache, ctx):
    """Names in other catalogs and quoted names resolve to the same tables."""
    ctx.register_delta('"Facts of ""A"""', lake / "facts")
    cache.view("quoted", 'SELECT count(*) AS n FROM "Facts of ""A"""')
    change_tables(lake)
    assert verdict_of(in_new_session(lake).verify("quoted")) == ("reproducible", None)


@pytest.mark.slow
def test_the_recorded_settings_are_used(lake):
    """The recorded time zone is used in a session that has none."""
    ctx = session(lake)
    ctx.sql("SET datafusion.execution.time_zone = '+05:00'").collect()
    cache = DeltaCache(ctx, lake / "root")
    cache.view("zone", "SELECT id, CAST('2024-02-29T00:00:00' AS TIMESTAMPTZ) AS t FROM facts")
    change_tables(lake)
    assert verdict_of(cache.verify("zone")) == ("reproducible", None)
    assert verdict_of(in_new_session(lake).verify("zone")) == ("reproducible", None)


@pytest.mark.slow
def test_spark_functions_are_enabled_again(lake):
    """Spark functions are enabled again if the recorded session had them."""
    ctx = session(lake)
    ctx.enable_spark_functions()
    cache = DeltaCache(ctx, lake / "root")
    cache.view("spark", "SELECT id, ceil(x) AS up FROM facts")
    change_tables(lake)
    assert verdict_of(cache.verify("spark")) == ("reproducible", None)
    assert verdict_of(in_new_session(lake).verify("spark")) == ("reproducible", None)


@pytest.mark.slow
def test_a_dataset_is_recomputed(lake, cache):
    """A dataset is recomputed from a Delta table at its version, and from unchanged files."""
    pq.write_table(ROWS, lake / "rows.parquet")
    cache.dataset("files", lake / "rows.parquet")
    cache.dataset("table", lake / "facts")
    change_tables(lake)
    for asked in (cache, in_new_session(lake)):
        assert [verdict_of(asked.verify(name)) for name in ("files", "table")] == [
            ("reproducible", None)
        ] * 2


# --- verdict: differs ----------------------------------------------------------------------------------------


def register(ctx, act, kind=None):
    """Register a user-defined function `f`."""
    kind = kind or pa.int64()
    ctx.register_udf(udf(act, [kind], kind, "immutable", "f"))


def verify_with_changed_function(lake, query, before, after, kind=None):
    """Store a view, change its function without a new version, and verify."""
    ctx = session(lake)
    register(ctx, before, kind)
    DeltaCache(ctx, lake / "root").view("view", query, functions={"f": "1"})
    other = session(lake)
    register(other, after, kind)
    cache = DeltaCache(other, lake / "root")
    cache.view("view", query, functions={"f": "1"})
    return cache.verify("view")


@pytest.mark.slow
def test_a_difference_names_columns_and_row_count(lake):
    """A difference names exactly the columns that differ, and the number of rows."""
    verified = verify_with_changed_function(
        lake,
        "SELECT id, f(id) AS g FROM facts",
        lambda a: a,
        lambda a: pc.add(a, pc.cast(pc.equal(a, 7), pa.int64())),
    )
    assert (verified.verdict, verified.columns) == (Verdict.DIFFERS, ("g",))
    assert (verified.rows_kept, verified.rows_now) == (100, 100)
    assert str(verified) == "view 0: differs (g; 100 rows stored, 100 recomputed)"


@pytest.mark.slow
def test_other_rows_are_counted(lake):
    """With more or fewer rows, every column differs."""
    verified = verify_with_changed_function(
        lake, "SELECT id, part FROM facts WHERE f(id) < 50", lambda a: a, lambda a: pc.add(a, 1)
    )
    assert (verified.verdict, verified.columns) == (Verdict.DIFFERS, ("id", "part"))
    assert (verified.rows_kept, verified.rows_now) == (50, 49)


@pytest.mark.slow
def test_values_combined_into_other_rows_are_a_difference(lake):
    """Equal columns whose values are combined into other rows are a difference."""
    verified = verify_with_changed_function(
        lake, "SELECT id, f(id) AS g FROM facts", lambda a: a, lambda a: pc.subtract(99, a)
    )
    assert (verified.verdict, verified.columns) == (Verdict.DIFFERS, ())
    assert "the same values in other rows" in str(verified)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("off_by", "verdict", "rounded", "columns"),
    [(1e-12, "reproducible", ("g",), ()), (1e-6, "differs", (), ("g",))],
)
def test_the_order_of_a_sum_is_no_difference(off_by, verdict, rounded, columns, lake):
    """Floats that differ by at most 1e-9 are equal, and are reported as rounded."""
    verified = verify_with_changed_function(
        lake,
        "SELECT CAST(id AS VARCHAR) AS t, f(x) AS g, [id, NULL] AS l FROM facts",
        lambda a: a,
        lambda a: pc.multiply(a, 1 + off_by),
        pa.float64(),
    )
    assert (verified.verdict, verified.rounded, verified.columns) == (verdict, rounded, columns)


def test_many_rows_are_not_compared_pairwise(lake, monkeypatch):
    """They would have to be sorted in memory: floats that differ at all are then a difference."""
    monkeypatch.setattr(compare, "ROUNDING_LIMIT", 1)
    verified = verify_with_changed_function(
        lake,
        "SELECT CAST(id AS VARCHAR) AS t, f(x) AS g FROM facts",
        lambda a: a,
        lambda a: pc.multiply(a, 1 + 1e-12),
        pa.float64(),
    )
    assert (verified.verdict, verified.columns) == (Verdict.DIFFERS, ("g",))


# --- verdict: cannot_tell ---------------------------------------------------------------------------------------


def reason(verified):
    assert verified.verdict is Verdict.CANNOT_TELL
    assert (verified.columns, verified.rounded) == ((), ()) or "volatile" in verified.reason
    return verified.reason


@pytest.mark.slow
def test_a_missing_function_cannot_be_reproduced(lake, ctx, cache):
    """A function that the session lacks, or has in another version, cannot be reproduced."""
    register(ctx, lambda a: a)
    query = "SELECT f(id) AS g FROM facts"
    cache.view("view", query, functions={"f": "1"})
    change_tables(lake)
    assert verdict_of(cache.verify("view")) == ("reproducible", None)
    assert reason(in_new_session(lake).verify("view")) == "user-defined function missing: f 1"


@pytest.mark.slow
def test_a_volatile_function_cannot_be_reproduced(lake, cache):
    """A volatile function cannot be reproduced, unless the rows are equal anyway."""
    hourly = CachePolicy("hourly", max_age=timedelta(hours=1))
    cache.view("drawn", "SELECT id, random() AS r FROM facts", policy=hourly)
    assert reason(cache.verify("drawn")) == "random() is volatile"
    cache.view("certain", "SELECT id FROM facts WHERE random() < 2", policy=hourly)
    assert verdict_of(in_new_session(lake).verify("certain")) == ("reproducible", None)


@pytest.mark.slow
def test_an_in_memory_table_needs_its_session(lake, ctx, cache):
    """An in-memory table can be read in its session only."""
    ctx.from_arrow(pa.table({"part": [1]}), name="wanted")
    cache.view("view", "SELECT id FROM facts JOIN wanted USING (part)")
    change_tables(lake)
    assert verdict_of(cache.verify("view")) == ("reproducible", None)
    assert (
        reason(in_new_session(lake).verify("view"))
        == "inputs available only in the original session: wanted"
    )
    ctx.deregister_table("wanted")
    ctx.from_arrow(pa.table({"part": [2]}), name="wanted")
    assert "wanted" in reason(cache.verify("view"))


@pytest.mark.slow
def test_changed_or_missing_files_cannot_be_reproduced(lake, ctx, cache):
    """Changed or missing files of a view or a dataset cannot be reproduced."""
    path = lake / "rows.parquet"
    pq.write_table(ROWS, path)
    ctx.register_parquet("rows", path)
    cache.view("view", "SELECT sum(id) AS s FROM rows")
    cache.dataset("dataset", path)
    pq.write_table(ROWS.slice(0, 50), path)
    assert "changed" in reason(cache.verify("view"))
    for asked in (cache, in_new_session(lake)):
        assert reason(asked.verify("dataset")) == "input changed: file changed: rows.parquet"
    path.unlink()
    assert (
        reason(in_new_session(lake).verify("dataset"))
        == "input gone: its source files are missing or of another format"
    )
    assert cache.verify("view").verdict is Verdict.CANNOT_TELL


def test_a_vacuumed_version_cannot_be_reproduced(lake, cache):
    """A version that is still in the log but whose files were vacuumed cannot be reproduced."""
    cache.view("view", QUERIES["sum"])
    change_tables(lake)
    DeltaTable(lake / "facts").optimize.compact()
    DeltaTable(lake / "facts").vacuum(0, dry_run=False, enforce_retention_duration=False)
    for asked in (cache, in_new_session(lake)):
        assert (
            reason(asked.verify("view"))
            == "version vacuumed: data files of facts version 0 are missing"
        )


def test_a_version_without_a_commit_cannot_be_reproduced(lake, cache):
    """A version whose commit was cleaned up after a checkpoint cannot be reproduced."""
    cache.view("view", QUERIES["sum"])
    change_tables(lake)
    table = DeltaTable(lake / "facts")
    table.create_checkpoint()
    os.remove(lake / "facts/_delta_log/00000000000000000000.json")
    assert (
        reason(in_new_session(lake).verify("view")) == "version gone: facts no longer has version 0"
    )


def test_a_deleted_or_recreated_input_cannot_be_reproduced(lake, cache):
    """An input that was deleted or recreated cannot be reproduced."""
    cache.view("view", QUERIES["sum"])
    shutil.move(lake / "facts", lake / "away")
    assert (
        reason(in_new_session(lake).verify("view")) == "input gone: the table facts does not exist"
    )
    write_deltalake(lake / "facts", ROWS)
    assert reason(in_new_session(lake).verify("view")) == "input gone: facts was recreated"


def test_an_input_restored_from_a_copy_cannot_be_reproduced(lake, cache):
    """An input restored from a copy has the same version number with other rows: it cannot be reproduced."""
    shutil.copytree(lake / "facts", lake / "copy")
    change_tables(lake)
    cache.view("view", QUERIES["sum"])
    shutil.rmtree(lake / "facts")
    shutil.move(lake / "copy", lake / "facts")
    write_deltalake(lake / "facts", ROWS.slice(3, 4), mode="append")
    assert (
        reason(in_new_session(lake).verify("view"))
        == "input gone: version 1 of facts now has other content"
    )


def test_a_stream_needs_its_session(lake, cache):
    """A dataset of a stream can be reproduced only in the session that still has its rows."""
    cache.dataset("stream", pa.RecordBatchReader.from_batches(ROWS.schema, ROWS.to_batches()))
    assert verdict_of(cache.verify("stream")) == ("reproducible", None)
    assert (
        reason(in_new_session(lake).verify("stream"))
        == "its source was a stream or an in-memory table"
    )


def test_entries_without_a_plan(lake, cache):
    """Artifacts and metadata snapshots have no plan to run again."""
    cache.artifact("model", {"a": 1})
    cache.snapshot(["inputs"])
    assert reason(cache.verify("model")) == "an artifact has no plan to run again"
    assert reason(cache.verify("session_inputs")) == "a metadata snapshot has no plan to run again"


@pytest.mark.internal_errors
def test_an_invalidated_or_damaged_entry(lake, cache):
    """An invalidated or damaged entry gives `cannot_tell`, raises nothing and changes nothing."""
    cache.view("view", QUERIES["sum"])
    cache.invalidate("view")
    assert reason(cache.verify("view")) == "it was invalidated"
    cache.view("view", QUERIES["sum"])
    for path in (lake / "root/cache_views/view").glob("*.parquet"):
        path.write_bytes(b"")
    assert reason(cache.verify("view")).startswith("damaged: ")


def test_an_absent_entry_is_an_error(cache):
    """Verifying an absent entry or an invalid name raises."""
    with pytest.raises(CacheError, match="there is no entry nothing"):
        cache.verify("nothing")


# --- plans ---------------------------------------------------------------------------------------------------


def plans(lake, scope="cache_views"):
    return sorted((lake / "root" / scope).glob(f"*/{PLAN_DIRECTORY}/*"))


def test_a_plan_is_only_in_the_folder_of_its_entry(lake, cache):
    """A plan is in its entry's folder only, readable for its owner, and complete; no other file has its literals."""
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


def test_plans_can_be_switched_off(lake, ctx):
    """Without stored plans, only the session with the definition can verify an entry."""
    cache = DeltaCache(ctx, lake / "root", settings=Settings(keep_plans=False))
    cache.view("view", QUERIES["sum"])
    assert plans(lake) == []
    change_tables(lake)
    assert verdict_of(cache.verify("view")) == ("reproducible", None)
    assert reason(in_new_session(lake).verify("view")) == "no plan was stored"


def test_an_unreadable_plan_is_the_reason(lake, cache):
    """A plan of a later release or a damaged plan is the reason of `cannot_tell`."""
    cache.view("view", QUERIES["sum"])
    (path,) = plans(lake)
    for content in ('{"format":2}', "{", '{"format":1,"later":true}', ""):
        path.write_text(content)
        assert reason(in_new_session(lake).verify("view")) == "its plan cannot be read"


@pytest.mark.slow
def test_each_version_has_its_own_plan(lake, cache):
    """Each version of an entry is verified with its own plan."""
    cache.view("view", "SELECT count(*) AS n FROM facts")
    change_tables(lake)
    cache.view("view", "SELECT count(*) + 1 AS n FROM facts")
    assert len(plans(lake)) == 2
    from deltawitness.cache.verify.verifier import Verifier

    uri = str(lake / "root/cache_views/view")
    verifier = Verifier(LedgerRoot(str(lake / "root")))
    found = [verifier.verify_version("view", CacheScope.VIEW, uri, version) for version in (0, 1)]
    assert [verdict_of(each) for each in found] == [("reproducible", None)] * 2


@pytest.mark.internal_errors
def test_an_entry_is_stored_without_a_plan_that_cannot_be_written(lake, cache):
    """A plan that cannot be written is reported; the entry is stored without it."""
    path = lake / "root/cache_views/view"
    path.mkdir(parents=True)
    (path / PLAN_DIRECTORY).write_text("in the way")
    assert cache.view("view", QUERIES["sum"]).count() == 4
    assert cache.explain("view").result == "hit"
    assert reason(in_new_session(lake).verify("view")) == "no plan was stored"


OTHER_PROCESS = """
    import sys
    from deltawitness import DeltaCache, ObservedSessionContext
    cache = DeltaCache(ObservedSessionContext(), sys.argv[1])
    for name in sys.argv[2:]:
        print(cache.verify(name))
"""


@pytest.mark.slow
def test_another_process_verifies_an_entry(lake, ctx, cache):
    """Another process verifies an entry with only the cache and the tables."""
    names = ["sum", "joined", "both"]
    for name in names:
        cache.view(name, QUERIES[name])
    change_tables(lake)
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


@pytest.mark.slow
def test_verifying_writes_nothing(lake, cache):
    """Verifying writes no commit and no file, neither of the entry nor of its inputs."""
    cache.view("view", QUERIES["joined"])
    change_tables(lake)

    def everything():
        return {
            path: path.stat().st_mtime_ns
            for path in lake.rglob("*")
            if path.is_file() and "cache_locks" not in str(path)
        }

    before = everything()
    assert verdict_of(cache.verify("view")) == ("reproducible", None)
    assert everything() == before
