"""Pruning lets go of the rows of old entries and of the files of old versions, and of nothing else."""

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


def move_on(tmp_path):
    write_deltalake(tmp_path / "facts", pa.table({"id": [100]}), mode="append")


def later(**span):
    """A clock that is ahead."""
    return fixed_clock(now_ns() + int(timedelta(**span).total_seconds() * 1e9))


def files_of(tmp_path, name, folder="cache_views"):
    return sorted(path.name for path in (tmp_path / "root" / folder / name).glob("*.parquet"))


def age_versions(tmp_path, name, days):
    """Have the log of an entry say that its versions were replaced so long ago."""
    for path in (tmp_path / "root/cache_views" / name / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        for action in actions:
            if "remove" in action:
                action["remove"]["deletionTimestamp"] -= days * 86_400_000
        path.write_text("\n".join(map(json.dumps, actions)) + "\n")


def test_nothing_is_old_without_a_retention(tmp_path, cache):
    """However long ago it was kept."""
    cache.view("view", QUERY)
    with later(days=5000):
        assert cache.prune() == PruneResult()
    assert cache.explain("view").result == "hit"


@pytest.mark.parametrize("span", [timedelta(0), timedelta(days=-1)])
def test_no_time_at_all_is_refused(span, cache):
    """It is taken neither for none given nor for all that there is."""
    cache.view("view", QUERY)
    with pytest.raises(
        ConfigurationError, match=r"^prune: older_than must be longer than nothing$"
    ):
        cache.prune(older_than=span)
    assert cache.explain("view").result == "hit"


def test_the_longest_retention_is_for_ever(cache):
    """The engine's clock does not reach so far."""
    cache.view("view", QUERY, policy=CachePolicy("for_ever", retention=timedelta.max))
    assert cache.prune() == PruneResult()


def test_an_entry_older_than_its_retention_loses_its_rows(tmp_path, cache):
    """And its files and its plan; asked for again it is a miss that says so, and is kept anew."""
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


def test_every_kind_of_entry_is_pruned(tmp_path, cache):
    """By the age that is asked for, in place of any retention."""
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
    """There is nothing to delete, and it says so all the same."""
    cache.view("empty", "SELECT id FROM facts WHERE id > 1000")
    with later(days=2):
        assert cache.prune(older_than=DAY).entries == ("empty",)
    assert str(cache.explain("empty")) == "empty: miss (pruned)"


def test_a_policy_prunes_what_was_kept_under_its_name(tmp_path, cache):
    """By its own retention, whatever it was then."""
    cache.view("one", QUERY, policy=CachePolicy("short"))
    cache.view("other", QUERY, policy=CachePolicy("long"))
    with later(days=2):
        assert cache.prune(CachePolicy("short", retention=DAY)).entries == ("one",)
    assert cache.explain("other").result == "hit"


def test_old_versions_of_a_live_entry_lose_their_files(tmp_path, cache):
    """Those that were replaced longer ago than its retention; what is served stays."""
    cache.view("view", QUERY, policy=WEEKLY)
    (old,) = files_of(tmp_path, "view")
    for _ in range(2):
        move_on(tmp_path)
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


def test_plans_go_with_the_versions_that_they_made(tmp_path, cache):
    """Those of versions that were replaced within the retention stay, as their files do."""
    for _ in range(2):
        cache.view("view", QUERY, policy=WEEKLY)
        move_on(tmp_path)
    with later(days=30):  # so that it is young when the others are old
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


def test_half_a_plan_goes_with_the_rows(tmp_path, cache):
    """It is what a process has left that was killed, with the literals of its query."""
    cache.view("view", QUERY, policy=WEEKLY)
    (plan,) = (tmp_path / "root/cache_views/view" / PLAN_DIRECTORY).iterdir()
    plan.with_suffix(".4711").write_text("SELECT 'secr")
    with later(days=8):
        cache.prune()
    assert list(plan.parent.iterdir()) == []


@pytest.mark.internal_errors
def test_what_is_damaged_is_never_touched(tmp_path, cache):
    """Nor what somebody else has written; the others are pruned all the same."""
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


@pytest.mark.internal_errors
def test_what_was_set_aside_goes_when_that_is_asked_for(tmp_path, cache):
    """And is old enough by then."""
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
def test_one_that_cannot_be_pruned_is_told_and_left(tmp_path, cache, monkeypatch):
    """The others are pruned all the same."""
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
def test_it_waits_for_whoever_computes_the_entry(tmp_path, cache):
    """On this machine: the lock is that of the entry."""
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
def test_pruning_and_asking_at_once_never_gives_another_result(tmp_path, size):
    """Processes that prune without end, beside one that asks: each answer is right, computed or kept."""
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
            [sys.executable, "-c", textwrap.dedent(ASK), str(tmp_path), str(size(40, 400))],
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
    signal.alarm(3600)  # so that it does not outlive an interrupted test
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
            # Its files went between being served and being read: an error, and no wrong rows.
            assert "not found" in str(error).lower() or "no such file" in str(error).lower(), error
        else:
            assert found == {"total": [45]}, found
    print("done")
"""


def test_the_ledger_knows_of_it(tmp_path, ctx):
    """A delete and a vacuum, under the entry's policy and scope."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "root")))
    cache = DeltaCache(ctx, tmp_path / "root")
    cache.view("view", QUERY, policy=WEEKLY)
    with later(days=8):
        cache.prune()
    rows = Ledger(tmp_path / "root").inventory().filter("table_name = 'view'")
    told = rows.select(
        "operation", "cache_operation", "scope", "policy", "result", "rows_deleted"
    ).to_pylist()
    shared = {"scope": "view", "policy": "weekly", "result": "write"}
    assert [row for row in told if row["cache_operation"] in {"delete", "vacuum"}] == [
        shared | {"operation": "DELETE", "cache_operation": "delete", "rows_deleted": 1},
        shared | {"operation": "VACUUM", "cache_operation": "vacuum", "rows_deleted": 0},
    ]


def test_no_version_of_a_pruned_entry_can_be_read_again(tmp_path, cache):
    """That is what it is for; its log says what it was."""
    cache.view("view", QUERY)
    with later(days=2):
        cache.prune(older_than=DAY)
    table = DeltaTable(tmp_path / "root/cache_views/view")
    assert table.to_pyarrow_table().num_rows == 0
    assert [commit["operation"] for commit in table.history()][::-1][:2] == ["WRITE", "DELETE"]
    verified = cache.verify("view")
    assert (verified.verdict, verified.reason) == ("cannot_tell", "it was invalidated")
