"""`deltawitness live` beside a real writer: in a pipe, as JSON, in a pseudo-terminal, with Ctrl-C and a closed pipe."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager

import pytest

from deltawitness.answers.live import follow
from deltawitness.answers.live.values import LiveWrite, RunningWrite
from deltawitness.report.live import live_line
from helpers.ledger_commands import invoke, json_of
from helpers.new_processes import start_process
from helpers.terminal_commands import environment
from programs.live_writer import write_often, write_until_told

LIVE = [sys.executable, "-m", "deltawitness", "live"]


@pytest.fixture
def start(tmp_path):
    """Start a program of `programs.live_writer` that writes in the folder of the test."""
    started = []

    def start(program):
        process, begun = start_process(program, str(tmp_path))
        started.append(process)
        begun.recv()

    yield start
    for process in started:
        process.kill()
        process.join(60)


@contextmanager
def following(folder, *options):
    """Start the command with its output in pipes; kill it at the end of the block."""
    with subprocess.Popen(
        [*LIVE, "--root", str(folder / "ledger"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_pipe_gets_a_line_for_each_new_write(tmp_path, start):
    """Each write is a line once, a failed one says whether it landed, and Ctrl-C exits with 0."""
    start(write_often)
    with following(tmp_path, "--json") as as_json, following(tmp_path) as lines:
        found = []
        while {row.get("result") for row in found} != {"write", "error"}:
            found.append(json.loads(as_json.stdout.readline()))
        assert {row["kind"] for row in found} == {"write"}
        assert len({row["write_id"] for row in found}) == len(found)
        while "landed" not in (line := lines.stdout.readline()):
            assert re.search(r"busy-job  t@\d+  WRITE append  write  \+1  [0-9.]+ s", line)
        assert re.search(r"busy-job  t  WRITE append  error: schema_mismatch  landed no", line)
        for process in (as_json, lines):
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert process.stderr.read() == ""


@pytest.mark.slow
def test_a_terminal_gets_a_table_that_refreshes(tmp_path, start):
    """The table has the process and its running write; `--for` ends it, and the cursor is visible again."""
    start(write_until_told)
    reading, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
    shown = subprocess.Popen(
        [*LIVE, "--root", str(tmp_path / "ledger"), "--for", "2s"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(),
    )
    os.close(terminal)
    output = b""
    try:
        while chunk := os.read(reading, 1 << 16):
            output += chunk
    except OSError:  # the end of the terminal
        pass
    os.close(reading)
    assert shown.wait(60) == 0
    text = output.decode()
    assert "running:" in text
    assert re.search(r"slow +WRITE append", text)
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")
    assert all(
        len(line) <= 110
        for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n").split("\n")
    )


@pytest.mark.slow
def test_a_closed_pipe_ends_it(tmp_path, start):
    """As `live | head -1`: no traceback, exit code 0."""
    start(write_often)
    with following(tmp_path) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(100) == 0
        assert process.stderr.read() == ""


def test_once(tmp_path):
    """It prints the state and ends, also for a root without a ledger; `--json` is one document."""
    done = invoke("live", "--once", "--root", tmp_path / "none")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("no process writes to this ledger on this machine\n")
    assert json_of("live", "--once", "--root", tmp_path / "none")["writes"] == []
    assert invoke("live", "--for", "soon").exit_code == 2


def test_a_problem_that_lasts_is_one_line(tmp_path, monkeypatch):
    """It is a line again when it comes back."""
    states = iter([True, True, False, True])

    def read(*_):
        if next(states, False):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(follow._LedgerTail, "read", read)
    monkeypatch.setattr("deltawitness.cli.live.INTERVAL", 0.02)
    done = invoke("live", "--for", "1s", "--root", tmp_path)
    assert next(states, None) is None
    assert (done.exit_code, done.stderr.count("the ledger cannot be read")) == (0, 2)


def test_names_are_cut_and_have_no_control_characters():
    """A name of 10 kB, or one that moves the cursor, is a short text; an interrupted write says so."""
    time = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    names = {
        "table": "\x1b[2J" + "z" * 10_000,
        "job": "a\nb",
        "operation": "WRITE",
        "mode": "append",
    }
    lost = live_line(RunningWrite(write_id="w", started_at=time, **names))
    assert lost.endswith("  WRITE append  interrupted: its process has ended")
    failed = LiveWrite(write_id="w", time=time, error_type="timeout", landed="unknown", **names)
    for line in (lost, live_line(failed)):
        assert line.isprintable()
        assert len(line) < 200
    assert "finished: timeout  landed unknown" in live_line(failed)
