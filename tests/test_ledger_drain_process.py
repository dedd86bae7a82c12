"""A helper process drains for a program that has not used delta-rs itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, forks, internal_errors, run
from deltawitness.ledger.drain import process as module
from deltawitness.ledger.drain import recorder as recorder_module
from deltawitness.ledger.drain.process import (
    DrainProcess,
    DrainReply,
    DrainRequest,
    HelperError,
    drain_request,
)
from deltawitness.ledger.drain.recorder import Recorder
from deltawitness.ledger.spool.records import RecordKind
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.ledger.tables.write_rows import as_json
from deltawitness.processes import interpreter
from helpers.ledger_parts import (
    left_behind,
    operation_row,
    rows_of,
    sealed_rows,
    spool_in,
    write_ids,
)

CANARY = "hunter2-canary"


def request(cache, **more):
    return DrainRequest(
        **{
            "root": str(cache),
            "storage_options": None,
            "spools": str(cache / "cache_spool"),
            "home": None,
            "segments": (),
            "tail": 64,
            "maintain": True,
            **more,
        }
    )


def tell(recorder, *names):
    """Have a recorder keep whole rows."""
    for name in names:
        assert recorder._spool.append(RecordKind.ROW, name, as_json(operation_row(name)))


@pytest.fixture
def helpers(monkeypatch):
    """Every helper that is started in this process."""
    made = []

    class Counted(DrainProcess):
        def __init__(self, asked):
            super().__init__(asked)
            made.append(asked)

    monkeypatch.setattr(recorder_module, "DrainProcess", Counted)
    return made


@pytest.fixture
def unused(monkeypatch):
    """A process that has not used delta-rs."""
    monkeypatch.setattr(forks, "_has_used_delta_rs", False)


@pytest.mark.slow
def test_a_helper_drains_what_it_is_asked_to(tmp_path, helpers):
    """The segments of the process, and the spools of dead ones; each row is there once."""
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=lambda: False)
    left_behind(recorder.spools, 2)
    tell(recorder, "a", "b")
    assert recorder.drain()
    tell(recorder, "c")
    assert recorder.drain()
    assert recorder.drain()  # nothing waits
    assert len(helpers) == 2
    assert sorted(write_ids(recorder.root, INVENTORY)) == ["a", "b", "c", "w-0", "w-1"]
    assert recorder.pending == 0
    assert list(recorder.spools.iterdir()) == [recorder.home]
    recorder.close(None, timeout=10)
    assert len(helpers) == 2
    assert list(recorder.spools.iterdir()) == []


def test_the_same_in_this_process(tmp_path):
    """What the helper does with a request."""
    spool = spool_in(tmp_path / "cache_spool")
    left_behind(tmp_path / "cache_spool")
    (path,) = sealed_rows(spool, operation_row("a"))
    with path.open("ab") as segment:
        segment.write(b"damaged\n")
    asked = request(tmp_path, home=str(spool.home), segments=[path.name])
    assert drain_request(asked) == DrainReply(damaged=1, problems=[])
    assert sorted(write_ids(Ledger(tmp_path).root, INVENTORY)) == ["a", "w-0"]


@pytest.mark.internal_errors
def test_what_goes_wrong_in_the_helper_is_told(tmp_path):
    """A ledger that cannot be written keeps the segments; the process counts the error as its own."""
    (tmp_path / "cache_ledgers").write_text("a file is in the way")
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=lambda: False)
    left_behind(recorder.spools)
    tell(recorder, "a")
    assert not recorder.drain()
    assert recorder.pending == 1
    assert internal_errors.seen() == {("drain", "HelperError"): 1}
    (tmp_path / "cache_ledgers").unlink()
    assert recorder.drain()
    assert sorted(write_ids(recorder.root, INVENTORY)) == ["a", "w-0"]


@pytest.mark.internal_errors
def test_what_goes_wrong_beside_a_drain_is_told(tmp_path):
    """A spool of a dead process that cannot be drained is reported, and keeps nothing else from it."""
    spools = tmp_path / "cache_spool"
    left_behind(spools, 2)
    bad = min(spools.iterdir())
    (bad / "00000002.seg").mkdir()
    reply = drain_request(request(tmp_path))
    assert reply.error is None
    ((component, text),) = reply.problems
    assert component == "drain"
    assert "IsADirectoryError" in text
    assert bad.exists()
    assert len(write_ids(Ledger(tmp_path).root, INVENTORY)) == 1


def test_an_engine_that_panics_is_an_error_of_the_drain(tmp_path, monkeypatch):
    """Whatever ends a drain in the helper is answered."""

    class Panic(BaseException):
        """What Rust's panics are in Python."""

    def drained(*_):
        raise Panic("at the disco")

    monkeypatch.setattr(module, "_result_of", drained)
    assert drain_request(request(tmp_path)).error.endswith("Panic: at the disco")


def test_secrets_go_through_standard_input(tmp_path, monkeypatch):
    """Neither the command line nor the environment of a helper holds the storage options."""
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, command, **options):
            started.append((command, options))
            super().__init__(command, **options)

    monkeypatch.setattr(module.subprocess, "Popen", Recorded)
    asked = request(tmp_path, storage_options={"secret": CANARY})
    assert CANARY not in repr(asked)
    assert DrainProcess(asked).wait().error is None
    ((command, options),) = started
    assert CANARY not in repr((command, options["env"]))


def test_a_helper_is_no_child_of_the_program(tmp_path):
    """No wait of the program finds it, and a terminal's signals reach the program alone."""
    (tmp_path / "cache_spool").mkdir()
    helper = DrainProcess(request(tmp_path))
    reading = os.dup(helper._answer.fileno())
    pid = int(os.read(reading, 100).split(b"\n")[0])
    os.close(reading)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    assert os.getsid(pid) not in {os.getsid(0), pid}
    assert os.getpgid(pid) != os.getpgid(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(HelperError, match="ended before"):
        helper.wait()


def test_a_helper_that_takes_its_time_is_not_waited_for(tmp_path):
    """It goes on, and ends by itself."""
    helper = DrainProcess(request(tmp_path))
    with pytest.raises(HelperError, match="takes its time"):
        helper.wait(0.0)


def test_a_helper_is_not_instrumented(tmp_path, monkeypatch):
    """Whatever instruments Python processes by the environment leaves it alone."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"open({str(tmp_path / 'seen')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("DELTAWITNESS_ACTIVATE", "top")
    monkeypatch.setenv("DELTAWITNESS_RUN_ID", "r")
    left_behind(tmp_path / "cache_spool")
    assert DrainProcess(request(tmp_path)).wait() == DrainReply(problems=[])
    assert not (tmp_path / "seen").exists()
    assert Ledger(tmp_path).inventory().count() == 1


@pytest.mark.parametrize("executable", ["", "/usr/sbin/uwsgi"])
def test_a_program_that_embeds_python(monkeypatch, executable):
    """Its executable is no interpreter; the one that belongs to the installation is."""
    monkeypatch.setattr(sys, "executable", executable)
    found = interpreter()
    assert found is not None
    assert subprocess.run([found, "-c", ""]).returncode == 0
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert interpreter() is None


@pytest.mark.internal_errors
def test_without_an_interpreter_the_end_of_the_process_drains(tmp_path, monkeypatch):
    """Until then what was told waits in the spool."""
    monkeypatch.setattr(module, "interpreter", lambda: None)
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=lambda: False)
    tell(recorder, "a")
    assert not recorder.drain()
    assert internal_errors.seen() == {("drain", "HelperError"): 1}
    recorder.is_exiting = True
    recorder.close(None, timeout=30)
    assert write_ids(recorder.root, INVENTORY) == ["a"]
    assert list(recorder.spools.iterdir()) == []


def test_an_interpreter_that_cannot_be_started(tmp_path, monkeypatch):
    """Is an error like any other of a helper."""
    monkeypatch.setattr(module, "interpreter", lambda: str(tmp_path / "python"))
    with pytest.raises(HelperError, match="cannot be started"):
        DrainProcess(request(tmp_path))
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60")
    (tmp_path / "python").chmod(0o700)
    monkeypatch.setattr(module, "START_TIMEOUT", 0.1)
    with pytest.raises(HelperError, match="cannot be started"):
        DrainProcess(request(tmp_path))


def test_a_program_that_writes_nothing_starts_no_helper(tmp_path, unused, helpers):
    """Neither when it is instrumented nor at its end."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    DeltaLakeInstrumentor().uninstrument()
    assert helpers == []


@pytest.mark.slow
def test_short_runs_share_a_helper(tmp_path, unused, helpers):
    """The first of them waits for one; the others are drained at the end, and every run is a row."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    for _ in range(30):
        with run("short"):
            time.sleep(0.01)
    DeltaLakeInstrumentor().uninstrument()
    assert len(helpers) <= 3
    assert Ledger(tmp_path).runs().count() == 30


@pytest.mark.slow
def test_a_run_of_some_seconds_does_not_wait_where_the_last_drain_was_just_now(
    tmp_path, unused, helpers, monkeypatch
):
    """A helper is started for it, and goes on beside the program."""
    monkeypatch.setattr(recorder_module, "HELPER_SHARE", 1000.0)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    with run("first"):
        pass
    with run("second"):
        time.sleep(1.1)
    assert len(helpers) == 2
    root, deadline = Ledger(tmp_path).root, time.monotonic() + 30
    while len(rows_of(root, RUNS)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    DeltaLakeInstrumentor().uninstrument()
    assert len(helpers) == 2


@pytest.mark.slow
def test_drains_come_by_time_and_count_and_start_with_an_operation(tmp_path, helpers):
    """So that the program never has a child it does not know while it waits for one of its own."""
    recorder = Recorder(
        Settings(cache_root=str(tmp_path), drain_interval=0.1), may_use_engine=lambda: False
    )
    tell(recorder, "a")
    recorder._attend()
    time.sleep(1.5)
    assert helpers == []
    assert recorder.pending == 1
    recorder.begin()
    assert len(helpers) == 1
    deadline = time.monotonic() + 30
    while recorder.pending:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    recorder.begin()
    assert len(helpers) == 1
    recorder.close(None, timeout=10)


@pytest.mark.internal_errors
def test_no_more_threads_can_be_had(tmp_path, monkeypatch):
    """A drain is left to the next operation; at the end it is made without a thread, and in time."""
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=lambda: False)
    tell(recorder, "a")

    def start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(recorder_module.threading.Thread, "start", start)
    recorder._is_helper_due = True
    recorder.begin()
    assert internal_errors.seen() == {("drain", "RuntimeError"): 1}
    recorder.close(None, timeout=30)
    assert write_ids(recorder.root, INVENTORY) == ["a"]


def test_once_the_program_has_used_delta_rs_it_drains_itself(tmp_path, unused, helpers):
    """No helper is started any more."""
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=forks.has_used_delta_rs)
    tell(recorder, "a")
    assert recorder.drain()
    forks.mark_delta_rs_used()
    tell(recorder, "b")
    assert recorder.drain()
    assert len(helpers) == 1
    assert sorted(write_ids(recorder.root, INVENTORY)) == ["a", "b"]
    recorder.close(None, timeout=10)


def test_a_process_that_dies_of_a_signal_drains_itself(tmp_path, helpers):
    """It may be waiting for any child meanwhile."""
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=lambda: False)
    tell(recorder, "a")
    recorder.is_terminated = True
    recorder.close(None, timeout=30)
    assert helpers == []
    assert write_ids(recorder.root, INVENTORY) == ["a"]


SUBREAPER = """
import ctypes, os, sys
from pathlib import Path
from deltawitness.ledger.drain.process import DrainProcess, DrainRequest
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
request = DrainRequest(sys.argv[1], None, sys.argv[1], None, (), 64, True)
assert DrainProcess(request).wait().error is None
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("none left")
"""


def test_the_first_process_of_a_container_keeps_no_zombie(tmp_path):
    """There the helper becomes a child of the program after all, and is waited for."""
    command = [sys.executable, "-c", SUBREAPER, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("none left\n", "")


def test_a_program_may_ignore_the_end_of_its_children(tmp_path):
    """The answer of a helper does not depend on how its start ended."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert DrainProcess(request(tmp_path)).wait().error is None
    finally:
        signal.signal(signal.SIGCHLD, before)
