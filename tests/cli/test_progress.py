"""The progress line of `deltawitness run`: its text, a real terminal, pipes, the option and the variable."""

from __future__ import annotations

import os
import pty
import sys
import time

import pytest

from deltawitness.cli.progress import _line, progress_text
from deltawitness.ledger.spool.progress_line import ERASE, ProgressLine, erase_progress_line
from deltawitness.ledger.spool.running import RunningWrites, running_text
from deltawitness.semconv import Env
from helpers.ledger_commands import invoke

NOW = 100_000_000

PROGRAM = """
import sys, time
import pyarrow as pa
from deltalake import write_deltalake

batch = pa.record_batch({"x": [1]})

def batches():
    yield batch
    print("engine reads", flush=True)
    time.sleep(4)
    yield batch

write_deltalake("t", pa.RecordBatchReader.from_batches(batch.schema, batches()))
print("after", flush=True)
"""


def row(seconds, **values):
    """Return a running write that began a number of seconds ago."""
    begun = {"started_at": NOW - round(seconds * 1_000_000), "rows": None}
    return {"table": "orders", "operation": "WRITE", "mode": "append", **begun, **values}


def test_only_the_writes_of_the_own_program_are_shown(tmp_path, monkeypatch):
    """Several commands may run programs of one ledger at the same time."""
    for lock, table in (("/a/lock", "mine"), ("/b/lock", "other")):
        monkeypatch.setenv(Env.SUPERVISOR, f"1:{lock}")
        home = tmp_path / f"v1-{table}"
        home.mkdir()
        text = running_text(table, None, "WRITE", "append", "r", "job")
        assert RunningWrites().start(home, text, "w", time.time_ns() - 10**10) is not None
    line = _line(tmp_path, "/a/lock")
    assert "mine" in line
    assert "other" not in line


def test_the_text_has_the_long_writes():
    """A short write is left out; rows and their rate are there if they are known; two writes are one line."""
    assert progress_text([row(1.9)], NOW, 100) is None
    assert progress_text([row(3)], NOW, 100) == "deltawitness: orders  WRITE append  3.0 s"
    assert progress_text(
        [row(4, rows=1_000_000), row(75, operation="MERGE", mode=None)], NOW, 200
    ) == (
        "deltawitness: orders  WRITE append  1,000,000 rows  250,000 rows/s  4.0 s; orders  MERGE  1m 15s"
    )


def test_the_text_fits_the_terminal_and_has_no_control_characters():
    """Names of 10 kB are cut, and a name cannot move the cursor."""
    text = progress_text([row(3, table="z" * 10_000), row(3, table="\x1b[2J\r\n")], NOW, 70)
    assert (len(text), text.isprintable()) == (70, True)
    assert progress_text([row(3, table="\u5927" * 10_000)], NOW, 30).endswith("…")


def test_the_line_is_erased_once(tmp_path, monkeypatch):
    """Without a drawn line nothing is written; a program without a terminal leaves the line to the command."""
    written = []
    line = ProgressLine(str(tmp_path / "lock"), written.append)
    line.update(lambda: None)
    assert written == []
    line.update(lambda: "text")
    monkeypatch.setenv(Env.SUPERVISOR, f"1:{tmp_path / 'lock'}")
    erase_progress_line()  # the standard error output of a test is no terminal in the foreground
    line.update(lambda: None)
    line.update(lambda: None)
    assert written == [b"\rtext\x1b[K", ERASE]
    monkeypatch.setenv(Env.SUPERVISOR, f"1:{tmp_path / 'absent' / 'lock'}")
    erase_progress_line()


def in_new_terminal(arguments, folder):
    """Run a command in a terminal of its own session; return its output and its exit code."""
    child, reading = pty.fork()
    if child == 0:
        os.chdir(folder)
        variables = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "DELTAWITNESS_PROGRESS": ""}
        os.execve(sys.executable, [sys.executable, "-m", "deltawitness", *arguments], variables)
    output, end = b"", time.monotonic() + 100
    try:
        while time.monotonic() < end and (chunk := os.read(reading, 1 << 16)):
            output += chunk
    except OSError:  # the end of the terminal
        pass
    os.close(reading)
    return output.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_line_is_gone_before_the_next_output(tmp_path):
    """While the write runs the line is updated; the program's output after the write is on a clean line."""
    program = [sys.executable, "-c", PROGRAM]
    output, code = in_new_terminal(["run", "--quiet", "--", *program], tmp_path)
    assert code == 0, output
    assert "engine reads\r\n\rdeltawitness: t  WRITE" in output
    assert output.count("deltawitness: t  WRITE") >= 2
    assert "\r\x1b[Kafter\r\n" in output
    assert output.replace("\x1b[K", "").endswith("after\r\n")


@pytest.mark.slow
def test_a_pipe_gets_no_line(tmp_path, monkeypatch):
    """Also not with `--progress`; an invalid variable is one line and exit code 2."""
    monkeypatch.chdir(tmp_path)
    done = invoke("run", "--quiet", "--progress", "--", sys.executable, "-c", "pass")
    assert (done.exit_code, done.stderr) == (0, "")
    monkeypatch.setenv(Env.PROGRESS, "sometimes")
    done = invoke("run", "--", sys.executable, "-c", "pass")
    assert (done.exit_code, done.stderr) == (
        2,
        "deltawitness: DELTAWITNESS_PROGRESS: expected one of true, false\n",
    )
