"""A program ends as without deltawitness, and the row of its run has its exit code."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress

import pytest
from deltalake import DeltaTable

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, run
from deltawitness.ledger.spool.supervisor import ProcessEnd, Supervision, is_supervised
from deltawitness.ledger.tables.schema import RUNS
from deltawitness.process_exit import Terminated, exit_code_of, is_failure, restore_interrupt
from helpers.ledger_parts import rows_of
from helpers.sizes import cases
from helpers.terminal_commands import run_command

pytestmark = pytest.mark.slow

PROGRAM = """
import atexit, os, signal, sys
import pyarrow as pa
from deltalake import write_deltalake
write_deltalake("t", pa.table({"x": [1]}), mode="append")
"""

ENDINGS = {
    # The last statement of a program, its exit code as in subprocess, and the error type of its run.
    "pass": (0, None),
    "sys.exit(0)": (0, None),
    "sys.exit(7)": (7, "SystemExit"),
    "sys.exit('text')": (1, "SystemExit"),
    "sys.exit([1])": (1, "SystemExit"),
    "sys.exit(256)": (0, None),
    "raise LookupError": (1, "LookupError"),
    "os._exit(3)": (3, None),
    "os._exit(0)": (0, None),
    "raise KeyboardInterrupt": (-signal.SIGINT, "KeyboardInterrupt"),
    "os.kill(os.getpid(), signal.SIGINT)": (-signal.SIGINT, "KeyboardInterrupt"),
    "os.kill(os.getpid(), signal.SIGTERM)": (-signal.SIGTERM, "Terminated"),
    "os.kill(os.getpid(), signal.SIGKILL)": (-signal.SIGKILL, "SIGKILL"),
    "atexit.register(os._exit, 5)": (5, None),
    "atexit.register(os.kill, os.getpid(), signal.SIGINT)": (0, None),
    "os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(4)'])": (4, None),
}
SMALL = [
    "sys.exit('text')",
    "raise LookupError",
    "os._exit(3)",
    "os.kill(os.getpid(), signal.SIGINT)",
    "os.kill(os.getpid(), signal.SIGKILL)",
]


def observed(folder, program, *options):
    return run_command("run", "--quiet", *options, "--", *program, folder=folder)


@pytest.mark.parametrize("ending", cases(ENDINGS, SMALL))
def test_exit_code_and_output_are_those_of_the_bare_program(ending, tmp_path):
    """Exit code or signal and the output are those of the bare program, and the run's row has the status."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "observed").mkdir()
    # Without the write, which takes most of the time and does not influence the exit of the plain program.
    alone = [sys.executable, "-c", f"import atexit, os, signal, sys\n{ending}"]
    bare = subprocess.run(alone, cwd=tmp_path / "bare", capture_output=True, text=True, check=False)
    folder = tmp_path / "observed"
    done = observed(folder, [sys.executable, "-c", PROGRAM + ending])
    code, error_type = ENDINGS[ending]
    assert (bare.returncode, done.returncode) == (code, code), done.stderr
    said = [re.sub(r"line \d+", "line N", text) for text in (done.stderr, bare.stderr)]
    assert (done.stdout, said[0]) == (bare.stdout, said[1])
    ledger = Ledger(folder / ".deltawitness")
    rows = rows_of(ledger.root, RUNS, "is_part, status, error_type, exit_code, writes")
    assert [tuple(row.values()) for row in rows] == [
        (False, "error" if code else "ok", error_type, code, 1)
    ]
    assert ledger.runs().select("status", "exit_code", "processes").to_pylist() == [
        {"status": "error" if code else "ok", "exit_code": code, "processes": 1}
    ]
    assert list(ledger.spools.iterdir()) == []


def test_a_shell_loop_stops_at_an_interrupt_of_a_terminal(tmp_path):
    """In a pty, the shell sees through the command that the program died of SIGINT."""
    text = PROGRAM + "print('ready', flush=True); signal.pause()"
    command = f"for i in 1 2 3; do '{sys.executable}' -m deltawitness run --quiet -- "
    command += f"'{sys.executable}' -c \"$TEXT\"; done; echo went on"
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.environ["TEXT"] = text
        os.execvp("bash", ["bash", "-c", command])
    output = b""
    is_sent = False
    with suppress(OSError):  # the terminal is closed
        while chunk := os.read(terminal, 4096):
            output += chunk
            if b"ready" in output and not is_sent:
                is_sent = True
                os.write(terminal, b"\x03")
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert (os.WIFSIGNALED(status), status & 0x7F) == (True, signal.SIGINT)
    assert output.count(b"ready") == 1
    assert b"went on" not in output


def test_an_interrupt_while_the_engine_writes_ends_the_program_as_bare(tmp_path):
    """The interrupted write has a ledger row that says whether it landed."""
    text = """
    import os, signal, sys, threading
    import pyarrow as pa
    from deltalake import write_deltalake

    def batches():
        os.kill(os.getpid(), signal.SIGINT)
        yield pa.record_batch({"x": [1]})

    schema = pa.schema([("x", pa.int64())])
    write_deltalake("t", pa.RecordBatchReader.from_batches(schema, batches()))
    """
    program = [sys.executable, "-c", textwrap.dedent(text)]
    (tmp_path / "bare").mkdir()
    bare = subprocess.run(program, cwd=tmp_path / "bare", capture_output=True, check=False)
    done = observed(tmp_path, program)
    assert done.returncode == bare.returncode
    ledger = Ledger(tmp_path / ".deltawitness")
    (row,) = ledger.inventory().select("result", "landed", "version").to_pylist()
    has_landed = DeltaTable.is_deltatable(str(tmp_path / "t"))
    assert (row["result"], row["landed"]) in {
        ("write", None),
        ("error", "yes" if has_landed else "no"),
    }


def test_a_shell_that_fails_after_its_programs_is_a_failed_run(tmp_path):
    """Only the command sees the shell's exit code; no observed process does."""
    (tmp_path / "app.py").write_text(PROGRAM)
    done = observed(tmp_path, ["sh", "-c", f"{sys.executable} app.py; exit 3"])
    assert done.returncode == 3, done.stderr
    (row,) = (
        Ledger(tmp_path / ".deltawitness")
        .runs()
        .select("status", "exit_code", "writes")
        .to_pylist()
    )
    assert row == {"status": "error", "exit_code": 3, "writes": 1}


def test_an_open_run_of_a_program_that_dies_is_abandoned_with_the_exit_code(tmp_path):
    """The run's end was not recorded, but the command saw the exit code of the process."""
    text = PROGRAM + textwrap.dedent("""
    from deltawitness import run
    with run("inner"):
        write_deltalake("t", pa.table({"x": [2]}), mode="append")
        os._exit(3)
    """)
    assert observed(tmp_path, [sys.executable, "-c", text], "--job", "outer").returncode == 3
    rows = Ledger(tmp_path / ".deltawitness").runs().select("job", "status", "exit_code")
    assert sorted(tuple(row.values()) for row in rows.to_pylist()) == [
        ("inner", "abandoned", 3),
        ("outer", "error", 3),
    ]


@pytest.mark.parametrize(
    ("code", "status", "kept"),
    [(None, "ok", 0), (0, "ok", 0), (7, "error", 7), ("text", "error", 1), ([1], "error", 1)],
)
def test_a_run_that_sys_exit_leaves_has_the_exit_code(
    tmp_path, code, status, kept, delta_telemetry
):
    """Explicit runs have the exit code too, and so do their spans."""
    with suppress(SystemExit), run("leaving"):
        sys.exit(code)
    (span,) = delta_telemetry.spans()
    assert span.attributes["process.exit.code"] == kept
    assert span.status.is_ok is (status == "ok")
    assert span.attributes.get("error.type") == (None if status == "ok" else "SystemExit")
    DeltaLakeInstrumentor().uninstrument()
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    with suppress(SystemExit), run("leaving"):
        sys.exit(code)
    rows = Ledger(tmp_path).runs().select("status", "exit_code").to_pylist()
    assert rows == [{"status": status, "exit_code": kept}]


@pytest.mark.parametrize(
    ("error", "ends_process", "code"),
    [
        (None, True, None),
        (LookupError(), False, None),
        (LookupError(), True, 1),
        (KeyboardInterrupt(), True, -signal.SIGINT),
        (type("Custom", (KeyboardInterrupt,), {})(), True, 1),
        (SystemExit(-1), False, 255),
        (SystemExit(True), False, 1),  # noqa: FBT003 - as a program may
        (SystemExit(10**30), False, 255),
        (Terminated(), False, -signal.SIGTERM),
    ],
)
def test_each_exception_has_the_exit_code_of_cpython(error, ends_process, code):
    """The codes are those of CPython and the operating system."""
    assert exit_code_of(error, ends_process=ends_process) == code
    assert is_failure(error) is (error is not None)


def test_an_interrupt_that_was_shown_in_a_console_ends_nothing(tmp_path):
    """`code.interact()` sets `sys.last_value`, and the program goes on and succeeds."""
    text = (
        PROGRAM + "import code; code.InteractiveInterpreter().runsource('raise KeyboardInterrupt')"
    )
    assert observed(tmp_path, [sys.executable, "-c", text]).returncode == 0


def test_the_interrupt_is_restored_after_every_other_exit_handler():
    """The handler that restores it is registered first, because exit handlers run in reverse order."""
    text = """
    import atexit
    from deltawitness import DeltaLakeInstrumentor
    DeltaLakeInstrumentor().instrument()
    def reset():
        exec("pass")
    import deltawitness.observe.observer as observer
    observer.current_observer()._recording.close = lambda *_, **__: reset()
    raise KeyboardInterrupt
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGINT
    DeltaLakeInstrumentor().instrument()
    DeltaLakeInstrumentor().uninstrument()
    atexit.unregister(restore_interrupt)


def test_a_spool_whose_supervisor_lives_is_left_to_it(tmp_path):
    """A drain of another process would record the run without its exit code."""
    home = tmp_path / "v1-home"
    home.mkdir()
    assert not is_supervised(home)
    with Supervision(tmp_path / "lock") as supervision:
        (home / "supervisor").symlink_to(supervision.lock)
        assert is_supervised(home)
        end = ProcessEnd(supervision.lock, 1, "r", 3)
        assert end.write_to(tmp_path)
        assert not is_supervised(home)
        assert ProcessEnd.read_from(home) == end
        (home / "process_end.json").write_text("{torn")
        assert ProcessEnd.read_from(home) is None
        (home / "process_end.json").unlink()
        assert is_supervised(home)
        assert not ProcessEnd("other", 1, "r", 3).write_to(tmp_path)
    assert not is_supervised(home)
    (tmp_path / "lock").unlink()
    assert not is_supervised(home)


def test_a_program_whose_command_is_killed_loses_no_row(tmp_path):
    """The next drain imports the run's row, without an exit code."""
    text = PROGRAM + "print('ready', flush=True); sys.stdin.read(); sys.exit(7)"
    command = [sys.executable, "-m", "deltawitness", "run", "--quiet", "--"]
    with subprocess.Popen(
        [*command, sys.executable, "-c", text],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout.readline() == b"ready\n"
        (spool,) = (tmp_path / ".deltawitness/cache_spool").iterdir()
        running.kill()
        running.wait()
        running.stdin.close()
        # The program holds the lock of its spool until it ends.
        with open(spool / "owner.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
    ledger = Ledger(tmp_path / ".deltawitness")
    ledger.drain()
    assert ledger.inventory().count() == 1
    assert ledger.runs().select("exit_code").to_pylist() == [{"exit_code": None}]


def test_the_commands_show_the_exit_code(tmp_path):
    """The exit code is a column of `--json`, and in the text of `show`."""
    observed(tmp_path, [sys.executable, "-c", PROGRAM + "sys.exit(7)"])
    (row,) = json.loads(run_command("runs", "--json", folder=tmp_path).stdout)
    assert row["exit_code"] == 7
    assert "exit code 7" in run_command("show", row["run_id"], folder=tmp_path).stdout
