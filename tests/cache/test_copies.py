"""Local copies of remote entries: what a hit reads, and what it must still see."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, FileType

from deltawitness import (
    CachePolicy,
    DeltaCache,
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    Settings,
    flush,
)
from deltawitness.cache.entries.copies import EntryCopies
from deltawitness.exceptions import ConfigurationError
from deltawitness.locations import table_id
from deltawitness.session.core.state import session_of
from deltawitness.testing import InMemoryTelemetry
from helpers.request_counts import counted

pytestmark = pytest.mark.slow

DATA = pa.table({"x": [1, 2], "p": ["a b", "ü/%"]})
QUERY = "SELECT * FROM t"
ROWS = [(1, "a b"), (2, "ü/%")]


def rows_of(frame):
    found = frame.to_pydict()
    return sorted(zip(found["x"], found["p"], strict=True))


@pytest.fixture
def place(tmp_path):
    return f"s3://lake/{tmp_path.name}"


@pytest.fixture
def folder(tmp_path):
    """The folder of the copies, below that of the settings."""
    return tmp_path / "copies" / "entry_copies"


@pytest.fixture
def table(server, place):
    uri = f"{place}/t"
    write_deltalake(uri, DATA, storage_options=server.options)
    return uri


@pytest.fixture
def open_cache(server, place, table, tmp_path, folder):
    """Open the cache in a new session, as a new process does."""

    def open_cache(limit=1 << 30, *, copies=True):
        ctx = ObservedSessionContext()
        ctx.register_delta("t", table, storage_options=server.options)
        settings = Settings(
            spool_dir=str(tmp_path / "spools"),
            cache_copies=str(folder.parent) if copies else None,
            cache_copies_bytes=limit,
        )
        return ctx, DeltaCache(ctx, f"{place}/cache", server.options, settings=settings)

    return open_cache


@pytest.fixture
def requests(server):
    def requests(act):
        def whole():
            act()
            flush()

        flush()
        return server.requests(whole)

    return requests


def overwrite(server, uri, rows, mode="overwrite"):
    write_deltalake(uri, rows, mode=mode, storage_options=server.options)


def copies_in(folder):
    return sorted(path.parent for path in folder.glob("*/*/manifest.json"))


def data_of(copy):
    return sorted(path for path in copy.glob("table/**/*.parquet"))


@pytest.fixture
def copied(open_cache):
    """A copied entry, whose first session is gone."""
    cache = open_cache()[1]
    for _ in range(2):
        cache.view("v", QUERY)
    del cache
    gc.collect()  # a lock of the copy ends with its session


def test_a_hit_of_a_new_process_reads_no_data_and_opens_no_table(open_cache, requests, copied):
    """It checks the input and the entry, with two requests each, at the same time."""
    _, cache = open_cache()
    found = []
    for _ in range(2):
        hit = requests(lambda: found.append(rows_of(cache.view("v", QUERY))))
        assert counted(hit) == {"GET commit": 4}
        assert sorted(line.split()[-1] for line in hit) == ["206", "206", "404", "404"]
    assert found == [ROWS, ROWS]
    assert str(cache.explain("v")) == "v: hit"


def test_the_first_hit_copies_each_file_once(open_cache, requests, folder):
    """A miss copies nothing; the second hit reads nothing but the two freshness checks."""
    _, cache = open_cache()
    assert rows_of(cache.view("v", QUERY)) == ROWS
    assert copies_in(folder) == []
    first = requests(lambda: cache.view("v", QUERY))
    assert counted(first)["GET data"] == 1
    assert counted(first)["LIST log"] == 1
    (copy,) = copies_in(folder)
    second = requests(lambda: rows_of(cache.view("v", QUERY)))
    assert counted(second) == {"GET commit": 4}
    assert copies_in(folder) == [copy]


def test_partitions_and_empty_entries_are_copied(open_cache, requests):
    """Names of partitions are encoded twice in a log, and an entry without rows has no file."""
    policy = CachePolicy("by_p", partition_by="p")
    for name, query, rows in (("v", QUERY, ROWS), ("w", f"{QUERY} WHERE x > 5", [])):
        for _ in range(2):
            open_cache()[1].view(name, query, policy=policy)
        _, cache = open_cache()
        found = []
        hit = requests(lambda: found.append(rows_of(cache.view(name, query, policy=policy))))  # noqa: B023 - called at once
        assert (found, counted(hit)) == ([rows], {"GET commit": 4})


def test_the_schema_is_that_of_the_remote_entry(open_cache, copied):
    """A program sees the same types with and without a copy."""
    _, cache = open_cache()
    _, plain = open_cache(copies=False)
    assert cache.view("v", QUERY).schema() == plain.view("v", QUERY).schema()


def test_a_write_that_reads_the_entry_names_the_remote_table(server, open_cache, copied, place):
    """Lineage has the location and the version of the entry, not those of its copy."""
    inputs = []
    for copies in (True, False):
        ctx, cache = open_cache(copies=copies)
        cache.view("v", QUERY)
        target = f"{place}/target-{copies}"
        frame = ctx.sql("SELECT x FROM v")
        frame.write_delta(target, storage_options=server.options)
        (commit,) = DeltaTable(target, storage_options=server.options).history(1)
        inputs.append(commit["inputs"])
        registered = next(iter(session_of(ctx).names.snapshot))
        assert table_id(registered.uri) == registered.table_id
    assert inputs[0] == inputs[1]
    assert table_id(f"{place}/cache/cache_views/v") in json.dumps(inputs[0])


def test_changes_by_others_are_seen(open_cache, server, table, place, copied):
    """An entry that was overwritten, invalidated or pruned is not served from a copy."""
    _, cache = open_cache()
    assert rows_of(cache.view("v", QUERY)) == ROWS
    overwrite(server, table, pa.table({"x": [5], "p": ["c"]}))
    assert rows_of(open_cache(copies=False)[1].view("v", QUERY)) == [(5, "c")]
    for each in (cache, open_cache()[1]):
        assert rows_of(each.view("v", QUERY)) == [(5, "c")]
    _, other = open_cache()
    other.invalidate("v")
    assert str(cache.explain("v")) == "v: miss (invalidated)"
    assert rows_of(open_cache()[1].view("v", QUERY)) == [(5, "c")]
    open_cache(copies=False)[1].prune(older_than=timedelta(microseconds=1))
    _, after = open_cache()
    assert rows_of(after.view("v", QUERY)) == [(5, "c")]
    assert after.explain("v").version > 2
    overwrite(server, f"{place}/cache/cache_views/v", pa.table({"x": [7], "p": ["d"]}))
    assert "another writer changed its table" in str(after.explain("v"))


def test_an_entry_that_was_created_again_is_seen(open_cache, server, table, place, copied):
    """An entry with the same version and other content is not the copied one."""
    store = DeltaStorageHandler(f"{place}/cache/cache_views/v", server.options)
    for info in store.get_file_info_selector(FileSelector("", recursive=True)):
        if info.type is FileType.File:
            store.delete_file(info.path)
    overwrite(server, table, pa.table({"x": [5], "p": ["c"]}))
    _, other = open_cache(copies=False)
    other.view("v", QUERY)
    assert other.explain("v").version == 0
    _, cache = open_cache()
    assert rows_of(cache.view("v", QUERY)) == [(5, "c")]


def truncate(copy):
    os.truncate(data_of(copy)[0], 10)


def rewrite(copy):
    file = data_of(copy)[0]
    file.write_bytes(bytes(file.stat().st_size))


def delete_data(copy):
    data_of(copy)[0].unlink()


def delete_log(copy):
    next(copy.glob("table/_delta_log/*.json")).unlink()


def break_manifest(copy):
    (copy / "manifest.json").write_text("{")


@pytest.mark.parametrize("damage", [truncate, rewrite, delete_data, delete_log, break_manifest])
@pytest.mark.one_case_in(2)
def test_a_damaged_copy_is_rebuilt(open_cache, folder, copied, damage):
    """A copy whose files have changed is not served, by a running session or a new one."""
    _, running = open_cache()
    assert rows_of(running.view("v", QUERY)) == ROWS
    (copy,) = copies_in(folder)
    damage(copy)
    assert rows_of(running.view("v", QUERY)) == ROWS
    assert rows_of(open_cache()[1].view("v", QUERY)) == ROWS
    rebuilt = [each for each in copies_in(folder) if each != copy]
    assert len(rebuilt) == (0 if damage is break_manifest and copies_in(folder) == [copy] else 1)


def test_a_deleted_folder_is_no_failure(open_cache, folder, copied):
    """A user may delete the folder with all copies at any time."""
    _, running = open_cache()
    assert rows_of(running.view("v", QUERY)) == ROWS
    shutil.rmtree(folder)
    assert rows_of(running.view("v", QUERY)) == ROWS
    assert rows_of(open_cache()[1].view("v", QUERY)) == ROWS
    assert len(copies_in(folder)) == 1


def test_prune_removes_the_copies(open_cache, folder, copied):
    """A retention also holds for the rows in the local copies; other files of the folder stay."""
    own = folder.parent / "own" / "notes"
    own.mkdir(parents=True)
    open_cache()[1].prune(older_than=timedelta(microseconds=1))
    assert copies_in(folder) == []
    assert own.exists()


def test_a_copy_in_progress_is_not_served(open_cache, folder, copied):
    """A folder that a dead process left incomplete is removed by the next copy."""
    (copy,) = copies_in(folder)
    (copy / "manifest.json").unlink()
    rest = folder / ".partial" / "dead"
    (rest / "table").mkdir(parents=True)
    _, cache = open_cache()
    assert rows_of(cache.view("v", QUERY)) == ROWS
    assert not rest.exists()
    assert not copy.exists()
    assert len(copies_in(folder)) == 1


@pytest.mark.internal_errors
def test_without_a_writable_folder_the_entry_is_served(open_cache, folder, copied):
    """The copies are an optimization: a failure is reported, and the entry is read from its table."""
    shutil.rmtree(folder.parent)
    folder.parent.write_text("a file is in the way")
    _, cache = open_cache()
    assert rows_of(cache.view("v", QUERY)) == ROWS


def test_the_least_recently_used_copies_are_removed(open_cache, folder, place):
    """Beyond the limit a new copy replaces the one that was used longest ago, unless it is in use."""
    ctx, cache = open_cache()
    for name in ("v", "w"):
        for _ in range(2):
            cache.view(name, f"SELECT *, '{name}' AS n FROM t")
    sizes = {
        copy.parent.name: sum(
            size for size, _ in json.loads((copy / "manifest.json").read_text())["files"].values()
        )
        for copy in copies_in(folder)
    }
    assert len(sizes) == 2
    limit = sum(sizes.values()) + min(sizes.values()) // 2
    used = {table_id(f"{place}/cache/cache_views/{name}"): name for name in ("u", "v", "w")}

    def copy_third():
        _, small = open_cache()
        small._entries._copies = EntryCopies(folder, limit)
        small.view("w", "SELECT *, 'w' AS n FROM t")
        for _ in range(2):
            small.view("u", "SELECT *, 'u' AS n FROM t")
        return "".join(sorted(used[copy.parent.name] for copy in copies_in(folder)))

    assert copy_third() == "vw"  # both are in use
    del ctx, cache
    gc.collect()
    assert copy_third() == "uw"


def test_an_entry_beyond_the_limit_is_not_copied(open_cache, folder, requests):
    """It is served from its table, and its log is listed once, not at each hit."""
    import numpy as np

    big = pa.table({"x": np.random.default_rng(0).random(20_000), "p": ["a"] * 20_000})
    ctx, cache = open_cache(1 << 16)
    ctx.from_arrow(big, "big")
    cache.view("v", "SELECT * FROM big")
    cache.view("v", "SELECT * FROM big")
    hit = requests(lambda: cache.view("v", "SELECT * FROM big"))
    assert counted(hit) == {"GET commit": 2}
    assert copies_in(folder) == []


def test_names_have_no_credentials(open_cache, folder, copied, server):
    """Names and the manifest have hashes; the copied files are those of the table."""
    (copy,) = copies_in(folder)
    for path in folder.rglob("*"):
        assert "lake" not in str(path.relative_to(folder))
        assert server.options["AWS_ENDPOINT_URL"] not in str(path)
    assert set(json.loads((copy / "manifest.json").read_text())) == {
        "format",
        "version",
        "digest",
        "files",
    }
    if sys.platform != "win32":
        assert copy.stat().st_mode & 0o077 == 0
        assert all(path.stat().st_mode & 0o077 == 0 for path in data_of(copy))


def test_the_span_of_a_hit_names_its_source(open_cache, copied):
    """With copies on, `cache.hit.source` is what the hit is served from."""
    memory = InMemoryTelemetry.create()
    DeltaLakeInstrumentor().instrument(settings=Settings(), **memory.providers())
    _, cache = open_cache()
    cache.view("v", QUERY)
    flush()
    spans = [span for span in memory.spans() if span.name == "cache.read"]
    assert spans[-1].attributes["cache.hit.source"] == "copy"


PROGRAM = """
import json, sys
from deltawitness import DeltaCache, ObservedSessionContext, Settings
table, root, folder, spools, options = sys.argv[1:]
options = json.loads(options)
ctx = ObservedSessionContext()
ctx.register_delta("t", table, storage_options=options)
settings = Settings(cache_copies=folder, spool_dir=spools)
cache = DeltaCache(ctx, root, options, settings=settings)
frames = [cache.view("v", "SELECT * FROM t") for _ in range(3)]
print("ready", flush=True)
sys.stdin.readline()
print(sorted(frames[-1].to_pydict()["x"]), flush=True)
"""


def start(server, place, table, folder, tmp_path):
    arguments = [table, f"{place}/cache", str(folder.parent), str(tmp_path / "spools")]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments, json.dumps(server.options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_share_one_copy(open_cache, server, place, table, folder, tmp_path, size):
    """Processes that copy an entry at the same time leave one copy, which each of them can read."""
    open_cache()[1].view("v", QUERY)
    processes = [start(server, place, table, folder, tmp_path) for _ in range(size(3, 3, 2))]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    assert len(copies_in(folder)) == 1
    for process in processes:
        output, _ = process.communicate("\n", timeout=60)
        assert (output, process.returncode) == ("[1, 2]\n", 0)


def test_a_copy_that_a_process_uses_is_not_removed(
    open_cache, server, place, table, folder, tmp_path
):
    """A removal skips a copy that a process reads, until the process ends."""
    open_cache()[1].view("v", QUERY)
    process = start(server, place, table, folder, tmp_path)
    assert process.stdout.readline() == "ready\n"
    (copy,) = copies_in(folder)
    copies = EntryCopies(folder, 1 << 16)
    assert not copies._free(1 << 16)
    assert copies_in(folder) == [copy]
    output, _ = process.communicate("\n", timeout=60)
    assert output == "[1, 2]\n"
    assert copies._free(1 << 16)
    assert copies_in(folder) == []


def test_the_folder_must_be_local():
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_CACHE_COPIES: expected a path"):
        Settings(cache_copies="s3://lake/copies")


def test_a_local_cache_makes_no_copies(tmp_path, folder):
    ctx = ObservedSessionContext()
    write_deltalake(str(tmp_path / "t"), DATA)
    ctx.register_delta("t", str(tmp_path / "t"))
    cache = DeltaCache(ctx, tmp_path / "cache", settings=Settings(cache_copies=str(folder.parent)))
    for _ in range(2):
        assert rows_of(cache.view("v", QUERY)) == ROWS
    assert not Path(folder.parent).exists()
