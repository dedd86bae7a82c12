"""A process that replaces its program by `os.exec*` delivers its writes first, and continues its run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, run
from deltawitness.semconv import Env
from deltawitness.testing import InMemoryTelemetry
from helpers.sizes import cases
from helpers.terminal_commands import run_command

BEGIN = """
import os, sys
import pyarrow as pa
from deltalake import write_deltalake
from deltawitness import DeltaLakeInstrumentor, run

if "DELTAWITNESS_ACTIVATE" not in os.environ:
    DeltaLakeInstrumentor().instrument()

def write(place):
    write_deltalake(place, pa.table({"x": [1]}), mode="append")

def python(program):
    return [sys.executable, "-c", program]
"""


def program(text, following=""):
    given = f"FOLLOWING = {BEGIN + following!r}\n"
    return [sys.executable, "-c", BEGIN + given + textwrap.dedent(text)]


REPLACED = "write('t'); os.execv(sys.executable, python(FOLLOWING))"


def execute(command, folder, *, is_supervised):
    environment = {**os.environ, Env.CACHE_ROOT.value: str(folder / "root")}
    if is_supervised:
        words = ("run", "--quiet", "--", *command)
        return run_command(*words, folder=folder, environment=environment)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def runs_of(folder):
    ledger = Ledger(folder / "root")
    assert list(ledger.spools.iterdir()) == []
    return [
        (row["status"], row["exit_code"], row["error_type"], row["processes"], row["writes"])
        for row in ledger.runs().to_pylist()
    ]


SUPERVISED = {
    # The replacing call, and the run: status, exit code, error, processes, writes.
    "another program that writes": (REPLACED, "write('u')", ("ok", 0, None, 1, 2)),
    "and fails": (REPLACED, "write('u'); raise LookupError", ("error", 1, "LookupError", 1, 2)),
    "one that is not observed": (
        "write('t'); os.execl('/bin/sh', 'sh', '-c', 'exit 3')",
        "",
        ("error", 3, None, 1, 1),
    ),
    "two, one after the other": (
        REPLACED,
        "write('u')\nif len(sys.argv) < 2: os.execv(sys.executable, [*sys.orig_argv, 'last'])",
        ("ok", 0, None, 1, 3),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", cases(SUPERVISED, list(SUPERVISED)[1::2]))
def test_a_run_continues_in_the_program_after_exec(kind, tmp_path):
    """There is one run of one process, with all writes and the exit code of the last program."""
    text, following, expected = SUPERVISED[kind]
    done = execute(program(text, following), tmp_path, is_supervised=True)
    assert (done.returncode, runs_of(tmp_path)) == (expected[1], [expected]), done.stderr


@pytest.mark.parametrize(
    ("following", "expected"),
    [
        pytest.param("write('u')", ("ok", None, None, 1, 2), marks=pytest.mark.slow),
        ("write('u'); raise LookupError", ("error", 1, "LookupError", 1, 2)),
    ],
)
def test_a_run_continues_without_the_command(following, expected, tmp_path):
    """The run continues if the following program is observed in another way."""
    execute(program(REPLACED, following), tmp_path, is_supervised=False)
    assert runs_of(tmp_path) == [expected]


@pytest.mark.slow
def test_the_ledger_is_drained_before_the_exec_of_an_unobserved_program(tmp_path):
    """Everything is in the ledger before the exec, and an open run ends there."""
    text = "\nwith run('inner'):\n    write('t')\n    os.execv('/bin/true', ['true'])"
    done = execute(program(text), tmp_path, is_supervised=False)
    assert (done.returncode, runs_of(tmp_path)) == (0, [("ok", None, None, 1, 1)])


@pytest.mark.slow
def test_an_exec_in_a_forked_child_leaves_the_run_to_its_parent(tmp_path):
    """The new program of the child joins the run as another process."""
    text = """
    write('t')
    if (child := os.fork()) == 0:
        os.execv(sys.executable, python(FOLLOWING))
    assert os.waitpid(child, 0)[1] == 0
    write('t')
    """
    done = execute(program(text, "write('u')"), tmp_path, is_supervised=True)
    assert (done.returncode, runs_of(tmp_path)) == (0, [("ok", 0, None, 2, 3)]), done.stderr


EXPORTING = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

class ToFile(SpanExporter):
    def export(self, spans):
        with open("spans", "a") as file:
            file.writelines(f"{span.name}\\n" for span in spans)
        return SpanExportResult.SUCCESS

class Hanging(SpanExporter):
    def export(self, spans):
        import threading
        threading.Event().wait(60)

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(HANGING, schedule_delay_millis=60_000))
trace.set_tracer_provider(provider)
with run("nightly"):
    write("t")
    os.execv("/bin/true", ["true"])
"""


@pytest.mark.slow
def test_spans_are_exported_before_the_program_is_replaced(tmp_path):
    """The spans of writes and of open runs are exported."""
    text = EXPORTING.replace("HANGING", "ToFile()")
    done = execute(program(text), tmp_path, is_supervised=False)
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "spans").read_text().split("\n")[:-1]) == ["WRITE t", "nightly"]


@pytest.mark.slow
def test_an_exporter_that_hangs_does_not_hold_the_exec_back(tmp_path):
    """The exec waits no longer than the few seconds that a flush before a SIGTERM may take."""
    text = EXPORTING.replace("HANGING", "Hanging()")
    command = program(f"import time\nstarted = time.time()\n{text}")
    script = "print(time.time() - started, flush=True)\n    os.execv"
    command[-1] = command[-1].replace("os.execv", script).replace("'/bin/true'", "'/bin/true'")
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, Env.CACHE_ROOT.value: str(tmp_path / "root")},
        timeout=40,
    )
    assert done.returncode == 0
    assert runs_of(tmp_path) == [("ok", None, None, 1, 1)]


@pytest.fixture
def ledger(tmp_path):
    """Observe this process with a ledger."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "root")))
    yield Ledger(tmp_path / "root")
    DeltaLakeInstrumentor().uninstrument()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a missing file", "a folder", "a file that is no program"])
def test_a_failed_exec_does_not_change_the_program(kind, ledger, tmp_path):
    """The error is the same, and later writes belong to the same open run."""
    path = tmp_path / "program"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a file that is no program":
        path.write_bytes(b"\x00\x01\x02")
        path.chmod(0o755)
    errors = []
    with run("nightly") as opened:
        write_deltalake(tmp_path / "t", pa.table({"x": [1]}))
        for call in (os.execv, os.execv.__wrapped__):
            with pytest.raises(OSError) as raised:
                call(str(path), ["program"])
            errors.append((raised.type, raised.value.errno, str(raised.value)))
        with pytest.raises(OSError, match=r"."):
            os.execvpe("no such program", ["program"], dict(os.environ))
        write_deltalake(tmp_path / "t", pa.table({"x": [2]}), mode="append")
    assert errors[0] == errors[1]
    assert Env.REPLACED_PID not in os.environ
    ledger.drain()
    rows = [row for row in ledger.runs().to_pylist() if row["run_id"] == opened.run_id]
    assert [(row["status"], row["processes"], row["writes"]) for row in rows] == [("ok", 1, 2)]


def test_the_span_of_a_run_ends_once_after_a_failed_exec(tmp_path):
    """The span ends at the exec of an executable file, and the run continues in its trace."""
    telemetry = InMemoryTelemetry.create()
    path = tmp_path / "program"
    path.write_bytes(b"\x00\x01\x02")
    path.chmod(0o755)
    DeltaLakeInstrumentor().instrument(**telemetry.providers())
    with run("nightly"):
        write_deltalake(tmp_path / "t", pa.table({"x": [1]}))
        with pytest.raises(OSError, match=r"."):
            os.execv(str(path), ["program"])
        write_deltalake(tmp_path / "t", pa.table({"x": [2]}), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    names = sorted(span.name for span in telemetry.spans())
    assert names == ["WRITE t", "WRITE t", "nightly"]
    assert len({span.context.trace_id for span in telemetry.spans()}) == 1


def test_exec_takes_the_arguments_that_the_functions_take():
    """Arguments can be given by name, and wrong ones raise the original error."""
    DeltaLakeInstrumentor().instrument()
    try:
        shown = "import json, os; print(json.dumps(os.environ.get('GIVEN')))"
        child_code = [sys.executable, "-c", shown]
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(writing, 1)
            os.execve(path=sys.executable, argv=child_code, env={**os.environ, "GIVEN": "it"})
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading) as stream:
            assert json.loads(stream.read()) == "it"
        with pytest.raises(ValueError, match="empty"):
            os.execv(sys.executable, [])
        with pytest.raises(TypeError):
            os.execv(7.5, ["x"])
    finally:
        DeltaLakeInstrumentor().uninstrument()
