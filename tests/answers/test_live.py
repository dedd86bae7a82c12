"""What `live` sees of real processes: running writes, finished ones, and those of a killed process."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import timedelta

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, live, run
from deltawitness.answers.live import follow
from deltawitness.answers.live.follow import LiveFollower
from deltawitness.answers.live.values import LiveWrite, ProcessState, RunningWrite
from deltawitness.ledger.ledger import Ledger
from deltawitness.ledger.spool.running import (
    RUNNING,
    SLOTS,
    RunningWrites,
    read_running,
    running_text,
)
from deltawitness.ledger.tables.schema import INVENTORY, LedgerRoot
from deltawitness.testing import fixed_clock
from helpers.new_processes import start_process
from helpers.report_ledgers import START, operation, write_ledger
from programs.live_writer import write_until_told

HOUR = timedelta(hours=1)
TEXT = running_text("t", "id", "WRITE", "append", "run-1", "job")


def polled(follower, count, is_wanted=bool):
    """Poll until a number of writes of a kind is there."""
    found = []
    for _ in range(2400):
        found += follower.poll()
        if sum(is_wanted(write) for write in found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def is_lost(write):
    """Return whether a write was interrupted by the end of its process."""
    return isinstance(write, RunningWrite)


@pytest.fixture
def writer(tmp_path):
    """A process that is inside of a write; returns its id and the process."""
    process, begun = start_process(write_until_told, str(tmp_path))
    pid = begun.recv()
    yield pid, process
    process.kill()
    process.join(60)


@pytest.mark.slow
def test_a_running_write_is_seen_and_then_its_end(tmp_path, writer):
    """First the write is running, then each write is reported once, from the spool or from the ledger."""
    pid, process = writer
    follower = LiveFollower(Settings(cache_root=str(tmp_path / "ledger")))
    report = follower.start()
    (alive,) = report.processes
    assert (alive.pid, alive.state, alive.job) == (pid, ProcessState.ALIVE, "slow-job")
    (running,) = report.running
    assert (running.table, running.operation, running.mode) == ("slow", "WRITE", "append")
    assert (running.job, running.is_lost, running.rows) == ("slow-job", False, None)
    (tmp_path / "go").touch()
    # The quick write may have been seen by `start`.
    found = [
        write for write in polled(follower, 2) if write.table == "slow" or write.result != "write"
    ]
    assert [(w.table, w.result, w.version, w.landed) for w in found] == [
        ("slow", "write", 0, None),
        ("quick", "error", None, "no"),
    ]
    assert found[0].rows_added == 6
    process.join(60)
    assert process.exitcode == 0
    Ledger(tmp_path / "ledger").drain()
    assert follower.poll() == []  # each write is reported once
    report = live(root=tmp_path / "ledger")
    assert (report.processes, report.running) == ((), ())
    assert [write.table for write in report.writes] == ["quick", "slow", "quick"]
    assert live(root=tmp_path / "ledger", limit=1).writes == report.writes[:1]


@pytest.mark.slow
@pytest.mark.parametrize("is_drained", [False, True])
def test_a_write_of_a_killed_process_is_lost(tmp_path, writer, is_drained):
    """SIGKILL inside of the engine: the write is reported as lost once, also if the spool was drained."""
    pid, process = writer
    follower = LiveFollower(Settings(cache_root=str(tmp_path / "ledger")))
    follower.start()
    os.kill(pid, signal.SIGKILL)
    process.join(60)
    if is_drained:
        Ledger(tmp_path / "ledger").drain()
    found = polled(follower, 1, is_lost)
    (lost,) = filter(is_lost, found)
    assert (lost.table, lost.is_lost, lost.pid) == ("slow", True, pid)
    assert follower.poll() == []
    states = [process.state for process in follower.report().processes]
    assert states == ([] if is_drained else [ProcessState.ENDED])


def test_writes_of_this_process(tmp_path):
    """The report of a program about its own writes; no file of running writes is left."""
    settings = Settings(cache_root=str(tmp_path / "ledger"))
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(settings=settings)
    try:
        with run("nightly"):
            write_deltalake(tmp_path / "t", pa.table({"x": [1]}))
            (process,) = live(settings=settings).processes
            assert process.pid == os.getpid()
        (write,) = live(settings=settings).writes
        assert isinstance(write, LiveWrite)
        assert (write.job, write.table, write.rows_added) == ("nightly", "t", 1)
    finally:
        instrumentor.uninstrument()
    assert list((tmp_path / "ledger").rglob(RUNNING)) == []


def test_a_follower_forgets_what_it_cannot_see_again(tmp_path, monkeypatch):
    """It may run for months: old operations take no memory, and are neither read nor reported again."""
    monkeypatch.setattr(follow, "MAX_WRITES", 5)
    root = write_ledger(
        tmp_path / "ledger", [operation(n, write_id=f"old-{n}") for n in range(20)], []
    )
    inventory = LedgerRoot(root).open_table(INVENTORY)
    follower = LiveFollower(Settings(cache_root=root))

    def at(time, *rows):
        schema = pa.schema(inventory.schema())
        if rows:
            write_deltalake(
                inventory, pa.Table.from_pylist(list(rows), schema=schema), mode="append"
            )
        with fixed_clock(int(time.timestamp() * 1e9)):
            return [write.write_id for write in follower.poll()]

    with fixed_clock(int((START + HOUR).timestamp() * 1e9)):
        follower.start()
    assert at(START + HOUR, operation(60, write_id="new")) == ["new"]
    days = 3 * 24 * 60
    later = [operation(days + n, write_id=f"later-{n}") for n in range(40)]
    assert sorted(at(START + 73 * HOUR, *later)) == sorted(row["write_id"] for row in later)
    assert at(START + 73 * HOUR, operation(days + 59, write_id="last")) == ["last"]
    assert set(follower._seen) == {*(row["write_id"] for row in later), "last"}


def test_an_empty_root_has_an_empty_report(tmp_path):
    """There need not be a ledger yet; a negative limit is an error."""
    report = live(root=tmp_path / "none")
    assert (report.processes, report.writes, report.problems) == ((), (), ())
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="limit"):
        live(root=tmp_path, limit=-1)


# --- the file ----------------------------------------------------------------------------------------------


def test_slots_are_used_again_and_names_are_cut(tmp_path):
    """More writes than slots are left out; a long name is cut; an ended write is gone."""
    running = RunningWrites()
    slots = [running.start(tmp_path, TEXT, f"w-{n}", 1_000_000) for n in range(SLOTS + 1)]
    assert slots[-1] is None
    published = read_running(tmp_path)
    assert len(published.writes) == SLOTS
    assert published.header["pid"] == os.getpid()
    for slot in slots[:-1]:
        slot.end()
    assert read_running(tmp_path).writes == ()
    hostile = running_text(
        "\x00é" * 10_000, None, "WRITE", None, "r" * 10_000, "\U0001f600" * 10_000
    )
    slot = running.start(tmp_path, hostile, "w", 2_000)
    if slot is not None:
        (row,) = read_running(tmp_path).writes
        assert row["started_at"] == 2
        slot.end()


def test_rows_are_published_now_and_then(tmp_path):
    """The number of rows is in the file after the interval, not after each batch."""
    slot = RunningWrites().start(tmp_path, TEXT, "w", 1_000)
    assert [row["rows"] for row in read_running(tmp_path).writes] == [None]
    slot.add_rows(5)
    slot._published = 0
    slot.add_rows(7)
    assert [row["rows"] for row in read_running(tmp_path).writes] == [12]


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b"{}\n" + b"+" * 3000, b"\xff" * 5000])
def test_a_damaged_file_says_nothing(tmp_path, content):
    """A file that is damaged, or being written, has no process or no writes."""
    (tmp_path / RUNNING).write_bytes(content)
    found = read_running(tmp_path)
    assert found is None or found.writes == ()


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path):
    """There is no slot, and no error."""
    assert RunningWrites().start(tmp_path / "absent", TEXT, "w", 1) is None
    assert RunningWrites().start(None, TEXT, "w", 1) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_the_write_of_its_parent(tmp_path):
    """Ending the inherited slot in the child changes nothing in the parent's file."""
    running = RunningWrites()
    slot = running.start(tmp_path, TEXT, "w", 1_000)
    child = os.fork()
    if child == 0:
        running.after_fork_in_child()
        slot.end()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(read_running(tmp_path).writes) == 1
    slot.end()


def test_a_slot_is_json(tmp_path):
    """Names with quotation marks and line breaks stay one slot."""
    text = running_text('a"\nb', "id", "WRITE", None, "run", "jo\\b")
    RunningWrites().start(tmp_path, text, "w", 1_000)
    (row,) = read_running(tmp_path).writes
    assert (row["table"], row["job"]) == ('a"\nb', "jo\\b")
    json.dumps(row)
