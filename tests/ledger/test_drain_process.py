"""A helper process drains for a program that has not used delta-rs itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, forks, internal_errors, run
from deltawitness.ledger.drain import drain_thread
from deltawitness.ledger.drain import process as module
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


def append_rows(recorder, *names):
    """Append final rows to a recorder's spool."""
    for name in names:
        assert recorder._spool.append(RecordKind.ROW, name, as_json(operation_row(name)))


@pytest.fixture
def helpers(monkeypatch):
    """Return the list of the helpers started in this process."""
    made = []

    class Counted(DrainProcess):
        def __init__(self, asked):
            super().__init__(asked)
            made.append(asked)

    monkeypatch.setattr(drain_thread, "DrainProcess", Counted)
    return made


@pytest.fixture
def unused(monkeypatch):
    """Pretend that this process has not used delta-rs."""
    monkeypatch.setattr(forks, "_has_used_delta_rs", False)


@pytest.mark.slow
def test_a_helper_drains_segments_and_abandoned_spools(tmp_path, helpers):
    """A helper drains the process's segments and abandoned spools, with one row per operation."""
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=lambda: False)
    left_behind(recorder.spools, 2)
    append_rows(recorder, "a", "b")
    assert recorder.drain()
    append_rows(recorder, "c")
    assert recorder.drain()
    assert recorder.drain()  # nothing to drain
    assert len(helpers) == 2
    assert sorted(write_ids(recorder.root, INVENTORY)) == ["a", "b", "c", "w-0", "w-1"]
    assert recorder.pending == 0
    assert list(recorder.spools.iterdir()) == [recorder.home]
    recorder.close(None, timeout=10)
    assert len(helpers) == 2
    assert list(recorder.spools.iterdir()) == []


def test_the_same_in_this_process(tmp_path):
    """`drain_request` drains the requested segments and abandoned spools."""
    spool = spool_in(tmp_path / "cache_spool")
    left_behind(tmp_path / "cache_spool")
    (path,) = sealed_rows(spool, operation_row("a"))
    with path.open("ab") as segment:
        segment.write(b"damaged\n")
    asked = request(tmp_path, home=str(spool.home), segments=[path.name])
    assert drain_request(asked) == DrainReply(damaged=1, problems=[])
    assert sorted(write_ids(Ledger(tmp_path).root, INVENTORY)) == ["a", "w-0"]


@pytest.mark.slow
@pytest.mark.internal_errors
def test_an_error_of_the_helper_is_reported(tmp_path):
    """If the ledger cannot be written, the segments remain and the process reports the error."""
    (tmp_path / "cache_ledgers").write_text("a file is in the way")
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=lambda: False)
    left_behind(recorder.spools)
    append_rows(recorder, "a")
    assert not recorder.drain()
    assert recorder.pending == 1
    assert internal_errors.error_counts() == {("drain", "HelperError"): 1}
    (tmp_path / "cache_ledgers").unlink()
    assert recorder.drain()
    assert sorted(write_ids(recorder.root, INVENTORY)) == ["a", "w-0"]


@pytest.mark.internal_errors
def test_an_undrainable_spool_is_reported_and_the_others_are_drained(tmp_path):
    """An abandoned spool that cannot be drained is reported, and everything else is drained."""
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
    """A panic of the engine in the helper is returned as the drain's error."""

    class Panic(BaseException):
        """Like the exception of a Rust panic, which is no `Exception`."""

    def drained(*_):
        raise Panic("at the disco")

    monkeypatch.setattr(module, "_result_of", drained)
    assert drain_request(request(tmp_path)).error.endswith("Panic: at the disco")


@pytest.mark.slow
def test_secrets_go_through_standard_input(tmp_path, monkeypatch):
    """Neither the command line nor the environment of a helper contains the storage options."""
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
    """The program's `wait` calls do not find the helper, and terminal signals do not reach it."""
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


def test_a_slow_helper_is_not_waited_for(tmp_path):
    """After the timeout the helper continues and ends by itself."""
    helper = DrainProcess(request(tmp_path))
    with pytest.raises(HelperError, match="within the timeout"):
        helper.wait(0.0)


@pytest.mark.slow
def test_a_helper_is_not_instrumented(tmp_path, monkeypatch):
    """A sitecustomize and environment variables do not instrument the helper."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"open({str(tmp_path / 'seen')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.setenv("DELTAWITNESS_ACTIVATE", "top")
    monkeypatch.setenv("DELTAWITNESS_RUN_ID", "r")
    left_behind(tmp_path / "cache_spool")
    assert DrainProcess(request(tmp_path)).wait() == DrainReply(problems=[])
    assert not (tmp_path / "seen").exists()
    assert Ledger(tmp_path).inventory().count() == 1


@pytest.mark.parametrize("executable", ["", "/usr/sbin/uwsgi"])
def test_a_program_that_embeds_python(monkeypatch, executable):
    """For an executable that embeds Python, the installation's interpreter is used."""
    monkeypatch.setattr(sys, "executable", executable)
    found = interpreter()
    assert found is not None
    assert subprocess.run([found, "-c", ""]).returncode == 0
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert interpreter() is None


@pytest.mark.internal_errors
def test_without_an_interpreter_the_end_of_the_process_drains(tmp_path, monkeypatch):
    """Without an interpreter records wait in the spool until the process drains at its exit."""
    monkeypatch.setattr(module, "interpreter", lambda: None)
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=lambda: False)
    append_rows(recorder, "a")
    assert not recorder.drain()
    assert internal_errors.error_counts() == {("drain", "HelperError"): 1}
    recorder.drains.is_exiting = True
    recorder.close(None, timeout=30)
    assert write_ids(recorder.root, INVENTORY) == ["a"]
    assert list(recorder.spools.iterdir()) == []


@pytest.mark.slow
def test_an_interpreter_that_cannot_be_started(tmp_path, monkeypatch):
    """An interpreter that cannot be started is a `HelperError`."""
    monkeypatch.setattr(module, "interpreter", lambda: str(tmp_path / "python"))
    with pytest.raises(HelperError, match="cannot be started"):
        DrainProcess(request(tmp_path))
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60")
    (tmp_path / "python").chmod(0o700)
    monkeypatch.setattr(module, "START_TIMEOUT", 0.1)
    with pytest.raises(HelperError, match="cannot be started"):
        DrainProcess(request(tmp_path))


def test_a_program_that_writes_nothing_starts_no_helper(tmp_path, unused, helpers):
    """A program without writes starts no helper, neither during instrumentation nor at its end."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    DeltaLakeInstrumentor().uninstrument()
    assert helpers == []


@pytest.mark.slow
def test_short_runs_share_a_helper(tmp_path, unused, helpers):
    """Of several short runs only the first waits for a helper, and every run gets a row."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    for _ in range(30):
        with run("short"):
            time.sleep(0.01)
    DeltaLakeInstrumentor().uninstrument()
    assert len(helpers) <= 3
    assert Ledger(tmp_path).runs().count() == 30


@pytest.mark.slow
def test_a_short_run_does_not_wait_after_a_recent_drain(tmp_path, unused, helpers, monkeypatch):
    """Shortly after a drain, the end of a long run starts a helper without waiting for it."""
    monkeypatch.setattr(drain_thread, "HELPER_SHARE", 1000.0)
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
def test_drains_start_by_time_and_count_and_only_after_an_operation(tmp_path, helpers):
    """Only operations start helpers, so that a program waiting for children has no unknown one."""
    recorder = Recorder(
        Settings(cache_root=str(tmp_path), drain_interval=0.1), may_use_engine=lambda: False
    )
    append_rows(recorder, "a")
    recorder.drains.after_operation()
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


@pytest.mark.slow
@pytest.mark.internal_errors
def test_without_threads_a_drain_is_left_to_the_next_operation(tmp_path, monkeypatch):
    """Without threads a drain is left to the next operation; the last one runs in the caller's thread."""
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=lambda: False)
    append_rows(recorder, "a")

    def start(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(drain_thread.threading.Thread, "start", start)
    recorder.drains._is_helper_due = True
    recorder.begin()
    assert internal_errors.error_counts() == {("drain", "RuntimeError"): 1}
    recorder.close(None, timeout=30)
    assert write_ids(recorder.root, INVENTORY) == ["a"]


@pytest.mark.slow
def test_once_the_program_has_used_delta_rs_it_drains_itself(tmp_path, unused, helpers):
    """After the program has used delta-rs, no helper is started."""
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=forks.may_use_delta_rs)
    append_rows(recorder, "a")
    assert recorder.drain()
    forks.mark_delta_rs_used()
    append_rows(recorder, "b")
    assert recorder.drain()
    assert len(helpers) == 1
    assert sorted(write_ids(recorder.root, INVENTORY)) == ["a", "b"]
    recorder.close(None, timeout=10)


def test_a_process_that_dies_of_a_signal_drains_itself(tmp_path, helpers):
    """A process that a signal terminates starts no helper: it may be waiting for any child."""
    recorder = Recorder(Settings(cache_root=str(tmp_path)), may_use_engine=lambda: False)
    append_rows(recorder, "a")
    recorder.drains.is_terminated = True
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


@pytest.mark.slow
def test_the_first_process_of_a_container_reaps_helpers(tmp_path):
    """As PID 1 the program becomes the helper's parent, and the helper is reaped."""
    command = [sys.executable, "-c", SUBREAPER, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("none left\n", "")


@pytest.mark.slow
def test_a_program_may_ignore_the_end_of_its_children(tmp_path):
    """A program that ignores SIGCHLD still gets the helper's reply."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert DrainProcess(request(tmp_path)).wait().error is None
    finally:
        signal.signal(signal.SIGCHLD, before)
