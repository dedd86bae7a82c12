"""One process of a host drains the sealed segments of the others, and a server those of all."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, run
from deltawitness.ledger.drain import serve as module
from deltawitness.ledger.drain.drain import Drain
from deltawitness.ledger.drain.drain_thread import MAX_CONFLICTS
from deltawitness.ledger.drain.recorder import Recorder
from deltawitness.ledger.drain.serve import serve
from deltawitness.ledger.spool import host
from deltawitness.ledger.spool.host import LockState, drain_lock, live_segments, mark_drained
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.spool.supervisor import SUPERVISOR_LINK
from deltawitness.ledger.spool.writer import DRAINED
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, LedgerRoot
from deltawitness.ledger.tables.write_rows import as_json
from helpers.ledger_parts import (
    operation_row,
    rows_of,
    run_started,
    sealed_rows,
    spool_in,
    write_ids,
)


@pytest.fixture
def root(cache):
    return LedgerRoot(cache)


@pytest.fixture
def spools(ledger):
    return ledger.spools


# --- segments of live processes ------------------------------------------------------------------------


def test_sealed_segments_of_live_processes_are_found(spools):
    """Those of dead processes are not: these are imported with their open runs."""
    live, own, dead = (spool_in(spools) for _ in range(3))
    paths = sealed_rows(live, operation_row("w-1"))
    sealed_rows(own, operation_row("w-2"))
    sealed_rows(dead, operation_row("w-3"))
    dead._release_home()
    assert live_segments(spools, own.home) == paths


def test_a_segment_after_one_that_is_being_written_is_left(spools):
    """The ledger takes all segments before the last one as drained."""
    spool = spool_in(spools)
    first = spool.append_provisional("w-1", as_json(operation_row("w-1")))
    spool.rotate()
    sealed_rows(spool, operation_row("w-2"))
    assert live_segments(spools) == []
    spool.append_row(first, "w-1", as_json(operation_row("w-1")))
    spool.rotate()
    assert [path.stem for path in live_segments(spools)] == ["00000001", "00000002"]


def test_a_segment_whose_predecessor_is_missed_by_a_listing_is_left(spools, monkeypatch):
    """A listing can miss a file that is renamed meanwhile."""
    spool = spool_in(spools)
    spool.append_provisional("w-1", as_json(operation_row("w-1")))
    spool.rotate()
    sealed_rows(spool, operation_row("w-2"))
    listed = [path for path in host.segments_in(spool.home) if path.stem != "00000001"]
    monkeypatch.setattr(host, "segments_in", lambda _: listed)
    assert live_segments(spools) == []


@pytest.mark.parametrize("is_supervised", [False, True])
def test_the_last_segment_stays_while_it_is_needed(spools, is_supervised):
    """It has the runs that are abandoned if its process dies, or gets the exit code of the process."""
    spool = spool_in(spools)
    if is_supervised:
        spool.begin()
        (spool.home / SUPERVISOR_LINK).write_text("/nowhere")
    else:
        spool.append(RecordKind.RUN_START, "run-1", as_json(run_started()))
    sealed_rows(spool, operation_row("w-1"))
    assert live_segments(spools) == []
    sealed_rows(spool, operation_row("w-2"))
    expected = ["00000001"] if is_supervised else ["00000001", "00000002"]
    assert [path.stem for path in live_segments(spools)] == expected


def test_a_drain_takes_the_segments_of_other_live_processes(root, spools):
    """It commits all rows at once; the owners find their segments drained."""
    own, other, sharded = spool_in(spools), spool_in(spools), spool_in(spools, shard="a")
    paths = sealed_rows(own, operation_row("w-1"))
    sealed_rows(other, operation_row("w-2"))
    sealed_rows(sharded, operation_row("w-3"))
    done = Drain(root, tail=1).drain_for_host(paths, spools, own.home)
    assert (done.operations, done.segments) == (2, 2)
    assert root.open_table(INVENTORY).version() == 1
    (segment,) = other.sealed()
    assert not segment.path.exists()
    assert segment.path.with_suffix(DRAINED).exists()
    assert Drain(root, tail=1).drain_for_host([], spools, own.home).operations == 0
    other.delete([segment])
    assert sorted(write_ids(root, INVENTORY)) == ["w-1", "w-2"]
    assert live_segments(spools, shard="a") != []


@pytest.mark.internal_errors
def test_a_segment_of_another_process_that_cannot_be_read_stops_only_itself(root, spools):
    """The own segments are drained nevertheless."""
    own, other = spool_in(spools), spool_in(spools)
    paths = sealed_rows(own, operation_row("w-1"))
    (bad,) = sealed_rows(other, operation_row("w-2"))
    bad.unlink()
    bad.mkdir()
    Drain(root, tail=1).drain_for_host(paths, spools, own.home)
    assert write_ids(root, INVENTORY) == ["w-1"]


def test_an_owner_deletes_what_another_process_has_drained(root, spools):
    """It drains only the rest, and counts nothing as dropped."""
    dropped = []
    recorder = Recorder(Settings(cache_root=root.uri), on_drop=dropped.append)
    recorder._spool.append(RecordKind.ROW, "w-1", as_json(operation_row("w-1")))
    recorder._spool.rotate()
    others = live_segments(spools)
    Drain(root, tail=1).drain_segments(others)
    mark_drained(others)
    recorder._spool.append(RecordKind.ROW, "w-2", as_json(operation_row("w-2")))
    assert recorder.pending == 2
    assert recorder.drain()
    assert (recorder.pending, dropped) == (0, [])
    recorder.close(None, timeout=30)
    assert sorted(write_ids(root, INVENTORY)) == ["w-1", "w-2"]
    assert list(spools.iterdir()) == []


# --- the lock --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_process_of_a_host_holds_the_lock(spools):
    """Another one does not get it until its end; shards have locks of their own."""
    spools.mkdir(parents=True)
    with (
        drain_lock(spools, timeout=0) as first,
        drain_lock(spools, timeout=0.1) as second,
        drain_lock(spools, "a", timeout=0) as third,
    ):
        assert (first, second, third) == (LockState.HELD, LockState.BUSY, LockState.HELD)
    with drain_lock(spools, timeout=0) as again:
        assert again is LockState.HELD
    with drain_lock(spools / "no/folder", timeout=0) as missing:
        assert missing is LockState.UNAVAILABLE


@pytest.mark.slow
def test_a_drain_leaves_its_segments_to_a_process_that_drains_for_longer(root, spools, monkeypatch):
    """It waits, reports no error, and drains at its next turn."""
    monkeypatch.setattr("deltawitness.ledger.drain.drain_thread.HOST_TIMEOUT", 0.1)
    recorder = Recorder(Settings(cache_root=root.uri))
    recorder._spool.append(RecordKind.ROW, "w-1", as_json(operation_row("w-1")))
    with drain_lock(spools, timeout=0):
        assert not recorder.drain()
    assert recorder.pending == 1
    assert recorder.drain()
    assert write_ids(root, INVENTORY) == ["w-1"]
    recorder.close(None, timeout=30)


def test_without_locks_a_drain_takes_only_its_own_segments(root, spools, monkeypatch):
    """On a file system without locks each process drains for itself."""
    monkeypatch.setattr(host, "drain_lock_path", lambda *_: spools / "no/folder")
    recorder = Recorder(Settings(cache_root=root.uri))
    recorder._spool.append(RecordKind.ROW, "w-1", as_json(operation_row("w-1")))
    other = spool_in(spools)
    sealed_rows(other, operation_row("w-2"))
    assert recorder.drain()
    assert write_ids(root, INVENTORY) == ["w-1"]
    recorder.close(None, timeout=30)


# --- conflicts -------------------------------------------------------------------------------------------


def test_drains_that_conflict_become_rarer_and_then_frequent_again(root):
    """The pause doubles up to a minute, and halves after drains without conflicts."""
    drains = Recorder(Settings(cache_root=root.uri, drain_interval=5)).drains
    drains._conflicts = MAX_CONFLICTS + 1
    assert [drains._next_pause(is_done=True) for _ in range(6)] == [10, 20, 40, 60, 60, 60]
    drains._conflicts = 0
    assert [drains._next_pause(is_done=True) for _ in range(5)] == [30, 15, 7.5, 5, 5]


# --- forward ---------------------------------------------------------------------------------------------


def test_a_process_that_forwards_commits_nothing(cache, table, root):
    """Its spool stays until a server, or `deltawitness drain`, imports it."""
    settings = Settings(cache_root=cache, ledger_mode="forward")
    DeltaLakeInstrumentor().instrument(settings=settings)
    with run("nightly"):
        write_deltalake(table, pa.table({"x": [1]}))
    assert root.open_table(INVENTORY) is None
    DeltaLakeInstrumentor().uninstrument()
    assert root.open_table(INVENTORY) is None
    assert Ledger(cache).drain().operations == 1
    assert len(rows_of(root, RUNS)) == 1


@pytest.mark.slow
def test_a_server_drains_live_and_dead_processes_until_it_is_stopped(root, ledger, spools):
    """After the stop it drains once more."""
    live, dead, sharded = spool_in(spools), spool_in(spools), spool_in(spools, shard="a")
    sealed_rows(live, operation_row("w-1"))
    for spool, name in ((dead, "w-2"), (sharded, "w-3")):
        sealed_rows(spool, operation_row(name))
        spool.close()
    stop = threading.Event()
    stop.set()
    served = ledger.serve(stop, interval=60, fold_interval=60)
    assert (served.drained.operations, served.folded, served.failures) == (3, 1, 0)
    assert sorted(write_ids(root, INVENTORY)) == ["w-1", "w-2", "w-3"]


@pytest.mark.internal_errors
def test_a_server_survives_a_storage_that_fails(root, ledger, spools, monkeypatch):
    """The failed drain is counted, and the next one imports the rows."""
    spool = spool_in(spools)
    sealed_rows(spool, operation_row("w-1"))
    stop, failures = threading.Event(), []

    class Failing(Drain):
        def drain_for_host(self, *arguments):
            if not failures:
                failures.append("once")
                raise OSError(5, "storage")
            stop.set()
            return super().drain_for_host(*arguments)

    monkeypatch.setattr(module, "Drain", Failing)
    served = ledger.serve(stop, interval=0.01)
    assert (served.failures, served.drained.operations) == (1, 1)
    assert write_ids(root, INVENTORY) == ["w-1"]


class Stop:
    """Stops a server after some pauses, without waiting; lists the pauses."""

    def __init__(self, count):
        self.pauses, self.count = [], count

    def wait(self, seconds):
        self.pauses.append(seconds)
        return len(self.pauses) > self.count


@pytest.mark.internal_errors
def test_a_server_tries_again_less_often_while_drains_fail(root, ledger, monkeypatch):
    """Each pause is twice as long as the one before, at most a minute."""
    monkeypatch.setattr(Drain, "drain_abandoned", lambda *_: 1 / 0)
    stop = Stop(5)
    assert serve(root, ledger.spools, stop, interval=4.0, tail=16).failures == 6
    assert stop.pauses == [4, 8, 16, 32, 60, 60]
