"""Failures of the ledger's storage: the program continues and no recordable data is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, flush, internal_errors, run
from deltawitness.ids_and_clock import fixed
from deltawitness.ledger.drain.recorder import recorder_of
from deltawitness.ledger.integrity import Problem
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from helpers.ledger_parts import (
    left_behind,
    one,
    operation_row,
    rows_of,
    sealed_rows,
    spool_in,
    write_ids,
)
from helpers.ledger_truth import assert_recorded_at_most_once, unrecorded_commits
from helpers.new_processes import run_in_processes
from programs import ledger_crowd

NEEDS_MOUNT = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/bin/mount").exists(), reason="needs root and mount"
)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def table(tmp_path):
    return tmp_path / "t"


@pytest.fixture
def ledger(cache):
    return Ledger(cache)


@pytest.fixture
def observed(cache):
    """Instrument with settings that drain only on request."""

    def start(**settings):
        settings = {"cache_root": str(cache), "drain_interval": 3600.0, **settings}
        DeltaLakeInstrumentor().instrument(settings=Settings(**settings))

    return start


def write(table, count=3):
    """Write several times and flush."""
    for number in range(count):
        write_deltalake(str(table), one(number), mode="append")
    flush()


@contextmanager
def mounted(place, *options):
    """Mount a file system for the block."""
    place.mkdir(exist_ok=True, parents=True)
    if subprocess.run(["mount", *options, place], check=False).returncode != 0:
        pytest.skip("this machine does not let us mount")
    try:
        yield
    finally:
        DeltaLakeInstrumentor().uninstrument()  # close its open files
        subprocess.run(["umount", place], check=True)


def small(place):
    """Mount a file system of 1 MiB."""
    return mounted(place, "-t", "tmpfs", "-o", "size=1m", "tmpfs")


def remounted(place, how):
    """Remount a file system read-write (`rw`) or read-only (`ro`)."""
    subprocess.run(["mount", "-o", f"remount,bind,{how}", place], check=True)


def fill(place):
    """Fill a disk; return the file that takes the space."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as content, pytest.raises(OSError, match="No space"):
        for size in (1 << 16, 1 << 12, 1):
            while True:
                try:
                    content.write(b"x" * size)
                except OSError:
                    if size == 1:
                        raise
                    break
    return ballast


def components():
    """Return the names of the library's components that have reported errors."""
    return {component for component, _ in internal_errors.error_counts()}


# --- removed -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_whole_cache_root_is_removed(observed, cache, table, ledger):
    """After the cache root is deleted, the open segment is drained; a reconcile restores the rest."""
    observed()
    write(table)
    ledger.drain()
    write(table)
    shutil.rmtree(cache)
    write(table)
    assert ledger.inventory().count() == 6
    assert ledger.reconcile([table]).apply() == 3
    assert_recorded_at_most_once(ledger.root, table)
    assert unrecorded_commits(ledger.root, table) == set()


@pytest.mark.slow
def test_the_tables_of_the_ledger_are_removed(observed, cache, table, ledger):
    """Deleted tables are recreated by the next drain, and completed by the next reconcile."""
    observed()
    write(table)
    ledger.drain()
    shutil.rmtree(cache / "cache_ledgers")
    write(table)
    assert ledger.inventory().count() == 3
    assert ledger.reconcile([table]).apply() == 3
    assert unrecorded_commits(ledger.root, table) == set()
    assert ledger.verify().is_good


@pytest.mark.slow
@pytest.mark.internal_errors
def test_a_sealed_segment_is_removed(observed, cache, table, ledger):
    """Operations of a deleted segment are reported as dropped; a reconcile finds them."""
    observed()
    write(table)
    recorder = recorder_of(ledger.root)
    recorder._spool.rotate()
    shutil.rmtree(cache)
    write(table)
    assert ledger.inventory().count() == 3
    assert internal_errors.error_counts() == {("spool", "FileNotFoundError"): 1}
    assert ledger.reconcile([table]).apply() == 3
    assert unrecorded_commits(ledger.root, table) == set()


# --- read-only ---------------------------------------------------------------------------------------


@NEEDS_MOUNT
@pytest.mark.internal_errors
@pytest.mark.slow
def test_a_read_only_cache_root(observed, cache, table, ledger):
    """On a read-only root writes succeed and count as dropped; a reconcile finds them."""
    cache.mkdir()
    with mounted(cache, "--bind", cache):
        remounted(cache, "ro")
        observed()
        with run("nightly"):
            write(table)
        assert DeltaTable(table).version() == 2
        assert components() == {"spool"}
        remounted(cache, "rw")
        time.sleep(1.05)  # a spool that failed to open is retried once a second
        with run("later"):
            write(table)
        assert ledger.inventory().count() == 3
        assert rows_of(ledger.root, RUNS, "job, status, dropped", "start_time") == [
            {"job": "nightly", "status": "ok", "dropped": 3},
            {"job": "later", "status": "ok", "dropped": 3},
        ]
        assert ledger.reconcile([table]).apply() == 3
        assert unrecorded_commits(ledger.root, table) == set()


@pytest.mark.slow
@NEEDS_MOUNT
@pytest.mark.internal_errors
def test_a_read_only_ledger_with_a_writable_spool(observed, tmp_path, cache, table):
    """With a read-only ledger records wait in the spool until it is writable."""
    cache.mkdir()
    with mounted(cache, "--bind", cache):
        observed(spool_dir=str(tmp_path / "spool"))
        ledger = Ledger(settings=Settings(cache_root=str(cache), spool_dir=str(tmp_path / "spool")))
        remounted(cache, "ro")
        with run("nightly"):
            write(table)
        assert components() == {"drain"}
        assert recorder_of(ledger.root).pending == 4
        remounted(cache, "rw")
        assert (ledger.inventory().count(), ledger.runs().count()) == (3, 1)
        assert recorder_of(ledger.root).pending == 0


# --- full --------------------------------------------------------------------------------------------


@NEEDS_MOUNT
@pytest.mark.internal_errors
@pytest.mark.slow
def test_a_full_disk_below_the_ledger(observed, tmp_path, cache, table):
    """Drains on a full disk fail and are reported; with free space everything is appended once."""
    with small(cache):
        spool = str(tmp_path / "spool")
        observed(spool_dir=spool)
        ledger = Ledger(settings=Settings(cache_root=str(cache), spool_dir=spool))
        write(table)
        ledger.drain()
        ballast = fill(cache)
        for _ in range(5):
            with run("full"):
                write(table)
        assert components() == {"drain"}
        assert recorder_of(ledger.root).pending == 20
        ballast.unlink()
        assert (ledger.inventory().count(), ledger.runs().count()) == (18, 5)
        assert_recorded_at_most_once(ledger.root, table)
        assert unrecorded_commits(ledger.root, table) == set()
        assert ledger.verify().is_good


@NEEDS_MOUNT
@pytest.mark.internal_errors
@pytest.mark.slow
def test_a_full_disk_below_the_spool(observed, tmp_path, cache, table):
    """With a full spool disk, new records count as dropped; a reconcile finds their commits."""
    spools = tmp_path / "spool"
    with small(spools):
        observed(spool_dir=str(spools))
        ledger = Ledger(settings=Settings(cache_root=str(cache), spool_dir=str(spools)))
        with run("full"):
            write(table)
            ballast = fill(spools)
            # The rest of the last page may still hold a record.
            write(table, 12)
            ballast.unlink()
            write(table)
        assert components() == {"spool"}
        recorded = ledger.inventory().count()
        (row,) = rows_of(ledger.root, RUNS, "dropped, writes")
        assert row == {"dropped": 18 - recorded, "writes": 18}
        assert 6 <= recorded < 18
        assert ledger.reconcile([table]).apply() == 18 - recorded
        assert_recorded_at_most_once(ledger.root, table)
        assert unrecorded_commits(ledger.root, table) == set()


@pytest.mark.internal_errors
@pytest.mark.slow
def test_a_spool_at_its_limit(observed, table, ledger):
    """At its limit the spool keeps the oldest records and counts the others; a drain makes room."""
    observed(spool_limit=1 << 16)
    with run("much"):
        write(table, 60)
        recorder = recorder_of(ledger.root)
        recorder.await_rows()
        kept = recorder.pending
        assert 20 < kept < 60
        recorder.drain()
        write(table, 1)
    (row,) = rows_of(ledger.root, RUNS, "dropped, writes")
    assert row == {"dropped": 60 - kept, "writes": 61}
    versions = [row["version"] for row in rows_of(ledger.root, INVENTORY, "version", "version")]
    assert versions == [*range(kept), 60]
    assert internal_errors.error_counts().keys() == {("spool", "OSError")}
    assert ledger.reconcile([table]).apply() == 60 - kept
    assert unrecorded_commits(ledger.root, table) == set()


# --- the clock ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, 24 * 400])
@pytest.mark.slow
def test_a_clock_that_jumps_back(observed, table, ledger, hours):
    """If the clock jumps back between writes and drains, each row is there once and each run ends."""
    observed()
    back = hours * 3_600_000_000_000
    with run("before"):
        write(table)
        with fixed(clock=lambda: time.time_ns() - back):
            write(table)
            ledger.drain()
            write(table)
    with fixed(clock=lambda: time.time_ns() - back), run("back"):
        write(table)
    assert ledger.inventory().count() == 12
    assert sorted(rows_of(ledger.root, RUNS, "job, status"), key=str) == [
        {"job": "back", "status": "ok"},
        {"job": "before", "status": "ok"},
    ]
    assert_recorded_at_most_once(ledger.root, table)
    plan = ledger.reconcile([table], full=True)
    assert (plan.is_clean, plan.unsettled) == (True, 0)


@pytest.mark.slow
@pytest.mark.parametrize("days", [-400, -20, 400])
def test_a_restored_spool_adds_no_rows(tmp_path, ledger, days):
    """A spool that is restored after its application transaction expired adds no rows."""
    then = time.time_ns() + days * 86_400_000_000_000
    left_behind(ledger.spools, start_time=then // 1000)
    shutil.copytree(ledger.spools, tmp_path / "copy")
    with fixed(clock=lambda: then):
        assert ledger.drain().operations == 1
    shutil.copytree(tmp_path / "copy", ledger.spools, dirs_exist_ok=True)
    assert ledger.drain().adopted == 1
    assert write_ids(ledger.root, INVENTORY) == ["w-0"]
    runs = rows_of(ledger.root, RUNS, "run_id", "run_id")
    assert [row["run_id"] for row in runs] == ["ended-0", "open-0"]


# --- damaged -----------------------------------------------------------------------------------------


def segment_left_behind(ledger, ids=("w-0", "w-1", "w-2")):
    """Return the only segment of a dead process with these operations."""
    spool = spool_in(ledger.spools)
    (path,) = sealed_rows(spool, *map(operation_row, ids))
    spool._release_home()  # like the death of its process
    return path


def test_a_line_that_was_damaged(ledger):
    """Records next to a damaged one are drained; the drain reports the damaged ones."""
    path = segment_left_behind(ledger)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"w-1", b"w-7", 1) + lines[2])
    assert ledger.verify().findings[0].problem is Problem.DAMAGED_LINES
    done = ledger.drain()
    assert (done.operations, done.damaged) == (2, 1)
    assert sorted(write_ids(ledger.root, INVENTORY)) == ["w-0", "w-2"]


@pytest.mark.parametrize("left", [0, 1, 100])
def test_a_segment_that_was_cut_off(ledger, left):
    """Complete records of a truncated segment are drained; an empty segment adds nothing."""
    path = segment_left_behind(ledger)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    path.write_bytes(content[: first + left] if left else b"")
    done = ledger.drain()
    assert (done.operations, done.damaged) == (1 if left else 0, 0)
    assert list(ledger.spools.iterdir()) == []


@pytest.mark.internal_errors
@pytest.mark.slow
def test_damaged_spools_are_reported_in_one_line(observed, table, ledger):
    """A program that adopts damaged spools reports them in one line, and records its own writes."""
    for number in range(3):
        path = segment_left_behind(ledger, [f"w-{number}"])
        path.write_bytes(path.read_bytes() + b"00000000 R w-9 {}\n")
    observed()
    for _ in range(2):
        with run("nightly"):
            write(table)
    assert internal_errors.error_counts() == {("spool", "ValueError"): 1}
    assert ledger.inventory().count() == 6 + 3


@pytest.mark.slow
def test_unknown_files_in_the_spool_folder_are_ignored(observed, table, ledger):
    """Other files and folders in the spool folder, and in a spool, are ignored."""
    home = segment_left_behind(ledger).parent
    (home / "notes.seg").write_text("not a number")
    (home / "00000009.txt").write_text("not a segment")
    strangers = [ledger.spools / name for name in ("v1-file", "v1-folder", "README")]
    for stranger in strangers:
        stranger.mkdir() if stranger.name == "v1-folder" else stranger.write_text("a stranger")
    (ledger.spools / "v1-folder/00000001.seg").write_text("without a lock")
    observed()
    with run("nightly"):
        write(table)
    assert ledger.inventory().count() == 6
    assert not home.exists()
    assert [stranger.exists() for stranger in strangers] == [True] * 3


@pytest.mark.internal_errors
@pytest.mark.parametrize("damaged", [INVENTORY, RUNS], ids=lambda table: table.alias)
@pytest.mark.slow
def test_a_table_of_the_ledger_is_damaged(observed, table, ledger, damaged):
    """With a damaged table the program continues; after a repair its rows are appended once."""
    observed()
    with run("good"):
        write(table)
    log = max(Path(ledger.root.uri_of(damaged), "_delta_log").glob("*.json"))
    content = log.read_text()
    log.write_text(content[: len(content) // 2])
    recorder = recorder_of(ledger.root)
    for _ in range(3):
        with run("bad"):
            write(table)
        assert not recorder.drain()
    assert components() == {"drain"}
    assert len(internal_errors.error_counts()) == 1
    assert recorder.pending == 12
    problems = {(found.problem, found.where) for found in ledger.verify().findings}
    assert problems == {(Problem.UNREADABLE, damaged.name)}
    log.write_text(content)
    assert (ledger.inventory().count(), ledger.runs().count()) == (12, 4)
    assert recorder.pending == 0
    assert_recorded_at_most_once(ledger.root, table)
    assert ledger.verify().is_good


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_the_spool_of_another_user_is_left_alone():
    """A process drains another user's spool only if it has permission."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        ledger = Ledger(f"{folder}/cache")
        for shared in (ledger.spools, ledger.spools.parent / "cache_ledgers"):
            shared.mkdir(parents=True, exist_ok=True)
            shared.chmod(0o777)
        segment_left_behind(ledger)
        (result,) = run_in_processes(
            ledger_crowd.write_as, [(NOBODY, {"cache_root": ledger.root.uri}, f"{folder}/t")]
        )
        assert result == {}
        assert ledger.root.open_table(INVENTORY).version() == 1
        (home,) = ledger.spools.iterdir()
        assert home.stat().st_uid == 0
        assert ledger.inventory().count() == 1
        assert ledger.drain().operations == 3


NOBODY = 65534
