"""The recorder of a process: records, drains, rows of runs, forks, and its end."""

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
from deltawitness.ledger.drain import drain_thread, open_runs
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
    """Return an event that the next drain sets."""
    done, previous = threading.Event(), recorder.drains.on_drain

    def on_drain(seconds, error):
        previous(seconds, error)
        done.set()

    recorder.drains.on_drain = on_drain
    return done


def runs_of(recorder, columns):
    return rows_of(recorder.root, RUNS, columns, "start_time, run_id")


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


def test_many_events_make_a_drain_come_early(observed, table):
    """After `drain_events` operations a drain starts before its interval has passed."""
    recorder = observed(drain_events=3)
    done = drained(recorder)
    write_deltalake(table, one(0))
    flush()
    for number in (1, 2):
        write_deltalake(table, one(number), mode="append")
    assert done.wait(30)
    assert {row["version"] for row in rows_of(recorder.root, INVENTORY, "version")} <= {0, 1, 2}


def test_a_drain_comes_by_itself(observed, table):
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
def test_failing_drains_come_ever_more_rarely(tmp_path, monkeypatch):
    """The pause doubles with each failure up to a minute, and is reset after a success."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=5))
    answers = iter([False, False, False, False, False, True, True])
    monkeypatch.setattr(recorder.drains, "drain", lambda: next(answers))
    monkeypatch.setattr(drain_thread.random, "uniform", lambda _, high: high)
    recorder.drains._wake = clock = Clock(8, lambda: setattr(recorder.drains, "_is_closed", True))
    recorder.drains._work()
    assert clock.waited == [5, 10, 20, 40, 60, 60, 5, 5]


def test_a_drain_waits_for_a_pause_between_writes(tmp_path, monkeypatch):
    """A drain polls for a pause between writes, also if requested, until its timeout."""
    looks = iter([True, True, True, False])
    recorder = Recorder(Settings(cache_root=str(tmp_path)), is_busy=lambda: next(looks))
    slept = []
    monkeypatch.setattr(drain_thread.time, "sleep", slept.append)
    recorder.drains._wake.set()
    recorder.drains._wait_for_quiet()
    assert slept == [drain_thread.QUIET_POLL] * 3
    monkeypatch.setattr(drain_thread, "QUIET_TIMEOUT", -1.0)
    looks = iter([True])
    recorder.drains._wait_for_quiet()
    assert len(slept) == 3


@pytest.mark.internal_errors
def test_what_could_not_be_drained_is_tried_again(observed, table, tmp_path):
    """If the ledger cannot be written, records remain in the spool for a later drain."""
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
    """A panic of the engine is reported; KeyboardInterrupt is raised to the program."""

    class PanicException(BaseException):
        """Like the exception of a Rust panic, which is no `Exception`."""

    recorder = Recorder(Settings(cache_root=str(tmp_path)))
    monkeypatch.setattr(
        recorder.drains, "_drain", lambda _: (_ for _ in ()).throw(PanicException("at the disco"))
    )
    assert recorder.drain() is False
    assert internal_errors.seen() == {("drain", PanicException.__qualname__): 1}
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


@pytest.mark.internal_errors
def test_lines_that_were_damaged_are_told(observed, table):
    """A damaged record in this process's segment is skipped and reported by the drain."""
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
    assert internal_errors.seen() == {("spool", "FileNotFoundError"): 1}
    assert [point.value for point in telemetry.metric_points()["deltawitness.events.dropped"]] == [
        1
    ]


@pytest.mark.internal_errors
@pytest.mark.slow
def test_a_full_spool_drops_and_says_so(observed, table, tmp_path):
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


# --- runs ----------------------------------------------------------------------------------------------


def test_the_row_of_a_run(observed, table, tmp_path):
    """A run's row has its identity, times, status and the sums of its operations."""
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
    """Nested runs have their own rows and operations; the end of the outermost drains them all."""
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
    """The implicit run of the process has a row if another run was opened in it."""
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
    """A run that was open before instrumentation has a row if another run was opened in it."""
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
    """A run that ends by `sys.exit(0)` has the status `ok`."""
    recorder = observed()
    with pytest.raises(SystemExit), run("nightly"):
        write_deltalake(table, one(0))
        raise SystemExit(code)
    assert [row["status"] for row in runs_of(recorder, "status")] == [status]


def test_a_run_without_operations_is_a_row(observed):
    """A run without writes has a row."""
    recorder = observed()
    with run("nothing"):
        pass
    assert runs_of(recorder, "job, status, writes") == [
        {"job": "nothing", "status": "ok", "writes": 0}
    ]


def test_a_run_that_was_open_before_anybody_looked(observed, table):
    """A run that was open before instrumentation gets its row when it ends."""
    with run("early"):
        recorder = observed()
        write_deltalake(table, one(0))
    assert runs_of(recorder, "job, writes, is_part") == [
        {"job": "early", "writes": 1, "is_part": False}
    ]
    assert recorder.run_ids == ()


def test_a_run_that_ends_while_a_drain_begins_is_told_once(tmp_path):
    """A drain records only ends that the spool had no room for, not one that is being recorded."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=3600))
    for number in range(200):
        ending = RunContext(f"r-{number}", "job")
        recorder.run_started(ending)
        opened = recorder._runs._runs[ending.run_id]
        begun = threading.Barrier(2, timeout=60)

        def look(opened=opened, begun=begun):
            begun.wait()
            deadline = time.monotonic() + 10
            while opened.end_row is None:
                assert time.monotonic() < deadline
            recorder._runs._record_end(opened)

        thread = threading.Thread(target=look)
        thread.start()
        begun.wait()
        recorder.run_ended(ending, None)
        thread.join()
    ends = [line for path in recorder.home.glob("*.open") for line in lines_of(path)]
    assert sum(kind == "E" for kind, _, _ in ends) == 200


def test_a_write_after_the_end_of_its_run_does_not_end_it_anew(observed, table):
    """A write after its run's end adds to the counts and does not change the status."""
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
    recorded = Ledger(recorder.root.uri).runs().select("status", "writes", "processes").to_pylist()
    assert recorded == [{"status": "error", "writes": 2, "processes": 1}]


def test_a_worker_that_takes_part_in_many_runs_keeps_few_of_them_open(tmp_path):
    """At most `MAX_OPEN_PARTS` runs of other processes stay open in a process."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=3600))
    runs = [RunContext(f"r-{number}", "job", is_joined=True) for number in range(1000)]
    for joined in (*runs, runs[0]):
        recorder.record_operation(joined, READ)
    assert len(recorder.run_ids) == open_runs.MAX_OPEN_PARTS
    recorder.close(None, timeout=60)
    recorded = Ledger(tmp_path).runs().select("run_id", "reads").to_pylist()
    assert {run["run_id"]: run["reads"] for run in recorded} == {
        joined.run_id: 2 if joined is runs[0] else 1 for joined in runs
    }


def test_threads_count_together(tmp_path):
    """Concurrent threads lose no counts of a run."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=3600))
    shared = RunContext("r-1", "job")
    recorder.run_started(shared)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(
                target=lambda: [
                    recorder._runs.add(shared, READ | {"rows_added": 1}) for _ in range(5000)
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
    assert recorder._runs._runs["r-1"].tally.columns()["rows_added"] == 20_000


@pytest.mark.internal_errors
def test_where_no_thread_can_be_had_nothing_is_lost(observed, table, monkeypatch):
    """If no drain thread can be started, the program continues and the next write tries again."""
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
    """The end of an unknown run adds no row."""
    recorder = observed()
    recorder.run_ended(RunContext("unheard-of", "x"), None)
    assert recorder.pending == 0


def test_one_run_id_opened_twice_inside_itself(observed, table):
    """A run that is re-entered ends with its outermost block, as one row."""
    recorder = observed()
    with run("nightly", run_id="r-1"), run("nightly", run_id="r-1"):
        write_deltalake(table, one(0))
    assert runs_of(recorder, "run_id, writes") == [{"run_id": "r-1", "writes": 1}]


def test_the_implicit_run_ends_with_the_process_or_the_library(observed, table):
    """Writes outside of any run belong to the implicit run, which ends with the instrumentation."""
    recorder = observed()
    write_deltalake(table, one(0))
    recorder.drain()
    assert runs_of(recorder, "job") == []
    DeltaLakeInstrumentor().uninstrument()
    assert runs_of(recorder, "run_id, status, writes, is_part") == [
        {"run_id": current_run().run_id, "status": "ok", "writes": 1, "is_part": False}
    ]


def test_a_process_that_takes_part_in_a_run(observed, table, monkeypatch):
    """In a process that joined a run, the run's row is a part."""
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
    """If the disk is full, runs open and close without an error, and the problem is reported."""
    (tmp_path / "cache_spool").write_text("a file is in the way")
    dropped = []
    recorder = Recorder(Settings(cache_root=str(tmp_path)), on_drop=dropped.append)
    context = RunContext("r-1", "nightly")
    recorder.run_started(context)
    recorder.record_operation(context, {"result": "hit", "cache_operation": "read"})
    recorder.record_snapshot("s", {})
    recorder.run_ended(context, None)
    recorder.close(None, timeout=1)
    assert dropped == ["spool", "spool"]
    assert set(internal_errors.seen()) >= {("spool", "OSError"), ("spool", "NotADirectoryError")}


# --- operations other than writes --------------------------------------------------------------------------


def test_reads_of_a_cache_are_rows(observed):
    """Reads and snapshots of a cache have rows; its writes are observed as writes."""
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
            ) as (_, set_result):
                set_result(result)
        with (
            pytest.raises(OSError, match="gone"),
            cache_span(
                "cache.read", cache_policy="p /home/ann/x", cache_scope="view", operation="read"
            ),
        ):
            raise OSError("gone")
    rows = rows_of(recorder.root, INVENTORY, order="event_time")
    recorded = (
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
    assert [{name: row[name] for name in recorded} for row in rows] == [
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
    """Location, key and message of a cache read are redacted like those of a write."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=3600))
    said = {
        "table_uri": "s3a://key:hidden@b/t/?sig=x",
        "key": "customer 4711",
        "error_message": "can't read /home/ann/x, errno 13, token=hunter2",
    }
    recorder.record_operation(RunContext("r-1", "job"), READ | said)
    assert [
        (row["table_uri"], row["key"], row["error_message"])
        for path in recorder.home.glob("*.open")
        for kind, _, row in lines_of(path)
        if kind == "R"
    ] == [("s3://b/t", key_hash("customer 4711"), "can't read /home/ann/x, errno 13, [secret]")]


def test_reads_outside_of_any_run_belong_to_the_process(observed):
    """A read outside of any run belongs to the implicit run of the process."""
    recorder = observed()
    with cache_span("cache.read", cache_policy="p", cache_scope="view", operation="read"):
        pass
    recorder.drain()
    assert rows_of(recorder.root, INVENTORY, "run_id, result") == [
        {"run_id": current_run().run_id, "result": "hit"}
    ]


def test_without_a_ledger_nobody_listens_to_reads(tmp_path):
    """After instrumentation has ended, reads are not recorded."""
    from deltawitness.telemetry import cache_spans

    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    assert cache_spans._listener is not None
    DeltaLakeInstrumentor().uninstrument()
    assert cache_spans._listener is None
    DeltaLakeInstrumentor().instrument()
    assert (cache_spans._listener, current_observer().recorder) == (None, None)


def test_snapshots_are_rows_of_the_registry(observed):
    """A snapshot with any name has a row with its values in the registry."""
    recorder = observed()
    recorder.record_snapshot(
        "daily ü \ud800", {"event_time": now_us(), "run_id": "r", "rows": 3, "result": "write"}
    )
    recorder.drain()
    assert rows_of(recorder.root, SNAPSHOTS, "snapshot, run_id, rows, result") == [
        {"snapshot": "daily ü ?", "run_id": "r", "rows": 3, "result": "write"}
    ]


def test_policy_scope_and_key_of_a_write(observed, table):
    """The policy, scope and key of a write context are in the row, the key as a hash."""
    recorder = observed()
    with cache_context(policy="views", scope="view", key="customer=17"):
        write_deltalake(table, one(0))
    flush()
    assert [line[0] for line in lines_of(recorder._spool._active.path)] == ["S", "S", "N", "R"]
    recorder.drain()
    [row] = rows_of(recorder.root, INVENTORY, "policy, scope, key")
    assert row == {"policy": "views", "scope": "view", "key": key_hash("customer=17")}


# --- close and fork ----------------------------------------------------------------------------------------------


def test_the_end_tells_everything_and_leaves_nothing(observed, table, tmp_path):
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


def test_a_process_that_told_nothing_leaves_nothing(observed, tmp_path):
    """A program without writes leaves no folder."""
    observed()
    DeltaLakeInstrumentor().uninstrument()
    assert not (tmp_path / "cache").exists()


def test_what_comes_after_the_end_is_left_to_the_next(observed, table):
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


def test_a_forked_child_tells_and_does_not_drain(observed, table):
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


def test_a_hanging_drain_holds_up_one_fork(tmp_path, monkeypatch):
    """A fork waits for a running drain; after a timeout later forks do not wait."""
    monkeypatch.setattr(drain_thread, "QUIET_TIMEOUT", 0.5)
    recorder = Recorder(Settings(cache_root=str(tmp_path)))
    waited = []
    with recorder.drains._unforkable:
        for _ in range(3):
            begun = time.monotonic()
            recorder.before_fork()
            recorder.after_fork_in_parent()
            waited.append(time.monotonic() - begun)
    assert [seconds >= 0.5 for seconds in waited] == [True, False, False]
    assert recorder.drain()
    assert not recorder.drains._is_hanging


def test_a_ledger_is_known_by_whatever_link_leads_there(observed, table, tmp_path):
    """A ledger opened through a symbolic link drains this process's spool before reading."""
    recorder = observed()
    write_deltalake(table, one(0))
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    assert recorder_of(Ledger(tmp_path / "link").root) is recorder
    assert Ledger(tmp_path / "link").inventory().count() == 1


def test_metrics_tell_what_waits_and_how_long_drains_take(observed, table):
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
def test_failing_drains_say_why_in_their_metric(observed, table, tmp_path):
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
