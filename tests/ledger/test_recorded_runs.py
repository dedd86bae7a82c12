"""Each run that the recorder of a process observes has one row in the ledger."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time

import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, current_run, internal_errors, run
from deltawitness.ledger.drain import open_runs
from deltawitness.ledger.drain.recorder import Recorder
from deltawitness.ledger.tables.schema import INVENTORY, ORIGIN_COLUMNS, RUNS
from deltawitness.run_context import RunContext
from deltawitness.run_variables import run_from_environment
from helpers.ledger_parts import lines_of, one, rows_of
from helpers.recorder_parts import READ, drained, runs_of


@pytest.mark.slow
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
        **{name: None for name, *_ in ORIGIN_COLUMNS},
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_that_was_open_before_anybody_looked(observed, table):
    """A run that was open before instrumentation gets its row when it ends."""
    with run("early"):
        recorder = observed()
        write_deltalake(table, one(0))
    assert runs_of(recorder, "job, writes, is_part") == [
        {"job": "early", "writes": 1, "is_part": False}
    ]
    assert recorder.run_ids == ()


def test_a_run_that_ends_while_a_drain_begins_is_recorded_once(tmp_path):
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


@pytest.mark.slow
def test_a_write_after_the_end_of_its_run_does_not_change_the_status(observed, table):
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


@pytest.mark.slow
def test_a_worker_of_many_runs_keeps_few_of_them_open(tmp_path):
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


def test_a_worker_forgets_the_runs_that_submitted_its_tasks(tmp_path):
    """Their ids do not accumulate, and a run that was opened before the recorder has a row nevertheless."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=3600))
    early = RunContext("early", "job")
    for number in range(2 * open_runs.MAX_PARENTS):
        for parent in ("early", f"submitter-{number}"):
            child = RunContext(f"of-{parent}-{number}", "task", parent_run_id=parent)
            recorder.run_started(child)
            recorder.run_ended(child, None)
    assert len(recorder._runs._parents) == open_runs.MAX_PARENTS
    recorder.run_ended(early, None)
    recorder.close(None, timeout=60)
    ids = {row["run_id"] for row in Ledger(tmp_path).runs().select("run_id").to_pylist()}
    assert "early" in ids
    assert not any(name.startswith("submitter") for name in ids)


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.internal_errors
def test_nothing_is_lost_if_no_thread_can_be_started(observed, table, monkeypatch):
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


def test_the_end_of_an_unknown_run_adds_no_row(observed):
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


def test_a_process_that_joins_a_run_has_a_partial_run(observed, table, monkeypatch):
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
def test_a_run_whose_start_cannot_be_recorded_raises_nothing(tmp_path):
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
    assert set(internal_errors.error_counts()) >= {
        ("spool", "OSError"),
        ("spool", "NotADirectoryError"),
    }
