"""`prune` deletes rows of expired entries and files of replaced versions, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from datetime import timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    CachePolicy,
    DeltaCache,
    DeltaLakeInstrumentor,
    Ledger,
    ObservedSessionContext,
    Settings,
)
from deltawitness.cache.entries import locks
from deltawitness.cache.entries.prune import PruneResult
from deltawitness.exceptions import CacheError, ConfigurationError
from deltawitness.ids_and_clock import now_ns
from deltawitness.semconv import PLAN_DIRECTORY
from deltawitness.testing import fixed_clock

QUERY = "SELECT sum(id) AS total FROM facts"
DAY = timedelta(days=1)
WEEKLY = CachePolicy("weekly", retention=timedelta(days=7))


@pytest.fixture
def ctx(tmp_path):
    write_deltalake(tmp_path / "facts", pa.table({"id": range(10)}))
    ctx = ObservedSessionContext()
    ctx.register_delta("facts", tmp_path / "facts")
    return ctx


@pytest.fixture
def cache(tmp_path, ctx):
    return DeltaCache(ctx, tmp_path / "root")


def append_row(tmp_path):
    write_deltalake(tmp_path / "facts", pa.table({"id": [100]}), mode="append")


def later(**span):
    """Set the clock ahead."""
    return fixed_clock(now_ns() + int(timedelta(**span).total_seconds() * 1e9))


def files_of(tmp_path, name, folder="cache_views"):
    return sorted(path.name for path in (tmp_path / "root" / folder / name).glob("*.parquet"))


def age_versions(tmp_path, name, days):
    """Rewrite the log of an entry, so that its versions were replaced some days ago."""
    for path in (tmp_path / "root/cache_views" / name / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        for action in actions:
            if "remove" in action:
                action["remove"]["deletionTimestamp"] -= days * 86_400_000
        path.write_text("\n".join(map(json.dumps, actions)) + "\n")


def test_an_entry_without_a_retention_is_not_pruned(tmp_path, cache):
    """An entry without a retention is never pruned."""
    cache.view("view", QUERY)
    with later(days=5000):
        assert cache.prune() == PruneResult()
    assert cache.explain("view").result == "hit"


@pytest.mark.parametrize("span", [timedelta(0), timedelta(days=-1)])
def test_older_than_must_be_positive(span, cache):
    """`older_than` of zero or less is refused."""
    cache.view("view", QUERY)
    with pytest.raises(ConfigurationError, match=r"^prune: older_than must be greater than zero$"):
        cache.prune(older_than=span)
    assert cache.explain("view").result == "hit"


def test_the_longest_retention_never_expires(cache):
    """`timedelta.max` as retention never expires, although it overflows the engine's clock."""
    cache.view("view", QUERY, policy=CachePolicy("for_ever", retention=timedelta.max))
    assert cache.prune() == PruneResult()


@pytest.mark.slow
def test_an_expired_entry_loses_its_rows(tmp_path, cache):
    """An expired entry loses its rows, files and plan; it is then a miss with the reason `pruned`."""
    cache.view("view", QUERY, policy=WEEKLY)
    with later(days=6):
        assert cache.prune() == PruneResult()
    size = os.stat(tmp_path / "root/cache_views/view" / files_of(tmp_path, "view")[0]).st_size
    with later(days=8):
        assert cache.prune() == PruneResult(entries=("view",), files=1, bytes=size)
        assert cache.prune() == PruneResult()
    assert files_of(tmp_path, "view") == []
    assert list((tmp_path / "root/cache_views/view" / PLAN_DIRECTORY).iterdir()) == []
    assert str(cache.explain("view")) == "view: miss (pruned)"
    assert [(entry.name, entry.problem) for entry in cache.list()] == [("view", "pruned")]
    assert cache.view("view", QUERY, policy=WEEKLY).to_pydict() == {"total": [45]}
    assert cache.explain("view").result == "hit"


@pytest.mark.slow
def test_every_kind_of_entry_is_pruned(tmp_path, cache):
    """`older_than` prunes views, datasets, artifacts and snapshots, whatever their retention."""
    cache.view("view", QUERY)
    cache.dataset("dataset", tmp_path / "facts")
    cache.artifact("artifact", {"a": 1})
    cache.snapshot("inputs")
    with later(hours=3):
        assert cache.prune(older_than=timedelta(hours=4)) == PruneResult()
        pruned = cache.prune(older_than=timedelta(hours=2))
    assert pruned.entries == ("view", "dataset", "artifact", "session_inputs")
    assert pruned.files == 4
    assert {entry.problem for entry in cache.list()} == {"pruned"}
    with pytest.raises(CacheError, match="there is no artifact artifact"):
        cache.load_artifact("artifact")


def test_an_entry_without_rows_is_pruned_as_well(tmp_path, cache):
    """An expired entry without rows is marked as pruned, although DELETE commits nothing."""
    cache.view("empty", "SELECT id FROM facts WHERE id > 1000")
    with later(days=2):
        assert cache.prune(older_than=DAY).entries == ("empty",)
    assert str(cache.explain("empty")) == "empty: miss (pruned)"


@pytest.mark.slow
def test_a_policy_prunes_the_entries_with_its_name(tmp_path, cache):
    """`prune(policy)` prunes entries stored under that name, by the retention of the given policy."""
    cache.view("one", QUERY, policy=CachePolicy("short"))
    cache.view("other", QUERY, policy=CachePolicy("long"))
    with later(days=2):
        assert cache.prune(CachePolicy("short", retention=DAY)).entries == ("one",)
    assert cache.explain("other").result == "hit"


@pytest.mark.slow
def test_old_versions_of_a_live_entry_lose_their_files(tmp_path, cache):
    """Files of versions replaced longer ago than the retention are deleted; the entry stays a hit."""
    cache.view("view", QUERY, policy=WEEKLY)
    (old,) = files_of(tmp_path, "view")
    for _ in range(2):
        append_row(tmp_path)
        cache.view("view", QUERY, policy=WEEKLY)
    assert len(files_of(tmp_path, "view")) == 3
    assert cache.prune() == PruneResult()
    age_versions(tmp_path, "view", days=8)
    pruned = cache.prune()
    assert (pruned.entries, pruned.vacuumed, pruned.files) == ((), ("view",), 2)
    assert old not in files_of(tmp_path, "view")
    assert cache.explain("view").result == "hit"
    assert cache.view("view", QUERY, policy=WEEKLY).to_pydict() == {"total": [245]}
    assert cache.prune() == PruneResult()


@pytest.mark.slow
def test_plans_are_deleted_with_their_versions(tmp_path, cache):
    """Plans are deleted with the files of their versions; plans within the retention stay."""
    for _ in range(2):
        cache.view("view", QUERY, policy=WEEKLY)
        append_row(tmp_path)
    with later(days=30):  # stays within the retention when the others expire
        cache.view("view", QUERY, policy=WEEKLY)
    plans = tmp_path / "root/cache_views/view" / PLAN_DIRECTORY
    for days in (0, 6):
        with later(days=days):
            cache.prune()
        assert len(list(plans.iterdir())) == 3
    with later(days=8):
        cache.prune()
    (plan,) = plans.iterdir()
    assert cache.verify("view").verdict == "reproducible"
    assert plan.exists()


def test_a_partial_plan_file_is_deleted(tmp_path, cache):
    """A temporary plan file that a killed process left is deleted: it contains literals of the query."""
    cache.view("view", QUERY, policy=WEEKLY)
    (plan,) = (tmp_path / "root/cache_views/view" / PLAN_DIRECTORY).iterdir()
    plan.with_suffix(".4711").write_text("SELECT 'secr")
    with later(days=8):
        cache.prune()
    assert list(plan.parent.iterdir()) == []


@pytest.mark.internal_errors
def test_damaged_entries_are_not_touched(tmp_path, cache):
    """Damaged entries and entries changed by another writer are not touched; the others are pruned."""
    for name in ("broken", "foreign", "well"):
        cache.view(name, QUERY)
    views = tmp_path / "root/cache_views"
    (views / "broken" / files_of(tmp_path, "broken")[0]).write_bytes(b"no Parquet")
    write_deltalake(views / "foreign", pa.table({"total": [1]}), mode="append")

    def everything():
        return {
            path: path.read_bytes()
            for name in ("broken", "foreign")
            for path in (views / name).rglob("*")
            if path.is_file()
        }

    before = everything()
    with later(days=2):
        pruned = cache.prune(older_than=DAY)
    assert (pruned.entries, pruned.damaged) == (("well",), ("broken", "foreign"))
    assert everything() == before


@pytest.mark.slow
@pytest.mark.internal_errors
def test_quarantined_entries_are_deleted_on_request(tmp_path, cache):
    """Quarantined entries are deleted only with `set_aside=True`, and only if they are old enough."""
    cache.view("view", QUERY)
    views = tmp_path / "root/cache_views"
    (views / "view" / files_of(tmp_path, "view")[0]).unlink()
    cache.view("view", QUERY)
    (aside,) = views.glob(".view.aside-*")
    (views / ".view.aside-of-somebody").mkdir()
    (views / "..aside-01a210b9-63ff-767a-8ecf-501b49483dde").write_text("no folder")
    assert cache.prune(older_than=DAY, set_aside=True) == PruneResult()
    with later(days=2):
        assert cache.prune(older_than=timedelta(days=9)) == PruneResult()
        assert aside.exists()
        assert cache.prune(older_than=DAY, set_aside=True).set_aside == ("view",)
    assert not aside.exists()
    assert sorted(path.name for path in views.iterdir() if path.name.startswith(".")) == [
        "..aside-01a210b9-63ff-767a-8ecf-501b49483dde",
        ".view.aside-of-somebody",
    ]


@pytest.mark.internal_errors
def test_an_entry_that_cannot_be_pruned_is_reported(tmp_path, cache, monkeypatch):
    """An entry that cannot be pruned is reported and left; the others are pruned."""
    for name in ("one", "two"):
        cache.view(name, QUERY)
    log = tmp_path / "root/cache_views/one/_delta_log"
    (log / "00000000000000000001.json").mkdir()
    with later(days=2):
        pruned = cache.prune(older_than=DAY)
    assert pruned.entries == ("two",)
    assert pruned.failed + pruned.damaged == ("one",)
    assert len(files_of(tmp_path, "one")) == 1


@pytest.mark.slow
def test_prune_waits_for_the_lock_of_an_entry(tmp_path, cache):
    """`prune` waits for the lock of an entry that another process holds."""
    cache.view("view", QUERY)
    with locks.entry_lock(tmp_path / "root/cache_locks", "view.view"):
        started = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PRUNE), str(tmp_path / "root")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert started.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            started.wait(0.5)
        assert len(files_of(tmp_path, "view")) == 1
    assert started.stdout.read() == "('view',)\n"
    assert started.wait() == 0
    assert files_of(tmp_path, "view") == []


PRUNE = """
    import sys
    from datetime import timedelta
    from deltawitness import DeltaCache, ObservedSessionContext
    cache = DeltaCache(ObservedSessionContext(), sys.argv[1])
    print("ready", flush=True)
    print(cache.prune(older_than=timedelta(microseconds=1)).entries)
"""


@pytest.mark.slow
def test_pruning_during_requests_never_changes_results(tmp_path, size):
    """With two processes that prune in a loop, every request returns the right rows, computed or stored."""
    write_deltalake(tmp_path / "facts", pa.table({"id": range(10)}))
    stop = tmp_path / "stop"
    pruning = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PRUNE_ON), str(tmp_path), str(stop)]
        )
        for _ in range(2)
    ]
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(ASK), str(tmp_path), str(size(40, 400, 5))],
            capture_output=True,
            text=True,
        )
    finally:
        stop.touch()
        codes = [process.wait(60) for process in pruning]
    assert (done.returncode, done.stdout, codes) == (0, "done\n", [0, 0]), done.stderr


PRUNE_ON = """
    import signal
    import sys
    from datetime import timedelta
    from pathlib import Path
    from deltawitness import DeltaCache, ObservedSessionContext
    cache = DeltaCache(ObservedSessionContext(), sys.argv[1] + "/root")
    signal.alarm(3600)  # ends the process after an interrupted test
    while not Path(sys.argv[2]).exists():
        assert not cache.prune(older_than=timedelta(microseconds=1)).failed
"""

ASK = """
    import sys
    from deltawitness import DeltaCache, ObservedSessionContext
    ctx = ObservedSessionContext()
    ctx.register_delta("facts", sys.argv[1] + "/facts")
    cache = DeltaCache(ctx, sys.argv[1] + "/root")
    for _ in range(int(sys.argv[2])):
        frame = cache.view("view", "SELECT sum(id) AS total FROM facts")
        try:
            found = frame.to_pydict()
        except Exception as error:
            # Its files were deleted before they were read: an error, not wrong rows.
            assert "not found" in str(error).lower() or "no such file" in str(error).lower(), error
        else:
            assert found == {"total": [45]}, found
    print("done")
"""


@pytest.mark.slow
def test_a_prune_is_in_the_ledger(tmp_path, ctx):
    """A prune is a DELETE and a VACUUM in the ledger, under the entry's policy and scope."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "root")))
    cache = DeltaCache(ctx, tmp_path / "root")
    cache.view("view", QUERY, policy=WEEKLY)
    with later(days=8):
        cache.prune()
    rows = Ledger(tmp_path / "root").inventory().filter("table_name = 'view'")
    recorded = rows.select(
        "operation", "cache_operation", "scope", "policy", "result", "rows_deleted"
    ).to_pylist()
    shared = {"scope": "view", "policy": "weekly", "result": "write"}
    assert [row for row in recorded if row["cache_operation"] in {"delete", "vacuum"}] == [
        shared | {"operation": "DELETE", "cache_operation": "delete", "rows_deleted": 1},
        shared | {"operation": "VACUUM", "cache_operation": "vacuum", "rows_deleted": 0},
    ]


def test_no_version_of_a_pruned_entry_can_be_read(tmp_path, cache):
    """The rows of a pruned entry cannot be read in any version; its log still has the history."""
    cache.view("view", QUERY)
    with later(days=2):
        cache.prune(older_than=DAY)
    table = DeltaTable(tmp_path / "root/cache_views/view")
    assert table.to_pyarrow_table().num_rows == 0
    assert [commit["operation"] for commit in table.history()][::-1][:2] == ["WRITE", "DELETE"]
    verified = cache.verify("view")
    assert (verified.verdict, verified.reason) == ("cannot_tell", "it was invalidated")
