"""`deltawitness run` adds a summary to a program and changes nothing else about it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import read_commit_metadata
from deltawitness.semconv import WITNESS_VERSION, Env
from helpers.sizes import cases
from helpers.terminal_commands import run_command

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "deltawitness"]


@pytest.fixture(autouse=True)
def folder(tmp_path_factory, monkeypatch):
    """The working directory: the default ledger of a run is there, not in the repository."""
    path = tmp_path_factory.mktemp("folder")
    monkeypatch.chdir(path)
    return path


def cli(*arguments, **options):
    return run_command(*arguments, text=False, **options)


SIGNALS = [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGUSR1]


def program(text):
    return [sys.executable, "-c", textwrap.dedent(text)]


WRITES = """
    import sys, pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    write_deltalake(sys.argv[1], pa.table({"x": [1, 2]}))
    write_deltalake(sys.argv[1], pa.table({"x": [3]}), mode="append")
    DeltaTable(sys.argv[1]).delete("x = 1")
    try:
        write_deltalake(sys.argv[1], pa.table({"x": [3]}))
    except Exception:
        pass
"""


def test_every_write_is_stamped_and_summed_up(tmp_path):
    """The summary counts by table and operation, with errors; its run id is the one in the commits."""
    summary_file = tmp_path / "summary.json"
    done = cli(
        "run", "--job", "nightly", "--json", summary_file, "--", *program(WRITES), tmp_path / "t"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(summary_file.read_text())
    lines = [(line["table"], line["operation"], line["operations"]) for line in summary["lines"]]
    assert lines == [("t", "WRITE", 3), ("t", "DELETE", 1)]
    assert (summary["total"]["rows_added"], summary["total"]["rows_deleted"]) == (3, 1)
    assert (summary["total"]["errors"], summary["job"], summary["tables"]) == (1, "nightly", 1)
    assert {read_commit_metadata(tmp_path / "t", v).run_id for v in (0, 1, 2)} == {
        summary["run_id"]
    }
    printed = done.stderr.decode()
    assert summary["run_id"] in printed
    assert "not exported" in printed


SESSION = """
    import sys
    from datafusion import SessionContext
    from deltalake import DeltaTable
    ctx = SessionContext()
    ctx.register_table("t", DeltaTable(sys.argv[1]))
    ctx.sql("INSERT INTO t VALUES (3)").collect()
    ctx.sql("DELETE FROM t WHERE x IN (SELECT min(x) FROM t)").collect()
    print(ctx.table("t").count())
"""


def test_the_sessions_of_a_program_write_delta(tmp_path):
    """An unchanged DataFusion program can write Delta, unless `datafusion` is disabled."""
    write_deltalake(tmp_path / "t", pa.table({"x": [1, 2]}))
    command = ("run", "--", *program(SESSION), tmp_path / "t")
    done = cli(*command)
    assert (done.returncode, done.stdout) == (0, b"2\n"), done.stderr
    assert read_commit_metadata(tmp_path / "t").metadata["inputs"][0]["version"] == 1
    off = {**os.environ, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "datafusion"}
    refused = cli(*command, environment=off)
    assert refused.returncode == 1
    assert b"not implemented" in refused.stderr


def test_streams_of_the_program_are_unchanged():
    """All bytes of stdin, stdout and stderr are passed unchanged."""
    data = bytes(range(256)) * 100
    done = cli(
        "run",
        "--quiet",
        *program(
            "import sys; b = sys.stdin.buffer.read(); sys.stdout.buffer.write(b); "
            "sys.stderr.write('said')"
        ),
        input=data,
    )
    assert (done.stdout, done.stderr, done.returncode) == (data, b"said", 0)


@pytest.mark.parametrize("code", cases([0, 1, 2, 77, 255], [77]))
def test_the_exit_code_is_that_of_the_program(code):
    """Every exit code of the program is the exit code of the command."""
    assert cli("run", "--quiet", *program(f"raise SystemExit({code})")).returncode == code


@pytest.mark.parametrize("number", cases(SIGNALS, [signal.SIGINT, signal.SIGUSR1]))
def test_a_program_ended_by_a_signal_ends_the_command_by_it(number):
    """A shell gets the same status, and the summary names the signal."""
    done = cli(
        "run",
        *program(
            f"import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), {int(number)})"
        ),
    )
    assert done.returncode == -number
    assert signal.Signals(number).name in done.stderr.decode()


def test_signals_are_forwarded_to_the_program():
    """The program's signal handler runs, and its exit code is that of the command."""
    process = subprocess.Popen(
        [
            *COMMAND,
            "run",
            "--quiet",
            *program(
                """
                import signal, sys
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
                print("ready", flush=True)
                signal.pause()
                """
            ),
        ],
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 3
    process.stdout.close()


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda path: path / "nothing", 127, "command not found"),
        (lambda path: path, 126, "cannot be executed"),
    ],
)
def test_a_program_that_cannot_be_started_is_an_error_as_in_a_shell(make, code, message, tmp_path):
    """It is one line on stderr, with the exit code that a shell has."""
    done = cli("run", "--quiet", make(tmp_path))
    assert done.returncode == code
    assert message in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_child_processes_are_summed_up_with_their_parent(tmp_path):
    """Subprocesses and spawned children inherit the activation and the run."""
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing, subprocess, sys
            import pyarrow as pa
            from deltalake import write_deltalake
            def write(place):
                write_deltalake(place, pa.table({"x": [1]}))
            if __name__ == "__main__":
                write(sys.argv[1] + "/a")
                child = multiprocessing.get_context("spawn").Process(target=write, args=(sys.argv[1] + "/b",))
                child.start(); child.join()
                subprocess.run([sys.executable, "-c", "import sys, pyarrow as pa; from deltalake import write_deltalake; write_deltalake(sys.argv[1], pa.table({'x': [1]}))", sys.argv[1] + "/c"], check=True)
            """
        )
    )
    summary_file = tmp_path / "summary.json"
    done = cli(
        "run", "--show-trace", "--json", summary_file, "--", sys.executable, script, tmp_path
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(summary_file.read_text())
    assert sorted(line["table"] for line in summary["lines"]) == ["a", "b", "c"]
    assert summary["total"]["operations"] == 3
    assert len(summary["traces"]) == 1
    runs = {read_commit_metadata(tmp_path / name).run_id for name in ("a", "b", "c")}
    assert runs == {summary["run_id"]}


def test_an_invalid_setting_ends_before_the_program_starts(tmp_path):
    """The error is one line that names the variable and the allowed values; nothing is written."""
    done = cli(
        "run",
        "--quiet",
        *program(WRITES),
        tmp_path / "t",
        environment={**os.environ, Env.DIAGNOSTICS_SINK: "file"},
    )
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "deltawitness: DELTAWITNESS_DIAGNOSTICS_SINK: expected one of otel, memory, both, none\n"
    )
    assert not (tmp_path / "t").exists()


def test_a_program_of_an_interpreter_without_the_package_runs():
    """A Python without this package runs unobserved, and does not fail."""
    done = cli("run", "--quiet", sys.executable, "-S", "-c", "print('hello')")
    assert done.stdout == b"hello\n"


def test_another_sitecustomize_still_runs(tmp_path):
    """This package's sitecustomize runs the next one on the path."""
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['SEEN'] = 'yes'")
    done = cli(
        "run",
        "--quiet",
        *program("import os; print(os.environ['SEEN'])"),
        environment={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout == b"yes\n"


def test_a_disabled_instrumentation_stays_off(tmp_path):
    """`OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` is honoured."""
    done = cli(
        "run",
        "--quiet",
        *program(WRITES),
        tmp_path / "t",
        environment={**os.environ, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "requests,deltalake"},
    )
    assert done.returncode == 0
    assert read_commit_metadata(tmp_path / "t").metadata == {}


def test_a_commit_is_shown_with_its_metadata(tmp_path):
    """The output is a table, or JSON with --json."""
    write_deltalake(tmp_path, pa.table({"x": [1]}))
    DeltaTable(tmp_path).delete("x = 1")
    shown = cli("commit", tmp_path, "0").stdout.decode()
    assert "version 0" in shown
    assert "num_added_rows" in shown
    commit = json.loads(cli("commit", tmp_path, "--json").stdout)
    assert (commit["version"], commit["operation"]) == (1, "DELETE")


def test_a_missing_commit_is_an_error_in_one_line(tmp_path):
    """The line names the table, and the exit code is 1."""
    missing = tmp_path / "nothing"
    done = cli("commit", missing)
    assert done.returncode == 1
    assert done.stderr.decode() == f"deltawitness: {missing}: there is no Delta log\n"


def test_the_version_is_printed():
    """Its first word is the version that commits have."""
    assert cli("--version").stdout.decode().split()[0] == WITNESS_VERSION


def test_a_job_name_in_brackets_is_no_markup():
    """The name is printed unchanged, and the exit code is that of the program."""
    done = cli("run", "--job", "[/x]", "--", *program("raise SystemExit(3)"))
    assert done.returncode == 3
    assert b"[/x]" in done.stderr


def test_a_summary_that_cannot_be_written_is_an_error_before_the_program_runs(tmp_path):
    """The command fails before it starts the program."""
    done = cli("run", "--json", tmp_path / "none/x.json", "--", *program("print('ran')"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--json" in done.stderr


def test_a_closed_stream_does_not_change_the_exit_code():
    """With `2>&-` in a shell, the exit code is still that of the program."""
    command = [sys.executable, "-m", "deltawitness", "run", "--", *program("raise SystemExit(3)")]
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *command], check=False)
    assert done.returncode == 3


def test_tables_of_one_name_are_two_lines(tmp_path):
    """Tables in different folders are counted separately, because their ids differ."""
    done = cli(
        "run",
        "--json",
        tmp_path / "s.json",
        "--",
        *program("""
            import sys, pyarrow as pa
            from deltalake import write_deltalake
            for folder in "ab":
                write_deltalake(f"{sys.argv[1]}/{folder}/t", pa.table({"x": [1]}))
        """),
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "s.json").read_text())
    assert [line["table"] for line in summary["lines"]] == ["t", "t"]


def test_one_interrupt_of_a_terminal_reaches_the_program_once(tmp_path):
    """The program gets one interrupt, also when its standard input is not the terminal."""
    text = """
        import signal, sys, time
        seen = []
        signal.signal(signal.SIGINT, lambda *_: seen.append(1))
        print("ready", flush=True)
        deadline = time.monotonic() + 20
        while not seen and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # time for a second signal, if one is sent
        print("seen", len(seen), flush=True)
    """
    command = [sys.executable, "-m", "deltawitness", "run", "--quiet", "--", *program(text)]
    child, terminal = pty.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execv(command[0], command)
    with os.fdopen(terminal, "rb+", buffering=0) as stream:
        output = b""
        while b"ready" not in output:
            output += stream.read(1024)
        stream.write(b"\x03")
        with suppress(OSError):  # how Linux reports the end of a pseudo-terminal
            while chunk := stream.read(1024):
                output += chunk
    os.waitpid(child, 0)
    assert b"seen 1" in output
