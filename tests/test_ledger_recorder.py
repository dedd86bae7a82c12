"""The recorder of a process: what it keeps, when it drains, what a run's row says, and how it ends."""

from __future__ import annotations

import contextvars
import os
import shutil
import sys
import threading
import time

import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    Ledger,
    Settings,
    cache_context,
    cache_span,
    current_run,
    flush,
    internal_errors,
    run,
)
from deltawitness.ledger.drain import drain as drain_module
from deltawitness.ledger.drain import recorder as recorder_module
from deltawitness.ledger.drain.recorder import Recorder, recorder_of
from deltawitness.ledger.tables.schema import INVENTORY, RUNS, SNAPSHOTS
from deltawitness.observe import current_observer
from deltawitness.redaction import key_hash
from deltawitness.run import RunContext, run_from_environment
from deltawitness.testing import InMemoryTelemetry
from helpers.ledger_parts import lines_of, now_us, one, rows_of

READ = {"operation": "READ", "cache_operation": "read", "result": "hit", "event_time": now_us()}


@pytest.fixture
def table(tmp_path):
    return str(tmp_path / "t")


@pytest.fixture
def observed(tmp_path):
    """Instrument with a ledger, and return the recorder of this process."""

    def start(providers=None, **settings):
        known = {"cache_root": str(tmp_path / "cache"), "drain_interval": 3600, **settings}
        DeltaLakeInstrumentor().instrument(settings=Settings(**known), **(providers or {}))
        return current_observer().recorder

    return start


def drained(recorder):
    """Return an event that is set by the next drain."""
    done, told = threading.Event(), recorder.on_drain

    def on_drain(seconds, error):
        told(seconds, error)
        done.set()

    recorder.on_drain = on_drain
    return done


def runs_of(recorder, columns):
    return rows_of(recorder.root, RUNS, columns, "start_time, run_id")


# --- what waits, and when it is drained --------------------------------------------------------------------


def test_writes_are_pending_until_they_are_drained(observed, table):
    """What was written waits in the spool, and is in the ledger after a drain, not before."""
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


def test_many_events_make_a_drain_come_early(observed, table):
    """After so many events a drain does not wait for its interval."""
    recorder = observed(drain_events=3)
    done = drained(recorder)
    write_deltalake(table, one(0))
    flush()
    for number in (1, 2):
        write_deltalake(table, one(number), mode="append")
    assert done.wait(30)
    assert {row["version"] for row in rows_of(recorder.root, INVENTORY, "version")} <= {0, 1, 2}


def test_a_drain_comes_by_itself(observed, table):
    """After the interval what waits is drained, without anybody asking."""
    recorder = observed(drain_interval=0.05)
    done = drained(recorder)
    write_deltalake(table, one(0))
    assert done.wait(30)


class Clock(threading.Event):
    """An event that is never set, and remembers for how long it was waited for."""

    def __init__(self, most, end):
        super().__init__()
        self.waited, self._most, self._end = [], most, end

    def wait(self, timeout=None):
        self.waited.append(timeout)
        if len(self.waited) == self._most:
            self._end()
        return False


@pytest.mark.slow
def test_failing_drains_come_ever_more_rarely(tmp_path, monkeypatch):
    """The pause doubles with each failure up to a minute, and is the interval again after a success."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=5))
    answers = iter([False, False, False, False, False, True, True])
    monkeypatch.setattr(recorder, "drain", lambda: next(answers))
    monkeypatch.setattr(recorder_module.random, "uniform", lambda _, high: high)
    recorder._wake = clock = Clock(8, lambda: setattr(recorder, "_closed", True))
    recorder._work()
    assert clock.waited == [5, 10, 20, 40, 60, 60, 5, 5]


def test_a_drain_waits_for_a_pause_between_writes(tmp_path, monkeypatch):
    """While a write is under way a drain waits, polling gently even when it was called for, but not forever."""
    looks = iter([True, True, True, False])
    recorder = Recorder(Settings(cache_root=str(tmp_path)), is_busy=lambda: next(looks))
    slept = []
    monkeypatch.setattr(recorder_module.time, "sleep", slept.append)
    recorder._wake.set()
    recorder._wait_for_quiet()
    assert slept == [recorder_module.QUIET_POLL] * 3
    monkeypatch.setattr(recorder_module, "PATIENCE", -1.0)
    looks = iter([True])
    recorder._wait_for_quiet()
    assert len(slept) == 3


@pytest.mark.internal_errors
def test_what_could_not_be_drained_is_tried_again(observed, table, tmp_path):
    """A ledger that cannot be written keeps everything in the spool, and takes it when it can."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache_ledgers").write_text("a file is in the way")
    recorder = observed()
    write_deltalake(table, one(0))
    flush()
    assert (recorder.drain(), recorder.pending) == (False, 1)
    (tmp_path / "cache" / "cache_ledgers").unlink()
    assert (recorder.drain(), recorder.pending) == (True, 0)
    assert [component for component, _ in internal_errors.seen()] == ["drain"]
    assert len(rows_of(recorder.root, INVENTORY)) == 1


@pytest.mark.internal_errors
def test_an_engine_that_panics_does_not_end_the_drain(tmp_path, monkeypatch):
    """Whatever a drain dies of is told; what the program itself is ended by goes on."""

    class PanicException(BaseException):
        """What Rust's panics are in Python."""

    recorder = Recorder(Settings(cache_root=str(tmp_path)))
    monkeypatch.setattr(
        recorder, "_drain", lambda _: (_ for _ in ()).throw(PanicException("at the disco"))
    )
    assert recorder.drain() is False
    assert internal_errors.seen() == {("drain", PanicException.__qualname__): 1}
    monkeypatch.setattr(recorder, "_drain", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        recorder.drain()


def test_a_drain_that_hangs_is_not_waited_for(tmp_path, monkeypatch):
    """Who asks for a drain in time gets an answer in time."""
    recorder, release = Recorder(Settings(cache_root=str(tmp_path))), threading.Event()
    monkeypatch.setattr(recorder, "_drain", release.wait)
    assert recorder.drain_in_time(0.01) is False
    release.set()
    assert recorder.drain_in_time(30) is True


@pytest.mark.internal_errors
def test_lines_that_were_damaged_are_told(observed, table):
    """A damaged line in a segment of its own is reported by the drain that passes over it."""
    recorder = observed()
    write_deltalake(table, one(0))
    flush()
    segment = recorder._spool._active
    segment.path.write_bytes(segment.path.read_bytes() + b"00000000 N x {}\n")
    assert recorder.drain()
    assert internal_errors.seen() == {("spool", "ValueError"): 1}
    assert len(rows_of(recorder.root, INVENTORY)) == 1


@pytest.mark.internal_errors
def test_a_segment_that_somebody_deleted_is_counted_as_dropped(observed, table):
    """Operations whose segment is gone are told as dropped, and the next ones are kept."""
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
    assert internal_errors.seen() == {("spool", "FileNotFoundError"): 1}
    assert [point.value for point in telemetry.metric_points()["deltawitness.events.dropped"]] == [
        1
    ]


@pytest.mark.internal_errors
@pytest.mark.slow
def test_a_full_spool_drops_and_says_so(observed, table, tmp_path):
    """What no longer fits is counted in the metric and in the run's row; the writes are as ever."""
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


@pytest.mark.internal_errors
def test_a_spool_that_is_full_of_runs_recovers(tmp_path):
    """While nothing can be drained ends of runs wait, but not without end; then all goes on as before."""
    (tmp_path / "cache_ledgers").write_text("a file is in the way")
    dropped = []
    recorder = Recorder(
        Settings(cache_root=str(tmp_path), drain_interval=3600, spool_limit=1 << 16),
        on_drop=dropped.append,
    )

    def opened_and_ended(number):
        context = RunContext(f"r-{number}", "job")
        recorder.run_started(context)
        recorder.operation(context, READ)
        recorder.run_ended(context, None)

    for number in range(1000):
        opened_and_ended(number)
    assert len(recorder._runs) == recorder_module.UNTOLD_KEPT
    assert dropped
    (tmp_path / "cache_ledgers").unlink()
    assert [recorder.drain() for _ in range(20)] == [True] * 20
    assert recorder._runs == {}
    opened_and_ended("last")
    assert recorder.drain()
    told = {row["run_id"] for row in runs_of(recorder, "run_id")}
    assert {"r-0", "r-999", "r-last"} <= told
    assert "r-last" in {row["run_id"] for row in rows_of(recorder.root, INVENTORY, "run_id")}
    recorder.close(None, timeout=60)


@pytest.mark.slow
def test_a_table_is_looked_after_by_policy(observed, table, monkeypatch):
    """Every so many commits to a table of the ledger the drain compacts it, if the settings let it."""
    monkeypatch.setattr(drain_module, "MAINTAINED_EVERY", 3)
    for is_kept_up in (False, True):
        recorder = observed(ledger_maintenance=is_kept_up)
        for number in range(6):
            write_deltalake(table, one(number), mode="append")
            flush()
            recorder.drain()
        files = len(recorder.root.opened(INVENTORY).file_uris())
        DeltaLakeInstrumentor().uninstrument()
        assert (files < 6) is is_kept_up
        assert len(rows_of(recorder.root, INVENTORY)) == 6
        shutil.rmtree(table)
        shutil.rmtree(os.path.dirname(os.path.dirname(recorder.root.uri_of(INVENTORY))))


# --- runs ----------------------------------------------------------------------------------------------


def test_the_row_of_a_run(observed, table, tmp_path):
    """A run's row says who, when, how it ended and what its operations add up to."""
    recorder = observed()
    with run("nightly", attributes={"shard": "3", "api_token": "hunter2"}) as opened:
        write_deltalake(table, one(0))
        write_deltalake(table, one(1), mode="append")
        DeltaTable(table).delete("x = 7")
        with pytest.raises(Exception, match="no_such"):
            write_deltalake(table, one(1), mode="no_such")
        with pytest.raises(Exception, match=r"(?i)schema|column|field"):
            DeltaTable(table).delete("nothing = 1")
    [row] = rows_of(recorder.root, RUNS)
    size = {name: row.pop(name) for name in ("bytes_added", "end_time", "start_time", "event_date")}
    place = {
        name: row.pop(name)
        for name in (
            "host",
            "python_version",
            "deltalake_version",
            "datafusion_version",
            "witness_version",
        )
    }
    table_ids = row.pop("table_ids")
    assert row == {
        "exit_code": None,
        "run_id": opened.run_id,
        "parent_run_id": None,
        "job": "nightly",
        "is_part": False,
        "status": "ok",
        "error_type": None,
        "reads": 0,
        "hits": 0,
        "misses": 0,
        "writes": 2,
        "snapshots": 0,
        "noops": 1,
        "errors": 2,
        "operations": [
            {"operation": "delete", "result": "error", "count": 1},
            {"operation": "delete", "result": "noop", "count": 1},
            {"operation": "write", "result": "error", "count": 1},
            {"operation": "write", "result": "write", "count": 2},
        ],
        "rows_added": 2,
        "rows_updated": 0,
        "rows_deleted": 0,
        "files_added": 2,
        "files_removed": 0,
        "bytes_removed": 0,
        "files_deleted": 0,
        "bytes_deleted": 0,
        "rows_served": 0,
        "retries": 0,
        "tables_touched": 1,
        "dropped": 0,
        "cache_root": f"file://{tmp_path / 'cache'}",
        "pid": os.getpid(),
        "attributes": [{"name": "shard", "value": "3"}, {"name": "api_token", "value": "[secret]"}],
    }
    assert (size["end_time"] > size["start_time"], size["bytes_added"] > 0, len(table_ids)) == (
        True,
        True,
        1,
    )
    assert None not in place.values()


def test_runs_inside_each_other(observed, table):
    """Each run has its own row and its own operations; the outermost one's end drains them all."""
    recorder = observed()
    with run("outer") as outer:
        write_deltalake(table, one(0))
        with pytest.raises(KeyError), run("inner"):
            write_deltalake(table, one(1), mode="append")
            raise KeyError
    assert runs_of(recorder, "job, status, error_type, writes, parent_run_id") == [
        {
            "job": "outer",
            "status": "ok",
            "error_type": None,
            "writes": 1,
            "parent_run_id": None,
        },
        {
            "job": "inner",
            "status": "error",
            "error_type": "KeyError",
            "writes": 1,
            "parent_run_id": outer.run_id,
        },
    ]
    assert recorder.pending == 0


def test_a_parent_run_that_wrote_nothing_has_a_row(observed, table):
    """A run opened in the implicit run of the process, once anything belonged to that, names a row."""
    recorder = observed()
    implicit = current_run()
    for number in range(2):
        with run("explicit"):
            write_deltalake(table, one(number), mode="append")
    recorder.close(None, timeout=60)
    rows = runs_of(recorder, "run_id, parent_run_id, writes, is_part")
    parents = {row["parent_run_id"] for row in rows if row["writes"]}
    assert parents == {implicit.run_id}
    assert {row["run_id"]: row["is_part"] for row in rows if not row["writes"]} == {
        implicit.run_id: False
    }


def test_a_parent_run_that_was_open_before_has_a_row(observed, table):
    """A run that was opened before its process was observed has a row when another was opened in it."""
    with run("before") as before:
        recorder = observed()
        with run("inner"):
            write_deltalake(table, one(0))
    assert recorder.drain()
    assert runs_of(recorder, "job, parent_run_id, writes") == [
        {"job": "before", "parent_run_id": None, "writes": 0},
        {"job": "inner", "parent_run_id": before.run_id, "writes": 1},
    ]


@pytest.mark.parametrize(("code", "status"), [(0, "ok"), (None, "ok"), (3, "error")])
def test_leaving_a_run_by_exit(observed, table, code, status):
    """A program that exits with 0 inside a run has ended well."""
    recorder = observed()
    with pytest.raises(SystemExit), run("nightly"):
        write_deltalake(table, one(0))
        raise SystemExit(code)
    assert [row["status"] for row in runs_of(recorder, "status")] == [status]


def test_a_run_without_operations_is_a_row(observed):
    """A run that wrote nothing is told too."""
    recorder = observed()
    with run("nothing"):
        pass
    assert runs_of(recorder, "job, status, writes") == [
        {"job": "nothing", "status": "ok", "writes": 0}
    ]


def test_a_run_that_was_open_before_anybody_looked(observed, table):
    """A run that was opened before the library was switched on ends when it ends."""
    with run("early"):
        recorder = observed()
        write_deltalake(table, one(0))
    assert runs_of(recorder, "job, writes, is_part") == [
        {"job": "early", "writes": 1, "is_part": False}
    ]
    assert recorder._runs == {}


def test_a_run_that_ends_while_a_drain_begins_is_told_once(tmp_path):
    """The drain looks for ends that there was no room for; one that is just being told is none."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=3600))
    for number in range(200):
        ending = RunContext(f"r-{number}", "job")
        recorder.run_started(ending)
        opened = recorder._runs[ending.run_id]
        begun = threading.Barrier(2, timeout=60)

        def look(opened=opened, begun=begun):
            begun.wait()
            deadline = time.monotonic() + 10
            while opened.ended is None:
                assert time.monotonic() < deadline
            recorder._tell_end(opened)

        thread = threading.Thread(target=look)
        thread.start()
        begun.wait()
        recorder.run_ended(ending, None)
        thread.join()
    ends = [line for path in recorder.home.glob("*.open") for line in lines_of(path)]
    assert sum(kind == "E" for kind, _, _ in ends) == 200


def test_a_write_after_the_end_of_its_run_does_not_end_it_anew(observed, table):
    """A thread that outlives its run adds to what the run has written, not to how it ended."""
    recorder = observed()
    with pytest.raises(ValueError), run("nightly"):
        there = contextvars.copy_context()
        write_deltalake(table, one(0))
        raise ValueError
    there.run(write_deltalake, table, one(1), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    columns = "status, writes, is_part"
    assert rows_of(recorder.root, RUNS, columns, "is_part") == [
        {"status": "error", "writes": 1, "is_part": False},
        {"status": "ok", "writes": 1, "is_part": True},
    ]
    told = Ledger(recorder.root.uri).runs().select("status", "writes", "processes").to_pylist()
    assert told == [{"status": "error", "writes": 2, "processes": 1}]


def test_a_worker_that_takes_part_in_many_runs_keeps_few_of_them_open(tmp_path):
    """Each segment tells of the open runs anew: those that others close are told before they are many."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=3600))
    runs = [RunContext(f"r-{number}", "job", is_joined=True) for number in range(1000)]
    for joined in (*runs, runs[0]):
        recorder.operation(joined, READ)
    assert len(recorder._runs) == recorder_module.PARTS_KEPT
    recorder.close(None, timeout=60)
    told = Ledger(tmp_path).runs().select("run_id", "reads").to_pylist()
    assert {run["run_id"]: run["reads"] for run in told} == {
        joined.run_id: 2 if joined is runs[0] else 1 for joined in runs
    }


def test_threads_count_together(tmp_path):
    """A run's sums are whole, however many threads add to them at a time."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=3600))
    shared = RunContext("r-1", "job")
    recorder.run_started(shared)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(
                target=lambda: [
                    recorder._count(shared, READ | {"rows_added": 1}) for _ in range(5000)
                ]
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert recorder._runs["r-1"].tally.columns()["rows_added"] == 20_000


@pytest.mark.internal_errors
def test_where_no_thread_can_be_had_nothing_is_lost(observed, table, monkeypatch):
    """A machine that gives no thread for now: the program goes on, and the next write tries again."""
    recorder = observed(drain_interval=0.1)
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == "deltawitness-drain":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with run("nightly"):
        write_deltalake(table, one(0))
    monkeypatch.undo()
    assert runs_of(recorder, "job, writes") == [{"job": "nightly", "writes": 1}]
    is_drained = drained(recorder)
    write_deltalake(table, one(1), mode="append")
    assert is_drained.wait(30)
    DeltaLakeInstrumentor().uninstrument()
    assert len(rows_of(recorder.root, INVENTORY)) == 2


def test_a_run_that_nobody_recorded_is_no_row(observed):
    """The end of a run that this recorder has never heard of tells nothing."""
    recorder = observed()
    recorder.run_ended(RunContext("unheard-of", "x"), None)
    assert recorder.pending == 0


def test_one_run_id_opened_twice_inside_itself(observed, table):
    """A run entered again inside itself ends with its outermost block, as one row."""
    recorder = observed()
    with run("nightly", run_id="r-1"), run("nightly", run_id="r-1"):
        write_deltalake(table, one(0))
    assert runs_of(recorder, "run_id, writes") == [{"run_id": "r-1", "writes": 1}]


def test_the_implicit_run_ends_with_the_process_or_the_library(observed, table):
    """Writes outside any run belong to the process's own, which is told at the end."""
    recorder = observed()
    write_deltalake(table, one(0))
    recorder.drain()
    assert runs_of(recorder, "job") == []
    DeltaLakeInstrumentor().uninstrument()
    assert runs_of(recorder, "run_id, status, writes, is_part") == [
        {"run_id": current_run().run_id, "status": "ok", "writes": 1, "is_part": False}
    ]


def test_a_process_that_takes_part_in_a_run(observed, table, monkeypatch):
    """In a process that was handed a run, the row says that it only took part."""
    monkeypatch.setenv("DELTAWITNESS_RUN_ID", "r-parent")
    monkeypatch.setenv("DELTAWITNESS_JOB", "nightly")
    assert run_from_environment(os.environ).is_joined
    recorder = observed()
    write_deltalake(table, one(0))
    DeltaLakeInstrumentor().uninstrument()
    assert runs_of(recorder, "run_id, job, is_part") == [
        {"run_id": "r-parent", "job": "nightly", "is_part": True}
    ]


@pytest.mark.internal_errors
def test_a_run_whose_start_cannot_be_kept_is_no_trouble(tmp_path):
    """On a disk that takes nothing a run opens and closes as ever; that nothing is kept is told."""
    (tmp_path / "cache_spool").write_text("a file is in the way")
    dropped = []
    recorder = Recorder(Settings(cache_root=str(tmp_path)), on_drop=dropped.append)
    context = RunContext("r-1", "nightly")
    recorder.run_started(context)
    recorder.operation(context, {"result": "hit", "cache_operation": "read"})
    recorder.snapshot("s", {})
    recorder.run_ended(context, None)
    recorder.close(None, timeout=1)
    assert dropped == ["spool", "spool"]
    assert set(internal_errors.seen()) >= {("spool", "OSError"), ("spool", "NotADirectoryError")}


# --- operations that are no writes --------------------------------------------------------------------------


def test_reads_of_a_cache_are_rows(observed):
    """Reads and snapshots of a cache are in the inventory with their result; its writes tell themselves."""
    telemetry = InMemoryTelemetry.create()
    recorder = observed(telemetry.providers())
    with run("nightly") as opened:
        for operation, result in (
            ("read", "hit"),
            ("read", "miss"),
            ("snapshot", "write"),
            ("write", "write"),
        ):
            with cache_span(
                f"cache.{operation}", cache_policy="views", cache_scope="view", operation=operation
            ) as (_, told):
                told(result)
        with (
            pytest.raises(OSError, match="gone"),
            cache_span(
                "cache.read", cache_policy="p /home/ann/x", cache_scope="view", operation="read"
            ),
        ):
            raise OSError("gone")
    rows = rows_of(recorder.root, INVENTORY, order="event_time")
    told = (
        "run_id",
        "job",
        "operation",
        "cache_operation",
        "scope",
        "policy",
        "result",
        "error_type",
        "source",
        "pid",
    )
    common = {
        "run_id": opened.run_id,
        "job": "nightly",
        "scope": "view",
        "error_type": None,
        "source": "observed",
        "pid": os.getpid(),
    }
    assert [{name: row[name] for name in told} for row in rows] == [
        {
            **common,
            "operation": "READ",
            "cache_operation": "read",
            "policy": "views",
            "result": "hit",
        },
        {
            **common,
            "operation": "READ",
            "cache_operation": "read",
            "policy": "views",
            "result": "miss",
        },
        {
            **common,
            "operation": "SNAPSHOT",
            "cache_operation": "snapshot",
            "policy": "views",
            "result": "write",
        },
        {
            **common,
            "operation": "READ",
            "cache_operation": "read",
            "policy": "p [path]",
            "result": "error",
            "error_type": "storage_failed",
        },
    ]
    spans = {f"{span.context.span_id:016x}" for span in telemetry.spans()}
    assert {row["span_id"] for row in rows} <= spans
    assert len({row["write_id"] for row in rows}) == 4
    assert runs_of(recorder, "reads, hits, misses, snapshots, errors, writes") == [
        {"reads": 3, "hits": 1, "misses": 1, "snapshots": 1, "errors": 1, "writes": 0}
    ]


def test_what_a_read_is_said_to_be_is_kept_without_secrets(tmp_path):
    """Location, key and message as the ledger keeps those of a write, whatever the cache says."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=3600))
    said = {
        "table_uri": "s3a://key:hidden@b/t/?sig=x",
        "key": "customer 4711",
        "error_message": "can't read /home/ann/x, errno 13, token=hunter2",
    }
    recorder.operation(RunContext("r-1", "job"), READ | said)
    assert [
        (row["table_uri"], row["key"], row["error_message"])
        for path in recorder.home.glob("*.open")
        for kind, _, row in lines_of(path)
        if kind == "R"
    ] == [("s3://b/t", key_hash("customer 4711"), "can't read /home/ann/x, errno 13, [secret]")]


def test_reads_outside_of_any_run_belong_to_the_process(observed):
    """A read without a run is one of the process's implicit run."""
    recorder = observed()
    with cache_span("cache.read", cache_policy="p", cache_scope="view", operation="read"):
        pass
    recorder.drain()
    assert rows_of(recorder.root, INVENTORY, "run_id, result") == [
        {"run_id": current_run().run_id, "result": "hit"}
    ]


def test_without_a_ledger_nobody_listens_to_reads(tmp_path):
    """Once the library is switched off, reads are told to nobody."""
    from deltawitness.telemetry import cache_spans

    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    assert cache_spans._listener is not None
    DeltaLakeInstrumentor().uninstrument()
    assert cache_spans._listener is None
    DeltaLakeInstrumentor().instrument()
    assert (cache_spans._listener, current_observer().recorder) == (None, None)


def test_snapshots_are_rows_of_the_registry(observed):
    """A snapshot of any name is in its table, with what was told of it."""
    recorder = observed()
    recorder.snapshot(
        "daily ü \ud800", {"event_time": now_us(), "run_id": "r", "rows": 3, "result": "write"}
    )
    recorder.drain()
    assert rows_of(recorder.root, SNAPSHOTS, "snapshot, run_id, rows, result") == [
        {"snapshot": "daily ü ?", "run_id": "r", "rows": 3, "result": "write"}
    ]


def test_policy_scope_and_key_of_a_write(observed, table):
    """What the program said around a write is in its row, the key as a hash."""
    recorder = observed()
    with cache_context(policy="views", scope="view", key="customer=17"):
        write_deltalake(table, one(0))
    flush()
    assert [line[0] for line in lines_of(recorder._spool._active.path)] == ["S", "S", "N", "R"]
    recorder.drain()
    [row] = rows_of(recorder.root, INVENTORY, "policy, scope, key")
    assert row == {"policy": "views", "scope": "view", "key": key_hash("customer=17")}


# --- its end ----------------------------------------------------------------------------------------------


def test_the_end_tells_everything_and_leaves_nothing(observed, table, tmp_path):
    """Switching the library off drains what waits, closes the runs and gives the folder up."""
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


def test_a_process_that_told_nothing_leaves_nothing(observed, tmp_path):
    """A program that writes nothing leaves no folder behind."""
    observed()
    DeltaLakeInstrumentor().uninstrument()
    assert not (tmp_path / "cache").exists()


def test_what_comes_after_the_end_is_left_to_the_next(observed, table):
    """An operation that is told to a closed recorder is in a spool that the next drain adopts."""
    recorder = observed()
    write_deltalake(table, one(0))
    DeltaLakeInstrumentor().uninstrument()
    recorder.operation(
        current_run(), {"event_time": now_us(), "result": "hit", "cache_operation": "read"}
    )
    assert len(rows_of(recorder.root, INVENTORY)) == 1
    recorder._spool._let_go()
    assert Ledger(recorder.root.uri).drain().operations == 1


def test_an_ending_process_drains_as_an_error_if_it_is_one(observed, table):
    """The runs that are open when the process is ended by an error ended with it."""
    recorder = observed()
    write_deltalake(table, one(0))
    flush()
    recorder.close(MemoryError(), timeout=30)
    assert runs_of(recorder, "status, error_type") == [
        {"status": "error", "error_type": "MemoryError"}
    ]


def test_a_forked_child_tells_and_does_not_drain(observed, table):
    """A child that was forked keeps what it does in a spool of its own, for others to drain."""
    recorder = observed()
    write_deltalake(table, one(0))
    flush()
    pid = os.fork()
    if pid == 0:
        try:
            recorder.operation(
                RunContext("r-child", "x"),
                {"event_time": now_us(), "result": "hit", "cache_operation": "read"},
            )
            recorder.close(None, timeout=1)
            os._exit(0 if (recorder.drain(), recorder.is_open) == (False, False) else 1)
        except BaseException:  # noqa: BLE001 - a child must not come back into the test
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


def test_a_hanging_drain_holds_up_one_fork(tmp_path, monkeypatch):
    """A fork waits for the end of a drain; one that did so in vain is the last to wait."""
    monkeypatch.setattr(recorder_module, "PATIENCE", 0.5)
    recorder = Recorder(Settings(cache_root=str(tmp_path)))
    waited = []
    with recorder._unforkable:
        for _ in range(3):
            begun = time.monotonic()
            recorder.before_fork()
            recorder.after_fork_in_parent()
            waited.append(time.monotonic() - begun)
    assert [seconds >= 0.5 for seconds in waited] == [True, False, False]
    assert recorder.drain()
    assert not recorder._is_hanging


def test_a_ledger_is_known_by_whatever_link_leads_there(observed, table, tmp_path):
    """What this process has told is drained before its ledger is read by another name."""
    recorder = observed()
    write_deltalake(table, one(0))
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    assert recorder_of(Ledger(tmp_path / "link").root) is recorder
    assert Ledger(tmp_path / "link").inventory().count() == 1


def test_metrics_tell_what_waits_and_how_long_drains_take(observed, table):
    """`deltawitness.spool.pending` counts what waits, `deltawitness.drain.duration` each drain."""
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
def test_failing_drains_say_why_in_their_metric(observed, table, tmp_path):
    """A drain that fails is counted under the kind of its error, and nothing else about it."""
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
