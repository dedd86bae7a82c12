"""The recorder of a process: records, drains, forks, its end and its metrics."""

from __future__ import annotations

import os
import shutil
import threading
import time

import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    Ledger,
    Settings,
    current_run,
    flush,
    internal_errors,
    run,
)
from deltawitness.ledger.drain import drain as drain_module
from deltawitness.ledger.drain import drain_thread, open_runs
from deltawitness.ledger.drain.recorder import Recorder, recorder_of
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.run_context import RunContext
from deltawitness.testing import InMemoryTelemetry
from helpers.ledger_parts import now_us, one, rows_of
from helpers.recorder_parts import READ, drained, runs_of

# --- drains --------------------------------------------------------------------


def test_writes_are_pending_until_they_are_drained(observed, table):
    """A write is in the spool until a drain appends it to the ledger."""
    recorder = observed()
    assert (recorder.pending, recorder.home) == (0, None)
    for number in range(3):
        write_deltalake(table, one(number), mode="append")
    flush()
    assert (recorder.pending, rows_of(recorder.root, INVENTORY)) == (3, [])
    assert recorder.drain()
    assert recorder.pending == 0
    assert rows_of(recorder.root, INVENTORY, "version, result", "version") == [
        {"version": number, "result": "write"} for number in range(3)
    ]


def test_many_events_start_a_drain_early(observed, table):
    """After `drain_events` operations a drain starts before its interval has passed."""
    recorder = observed(drain_events=3)
    done = drained(recorder)
    write_deltalake(table, one(0))
    flush()
    for number in (1, 2):
        write_deltalake(table, one(number), mode="append")
    assert done.wait(30)
    assert {row["version"] for row in rows_of(recorder.root, INVENTORY, "version")} <= {0, 1, 2}


@pytest.mark.slow
def test_drains_run_in_the_background(observed, table):
    """After the interval a drain starts by itself."""
    recorder = observed(drain_interval=0.05)
    done = drained(recorder)
    write_deltalake(table, one(0))
    assert done.wait(30)


class Clock(threading.Event):
    """An event that is never set, and records the timeouts of its waits."""

    def __init__(self, most, end):
        super().__init__()
        self.waited, self._most, self._end = [], most, end

    def wait(self, timeout=None):
        self.waited.append(timeout)
        if len(self.waited) == self._most:
            self._end()
        return False


@pytest.mark.slow
def test_failing_drains_back_off(tmp_path, monkeypatch):
    """The pause doubles with each failure up to a minute, and is reset after a success."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=5))
    answers = iter([False, False, False, False, False, True, True])
    monkeypatch.setattr(recorder.drains, "drain", lambda: next(answers))
    monkeypatch.setattr(drain_thread.random, "uniform", lambda _, high: high)
    recorder.drains._wake = clock = Clock(8, lambda: setattr(recorder.drains, "_is_closed", True))
    recorder.drains._work()
    assert [round(seconds) for seconds in clock.waited] == [5, 10, 20, 40, 60, 60, 5, 5]


def test_a_drain_waits_for_a_pause_between_writes(tmp_path, monkeypatch):
    """A drain polls for a pause between writes, also if requested, until its timeout."""
    looks = iter([True, True, True, False])
    recorder = Recorder(Settings(cache_root=str(tmp_path)), is_busy=lambda: next(looks))
    recorder.drains._paused = clock = Clock(9, bool)
    recorder.drains._wake.set()
    recorder.drains._wait_for_quiet()
    assert clock.waited == [drain_thread.QUIET_POLL] * 3
    monkeypatch.setattr(drain_thread, "QUIET_TIMEOUT", -1.0)
    looks = iter([True])
    recorder.drains._wait_for_quiet()
    assert len(clock.waited) == 3


@pytest.mark.internal_errors
def test_undrained_records_remain_for_a_later_drain(observed, table, tmp_path):
    """If the ledger cannot be written, records remain in the spool for a later drain."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache_ledgers").write_text("a file is in the way")
    recorder = observed()
    write_deltalake(table, one(0))
    flush()
    assert (recorder.drain(), recorder.pending) == (False, 1)
    (tmp_path / "cache" / "cache_ledgers").unlink()
    assert (recorder.drain(), recorder.pending) == (True, 0)
    assert [component for component, _ in internal_errors.error_counts()] == ["drain"]
    assert len(rows_of(recorder.root, INVENTORY)) == 1


@pytest.mark.internal_errors
def test_an_engine_that_panics_does_not_end_the_drain(tmp_path, monkeypatch):
    """A panic of the engine is reported; KeyboardInterrupt is raised to the program."""

    class PanicException(BaseException):
        """Like the exception of a Rust panic, which is no `Exception`."""

    recorder = Recorder(Settings(cache_root=str(tmp_path)))
    monkeypatch.setattr(
        recorder.drains, "_drain", lambda _: (_ for _ in ()).throw(PanicException("at the disco"))
    )
    assert recorder.drain() is False
    assert internal_errors.error_counts() == {("drain", PanicException.__qualname__): 1}
    monkeypatch.setattr(
        recorder.drains, "_drain", lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        recorder.drain()


def test_a_drain_that_hangs_is_not_waited_for(tmp_path, monkeypatch):
    """`drain_in_time` returns after its timeout even if the drain hangs."""
    recorder, release = Recorder(Settings(cache_root=str(tmp_path))), threading.Event()
    monkeypatch.setattr(recorder.drains, "_drain", release.wait)
    assert recorder.drains.drain_in_time(0.01) is False
    release.set()
    assert recorder.drains.drain_in_time(30) is True


@pytest.mark.slow
def test_a_drain_before_an_exec_is_waited_for_while_it_computes(tmp_path, monkeypatch):
    """A slow drain may take longer than the timeout, but one that hangs may not."""
    recorder, release = Recorder(Settings(cache_root=str(tmp_path))), threading.Event()
    ended = []

    def compute(_):
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            pass
        ended.append(True)

    monkeypatch.setattr(recorder.drains, "_drain", compute)
    assert recorder.drains.drain_in_time(0.5, longest=30) is True
    assert ended == [True]
    monkeypatch.setattr(recorder.drains, "_drain", release.wait)
    assert recorder.drains.drain_in_time(0.5, longest=30) is False
    release.set()


@pytest.mark.internal_errors
def test_damaged_records_are_reported(observed, table):
    """A damaged record in this process's segment is skipped and reported by the drain."""
    recorder = observed()
    write_deltalake(table, one(0))
    flush()
    segment = recorder._spool._active
    segment.path.write_bytes(segment.path.read_bytes() + b"00000000 N x {}\n")
    assert recorder.drain()
    assert internal_errors.error_counts() == {("spool", "ValueError"): 1}
    assert len(rows_of(recorder.root, INVENTORY)) == 1


@pytest.mark.internal_errors
def test_a_segment_that_somebody_deleted_is_counted_as_dropped(observed, table):
    """Operations of a deleted segment are counted as dropped, and later ones are recorded."""
    telemetry = InMemoryTelemetry.create()
    recorder = observed(telemetry.providers())
    write_deltalake(table, one(0))
    flush()
    recorder._spool.rotate()
    shutil.rmtree(recorder.home)
    write_deltalake(table, one(1), mode="append")
    flush()
    assert (recorder.drain(), recorder.pending) == (True, 0)
    assert rows_of(recorder.root, INVENTORY, "version") == [{"version": 1}]
    assert internal_errors.error_counts() == {("spool", "FileNotFoundError"): 1}
    assert [point.value for point in telemetry.metric_points()["deltawitness.events.dropped"]] == [
        1
    ]


@pytest.mark.internal_errors
@pytest.mark.slow
def test_a_full_spool_counts_dropped_operations(observed, table, tmp_path):
    """Operations beyond the spool's limit are counted in the metric and in the run's row."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache_ledgers").write_text("a file is in the way")
    telemetry = InMemoryTelemetry.create()
    recorder = observed(telemetry.providers(), spool_limit=1 << 16)
    with run("nightly") as opened:
        for number in range(60):
            write_deltalake(table, one(number), mode="append")
        flush()
        dropped = recorder._spool.dropped
        (tmp_path / "cache" / "cache_ledgers").unlink()
        recorder.drain()
    assert DeltaTable(table).version() == 59
    assert (
        0
        < dropped
        == sum(point.value for point in telemetry.metric_points()["deltawitness.events.dropped"])
    )
    assert len(rows_of(recorder.root, INVENTORY)) == 60 - dropped
    [row] = runs_of(recorder, "run_id, dropped, writes")
    assert row == {"run_id": opened.run_id, "dropped": dropped, "writes": 60}


@pytest.mark.slow
@pytest.mark.internal_errors
def test_a_spool_that_is_full_of_runs_recovers(tmp_path):
    """While the spool is full, a limited number of run ends waits for the next drain."""
    (tmp_path / "cache_ledgers").write_text("a file is in the way")
    dropped = []
    recorder = Recorder(
        Settings(cache_root=str(tmp_path), drain_interval=3600, spool_limit=1 << 16),
        on_drop=dropped.append,
    )

    def opened_and_ended(number):
        context = RunContext(f"r-{number}", "job")
        recorder.run_started(context)
        recorder.record_operation(context, READ)
        recorder.run_ended(context, None)

    for number in range(1000):
        opened_and_ended(number)
    assert len(recorder.run_ids) == open_runs.MAX_UNRECORDED
    assert dropped
    (tmp_path / "cache_ledgers").unlink()
    assert [recorder.drain() for _ in range(20)] == [True] * 20
    assert recorder.run_ids == ()
    opened_and_ended("last")
    assert recorder.drain()
    recorded = {row["run_id"] for row in runs_of(recorder, "run_id")}
    assert {"r-0", "r-999", "r-last"} <= recorded
    assert "r-last" in {row["run_id"] for row in rows_of(recorder.root, INVENTORY, "run_id")}
    recorder.close(None, timeout=60)


@pytest.mark.slow
def test_a_table_is_looked_after_by_policy(observed, table, monkeypatch):
    """Every `COMMITS_PER_MAINTENANCE` commits the drain compacts the table, if enabled."""
    monkeypatch.setattr(drain_module, "COMMITS_PER_MAINTENANCE", 3)
    for is_kept_up in (False, True):
        recorder = observed(ledger_maintenance=is_kept_up)
        for number in range(6):
            write_deltalake(table, one(number), mode="append")
            flush()
            recorder.drain()
        files = len(recorder.root.open_table(INVENTORY).file_uris())
        DeltaLakeInstrumentor().uninstrument()
        assert (files < 6) is is_kept_up
        assert len(rows_of(recorder.root, INVENTORY)) == 6
        shutil.rmtree(table)
        shutil.rmtree(os.path.dirname(os.path.dirname(recorder.root.uri_of(INVENTORY))))


# --- close and fork ----------------------------------------------------------------------------------------------


def test_close_drains_everything_and_removes_the_spool(observed, table, tmp_path):
    """Uninstrumenting drains, ends the open runs and deletes the spool."""
    recorder = observed()
    assert recorder_of(recorder.root) is recorder
    write_deltalake(table, one(0))
    DeltaLakeInstrumentor().uninstrument()
    assert (len(rows_of(recorder.root, INVENTORY)), recorder.pending, recorder.is_open) == (
        1,
        0,
        False,
    )
    assert recorder_of(recorder.root) is None
    assert list((tmp_path / "cache" / "cache_spool").iterdir()) == []
    recorder.close(None, timeout=1)


def test_a_process_without_writes_leaves_no_folder(observed, tmp_path):
    """A program without writes leaves no folder."""
    observed()
    DeltaLakeInstrumentor().uninstrument()
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_an_operation_after_close_is_left_to_the_next_drain(observed, table):
    """An operation after `close` is in a spool that the next drain adopts."""
    recorder = observed()
    write_deltalake(table, one(0))
    DeltaLakeInstrumentor().uninstrument()
    recorder.record_operation(
        current_run(), {"event_time": now_us(), "result": "hit", "cache_operation": "read"}
    )
    assert len(rows_of(recorder.root, INVENTORY)) == 1
    recorder._spool._release_home()
    assert Ledger(recorder.root.uri).drain().operations == 1


def test_an_ending_process_drains_as_an_error_if_it_is_one(observed, table):
    """If an error ends the process, its open runs have the status `error`."""
    recorder = observed()
    write_deltalake(table, one(0))
    flush()
    recorder.close(MemoryError(), timeout=30)
    assert runs_of(recorder, "status, error_type") == [
        {"status": "error", "error_type": "MemoryError"}
    ]


@pytest.mark.slow
def test_a_forked_child_records_and_does_not_drain(observed, table):
    """A forked child records in its own spool, and other processes drain it."""
    recorder = observed()
    write_deltalake(table, one(0))
    flush()
    pid = os.fork()
    if pid == 0:
        try:
            recorder.record_operation(
                RunContext("r-child", "x"),
                {"event_time": now_us(), "result": "hit", "cache_operation": "read"},
            )
            recorder.close(None, timeout=1)
            os._exit(0 if (recorder.drain(), recorder.is_open) == (False, False) else 1)
        except BaseException:  # noqa: BLE001 - the child must not continue the test
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    recorder.drain()
    rows = rows_of(recorder.root, INVENTORY, "run_id, pid, result", "result")
    assert rows == [
        {"run_id": "r-child", "pid": pid, "result": "hit"},
        {"run_id": current_run().run_id, "pid": os.getpid(), "result": "write"},
    ]
    assert runs_of(recorder, "run_id, is_part, status, hits") == [
        {"run_id": "r-child", "is_part": True, "status": "ok", "hits": 1}
    ]


# --- metrics -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hanging_drain_holds_up_one_fork(tmp_path, monkeypatch):
    """A fork waits for a running drain; after a timeout later forks do not wait."""
    recorder = Recorder(Settings(cache_root=str(tmp_path)))
    waited = []
    with recorder.drains._unforkable:
        for timeout in (0.5, 100, 100):
            monkeypatch.setattr(drain_thread, "QUIET_TIMEOUT", timeout)
            begun = time.monotonic()
            recorder.before_fork()
            recorder.after_fork_in_parent()
            waited.append(time.monotonic() - begun)
    assert waited[0] >= 0.5
    assert max(waited[1:]) < 100
    assert recorder.drain()
    assert not recorder.drains._is_hanging


def test_a_ledger_is_identified_through_symbolic_links(observed, table, tmp_path):
    """A ledger opened through a symbolic link drains this process's spool before reading."""
    recorder = observed()
    write_deltalake(table, one(0))
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    assert recorder_of(Ledger(tmp_path / "link").root) is recorder
    assert Ledger(tmp_path / "link").inventory().count() == 1


def test_metrics_have_pending_records_and_drain_durations(observed, table):
    """`deltawitness.spool.pending` and `deltawitness.drain.duration` measure the spool and drains."""
    telemetry = InMemoryTelemetry.create()
    recorder = observed(telemetry.providers())
    for number in range(2):
        write_deltalake(table, one(number), mode="append")
    [pending] = telemetry.metric_points()["deltawitness.spool.pending"]
    assert (pending.value, dict(pending.attributes)) == (2, {})
    recorder.drain()
    recorder.drain()
    points = telemetry.metric_points()
    assert [point.value for point in points["deltawitness.spool.pending"]] == [0]
    [duration] = points["deltawitness.drain.duration"]
    assert (duration.count, dict(duration.attributes), 0 < duration.sum < 60) == (2, {}, True)


@pytest.mark.internal_errors
def test_the_metric_of_a_failing_drain_has_the_error_type(observed, table, tmp_path):
    """The metric of a failed drain has its error type and no other detail."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache_ledgers").write_text("a file is in the way")
    telemetry = InMemoryTelemetry.create()
    recorder = observed(telemetry.providers())
    write_deltalake(table, one(0))
    flush()
    recorder.drain()
    [duration] = telemetry.metric_points()["deltawitness.drain.duration"]
    assert (duration.count, list(duration.attributes)) == (1, ["error.type"])
    (tmp_path / "cache" / "cache_ledgers").unlink()
