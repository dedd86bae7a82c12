"""A program under `deltawitness run` has one run span, which has the program's exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind

from deltawitness import Ledger
from deltawitness.cli import run_span
from deltawitness.cli.run_span import RunSpanExport, offer_run_span_export
from deltawitness.ledger.tables.schema import RUNS
from deltawitness.semconv import Env
from deltawitness.telemetry.run_span_export import span_with_exit
from deltawitness.telemetry.run_span_file import (
    RunSpanFile,
    accept_offer,
    offer_export,
    read_run_span,
    run_span_path,
    take_accepted_file,
)
from helpers.collector_parts import Backend, until
from helpers.ledger_parts import rows_of
from helpers.sizes import cases
from helpers.terminal_commands import run_command

COMMAND = [sys.executable, "-m", "deltawitness", "run", "--quiet"]
NO_SIGNALS = {
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
}
PROGRAM = """
import atexit, os, signal, sys
import pyarrow as pa
from deltalake import write_deltalake
write_deltalake("t", pa.table({"x": [1]}), mode="append")
"""
FLUSHED = PROGRAM + "from opentelemetry import trace; trace.get_tracer_provider().force_flush()\n"
"""For programs that end before the exporter would send the span of the write."""

ENDINGS = {
    # How a program ends, its exit code in subprocess, and the error type of its run.
    "pass": (0, None),
    "sys.exit(0)": (0, None),
    "sys.exit(7)": (7, "SystemExit"),
    "sys.exit('text')": (1, "SystemExit"),
    "raise SystemExit(3)": (3, "SystemExit"),
    "raise LookupError": (1, "LookupError"),
    "os._exit(3)": (3, "_OTHER"),
    "atexit.register(os._exit, 5)": (5, "_OTHER"),
    "os.kill(os.getpid(), signal.SIGINT)": (-signal.SIGINT, "KeyboardInterrupt"),
    "os.kill(os.getpid(), signal.SIGTERM)": (-signal.SIGTERM, "Terminated"),
    "os.kill(os.getpid(), signal.SIGKILL)": (-signal.SIGKILL, "SIGKILL"),
    "os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(4)'])": (4, "_OTHER"),
}


@pytest.fixture
def backend():
    """An OTLP server."""
    server = Backend().up()
    yield server
    server.down()


def exporting(backend, **variables):
    """The environment of a command that exports spans to the server."""
    return {
        **os.environ,
        **NO_SIGNALS,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{backend.port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        **variables,
    }


def execute(backend, folder, text, *options, **variables):
    """Run a program under observation."""
    program = [sys.executable, "-c", textwrap.dedent(text)]
    return run_program(folder, exporting(backend, **variables), *options, "--", *program)


def run_program(folder, environment, *words):
    """Run the command."""
    return run_command("run", "--quiet", *words, folder=folder, environment=environment)


def attributes_of(holder):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


def spans_of(backend):
    """Return each received span as (span, attributes, attributes of the resource)."""
    return [
        (span, attributes_of(span), attributes_of(resource.resource))
        for request in backend.trace_requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def run_span_of(backend):
    """Return the only span of a run, and the spans of writes."""
    spans = spans_of(backend)
    (found,) = [one for one in spans if "cicd.pipeline.run.id" in one[1] and one[0].kind == 1]
    return found, [one for one in spans if one[0].kind == 3]


def assert_ending(found, code, error_type):
    span, attributes, _ = found
    assert attributes["process.exit.code"] == code
    assert attributes.get("error.type") == error_type
    assert span.status.code == (2 if code else 0)
    assert bool(span.status.message) is bool(code)
    assert span.start_time_unix_nano < span.end_time_unix_nano


FAST = ["sys.exit(7)", "os.kill(os.getpid(), signal.SIGKILL)"]
"""An ending that the program reports, and one that only the command sees."""
SMALL = ["pass", "os.kill(os.getpid(), signal.SIGTERM)", *FAST]


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(ending, marks=() if ending in FAST else pytest.mark.slow)
        for ending in cases(ENDINGS, SMALL)
    ],
)
def test_the_one_span_of_a_run_has_the_exit_code(ending, tmp_path, backend):
    """The span agrees with the run's row in the ledger, and is the parent of the writes' spans."""
    code, error_type = ENDINGS[ending]
    done = execute(backend, tmp_path, FLUSHED + ending, "--job", "nightly")
    assert done.returncode == code, done.stderr
    assert "deltawitness:" not in done.stderr
    found, writes = run_span_of(backend)
    assert_ending(found, code, error_type)
    span, attributes, resource = found
    assert span.name == attributes["cicd.pipeline.name"] == "nightly"
    ((write, _, of_write),) = writes
    assert (write.trace_id, write.parent_span_id) == (span.trace_id, span.span_id)
    assert resource == of_write
    assert resource["service.instance.id"]
    (row,) = rows_of(Ledger(tmp_path / ".deltawitness").root, RUNS, "run_id, status, exit_code")
    assert row == {
        "run_id": attributes["deltawitness.run.id"],
        "status": "error" if code else "ok",
        "exit_code": code,
    }


WITHOUT_LEDGER = [
    ("pass", 0, None),
    ("sys.exit(7)", 7, "SystemExit"),
    ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, "SIGTERM"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "code", "error_type"), cases(WITHOUT_LEDGER, WITHOUT_LEDGER[-1:])
)
def test_without_a_ledger_the_span_is_the_same(ending, code, error_type, tmp_path, backend):
    """The span does not depend on the ledger."""
    done = execute(backend, tmp_path, "import os, signal, sys\n" + ending, "--no-ledger")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    found, writes = run_span_of(backend)
    assert_ending(found, code, error_type)
    assert writes == []
    assert list(tmp_path.iterdir()) == []


CHILDREN = """
    import multiprocessing, os, subprocess, sys
    import pyarrow as pa
    from deltalake import write_deltalake

    WRITE = "import pyarrow as pa; from deltalake import write_deltalake; "
    WRITE += "write_deltalake('by_subprocess', pa.table({'x': [1]}))"

    def write(place):
        write_deltalake(place, pa.table({"x": [1]}))

    if __name__ == "__main__":
        if os.fork() == 0:
            sys.exit(0)  # with the exit handlers of its parent
        os.wait()
        subprocess.run([sys.executable, "-c", WRITE], check=True)
        child = multiprocessing.get_context("spawn").Process(target=write, args=("by_spawn",))
        child.start()
        child.join()
        sys.exit(7)
"""


@pytest.mark.slow
def test_the_spans_of_child_processes_are_children_of_the_run(tmp_path, backend):
    """No child process ends the run's span, also where it runs the exit handlers of its parent."""
    (tmp_path / "program.py").write_text(textwrap.dedent(CHILDREN))
    done = run_program(tmp_path, exporting(backend), "--", sys.executable, "program.py")
    assert done.returncode == 7, done.stderr
    found, writes = run_span_of(backend)
    assert_ending(found, 7, "SystemExit")
    assert sorted(write.name for write, *_ in writes) == ["WRITE by_spawn", "WRITE by_subprocess"]
    assert {write.parent_span_id for write, *_ in writes} == {found[0].span_id}


REPLACED = """
    import os, sys
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(sys.argv[1], pa.table({"x": [1]}))
    if sys.argv[1] == "before":
        os.execv(sys.executable, [sys.executable, *sys.argv[:1], "after"])
    sys.exit(7)
"""


@pytest.mark.slow
def test_writes_before_and_after_an_exec_are_children_of_one_run_span(tmp_path, backend):
    """The program that replaces another one in the process continues the run and starts no second span."""
    (tmp_path / "program.py").write_text(textwrap.dedent(REPLACED))
    done = run_program(tmp_path, exporting(backend), "--", sys.executable, "program.py", "before")
    assert done.returncode == 7, done.stderr
    found, writes = run_span_of(backend)
    assert_ending(found, 7, "_OTHER")
    assert sorted(write.name for write, *_ in writes) == ["WRITE after", "WRITE before"]
    assert {write.parent_span_id for write, *_ in writes} == {found[0].span_id}


@pytest.mark.slow
def test_attributes_events_and_links_of_the_program_are_exported(tmp_path, backend):
    """Attributes, events and links are exported; the parent is the span that the command was started in."""
    text = """
        import sys
        from opentelemetry import trace
        span = trace.get_current_span()
        span.set_attribute("shard", 3)
        span.set_attribute("columns", ["a", "b"])
        span.add_event("loaded", {"rows": 5})
        span.add_link(span.get_span_context(), {"why": "test"})
        span.set_status(trace.StatusCode.ERROR, "no rows")
        sys.exit(7)
    """
    parent = f"00-{'1' * 32}-{'2' * 16}-01"
    assert execute(backend, tmp_path, text, "--no-ledger", TRACEPARENT=parent).returncode == 7
    found, _ = run_span_of(backend)
    assert_ending(found, 7, "SystemExit")
    span, attributes, _ = found
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("1" * 32, "2" * 16)
    assert attributes["shard"] == 3
    assert [value.string_value for value in attributes["columns"].values] == ["a", "b"]
    assert [(one.name, attributes_of(one)) for one in span.events] == [("loaded", {"rows": 5})]
    assert [attributes_of(one) for one in span.links] == [{"why": "test"}]
    assert span.status.message == "no rows"


@pytest.mark.slow
def test_a_run_that_is_not_sampled_has_no_span(tmp_path, backend):
    """The program's sampler decides."""
    done = execute(backend, tmp_path, "raise SystemExit(3)", OTEL_TRACES_SAMPLER="always_off")
    assert (done.returncode, done.stderr) == (3, "")
    assert backend.trace_requests == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["a shell waits for it", "it has other settings"])
@pytest.mark.one_case_in(2)
def test_a_program_that_the_command_cannot_observe_ends_its_span_itself(form, tmp_path, backend):
    """A program that is not the command's child, or that exports elsewhere, exports one span."""
    (tmp_path / "app.py").write_text("raise LookupError")
    command = {
        "a shell waits for it": ["sh", "-c", f"{sys.executable} app.py; exit 3"],
        "it has other settings": ["env", "OTEL_BSP_SCHEDULE_DELAY=1", sys.executable, "app.py"],
    }[form]
    done = run_program(tmp_path, exporting(backend), "--", *command)
    assert done.returncode == (3 if "shell" in form else 1), done.stderr
    found, _ = run_span_of(backend)
    span, attributes, _ = found
    assert (span.status.code, attributes["process.exit.code"]) == (2, 1)


@pytest.mark.slow
def test_a_program_whose_command_is_killed_ends_its_span_itself(tmp_path, backend):
    """The span then lacks the code of a `sys.exit()`."""
    text = "import sys; print('ready', flush=True); sys.stdin.read(); raise LookupError"
    with subprocess.Popen(
        [*COMMAND, "--no-ledger", "--", sys.executable, "-c", text],
        cwd=tmp_path,
        env=exporting(backend),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as running:
        assert running.stdout.readline() == b"ready\n"
        running.kill()
        running.wait()
        running.stdin.close()
        until(lambda: backend.trace_requests, "the span of the run")
    (span, attributes, _), _ = run_span_of(backend)
    assert (span.status.code, attributes["error.type"]) == (2, "LookupError")


@pytest.mark.slow
def test_a_program_that_is_not_there_has_no_span(tmp_path, backend):
    """A missing program, or one that does not load deltawitness, has no span."""
    for program, code in (["/nosuch/program"], 127), (["sh", "-c", "exit 3"], 3):
        done = run_program(tmp_path, exporting(backend), "--", *program)
        assert done.returncode == code
    assert backend.trace_requests == []


@pytest.mark.slow
def test_a_server_that_is_down_costs_one_line_and_not_the_exit_code(tmp_path, backend):
    """The command prints one line; what OpenTelemetry logs in the program is the program's output."""
    backend.down()
    text = "import logging, sys; logging.disable(); sys.exit(7)"
    done = execute(backend, tmp_path, text, OTEL_EXPORTER_OTLP_TIMEOUT="1")
    assert done.returncode == 7
    (line,) = done.stderr.splitlines()
    assert line.startswith("deltawitness: the span of the run was not exported: ")


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["none", "console"])
def test_a_trace_is_shown_whether_it_is_exported_or_not(exporter, tmp_path):
    """`--show-trace` works with and without an export; the console exporter prints the span to stdout."""
    command = ["run", "--show-trace", "--", sys.executable, "-c", PROGRAM + "sys.exit(7)"]
    variables = {} if exporter == "none" else {**NO_SIGNALS, "OTEL_TRACES_EXPORTER": exporter}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = run_command(*command, folder=tmp_path, environment=environment | variables)
    assert done.returncode == 7, done.stderr
    assert "WRITE append t" in done.stderr
    assert done.stdout.count('"process.exit.code": 7') == (exporter == "console")


# --- the parts -----------------------------------------------------------------------------------


@pytest.fixture
def exported():
    """Spans that a provider of the SDK has exported."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exported):
    """A tracer of that provider."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return provider.get_tracer("deltawitness", "1.2", "https://example.com/schema", {"a": 1})


def test_a_span_survives_the_file(tmp_path, tracer, exported):
    """The span from the file equals the one that the SDK would have exported."""
    parent = tracer.start_span("parent")
    span = tracer.start_span(
        "nightly", kind=SpanKind.INTERNAL, links=[Link(parent.get_span_context(), {"b": 2})]
    )
    span.set_attributes({"text": "x", "list": [1.5, 2.5], "bytes": b"y"})
    span.add_event("loaded", {"rows": 5})
    file = RunSpanFile(tmp_path / "run_span.json", sys.executable)
    assert file.start(span)
    started = read_run_span(file.path)["span"]
    assert started["end_time"] is None
    assert file.end(span)
    read = span_with_exit(read_run_span(file.path)["span"], 0, 1)
    span.set_attributes({"bytes": "b'y'", "process.exit.code": 0})
    span.end(read.end_time)
    (sdk,) = exported.get_finished_spans()
    assert json.loads(read.to_json()) == json.loads(sdk.to_json())
    assert read.instrumentation_scope == sdk.instrumentation_scope
    ended = span_with_exit(started, -99, 17)
    assert (ended.end_time, ended.status.description) == (17, "exit code -99")
    assert ended.attributes["error.type"] == "_OTHER"


def test_a_file_that_cannot_be_written_leaves_the_span_to_the_program(tmp_path, tracer):
    """If the first write fails, the program ends the span; if the last one fails, the command does."""
    span = tracer.start_span("nightly")
    file = RunSpanFile(tmp_path / "gone" / "run_span.json", sys.executable)
    assert not file.start(span)
    assert file.end(span)
    assert not RunSpanFile(file.path, sys.executable, supervisor=1 << 30).end(span)
    assert RunSpanFile(file.path, sys.executable, supervisor=1 << 30, owner=1).end(span)


def test_an_offer_is_accepted_once_and_by_a_direct_child_alone(tmp_path, monkeypatch):
    """Only a child with the same export settings accepts it; the service name may differ."""
    settings = {"OTEL_TRACES_EXPORTER": "console"}
    lock = tmp_path / "supervisor.lock"
    accept_offer(settings)
    assert take_accepted_file() is None
    monkeypatch.setenv(Env.SUPERVISOR, f"{os.getppid()}:{lock}")
    accept_offer(settings)
    assert take_accepted_file() is None
    offer_export(str(lock), settings)
    assert read_run_span(run_span_path(str(lock))) is None
    accept_offer({**settings, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere"})
    assert take_accepted_file() is None
    accept_offer({**settings, "OTEL_SERVICE_NAME": "nightly"})
    accepted = take_accepted_file()
    assert accepted is not None
    assert accepted.path == tmp_path / "run_span.json"
    assert take_accepted_file() is None


@pytest.mark.parametrize("exporter", ["none", " NONE "])
def test_without_an_exporter_no_span_is_offered(exporter, tmp_path):
    """Without an exporter, the command offers nothing and starts no process."""
    lock = str(tmp_path / "supervisor.lock")
    offer_run_span_export(lock, {"OTEL_TRACES_EXPORTER": exporter})
    offer_run_span_export(lock, {})
    assert not run_span_path(lock).exists()
    RunSpanExport(lock, 3).wait()


def started_export(tmp_path, script):
    """Start an export by an interpreter that is a given script."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o700)
    lock = str(tmp_path / "supervisor.lock")
    run_span_path(lock).write_text(json.dumps({"python": str(python), "span": {}}))
    return RunSpanExport(lock, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo first >&2; echo the reason >&2; exit 1", "the reason"),
        ("exit 3", "exit code 3"),
        ("exec sleep 600", "no answer within 0.2 s"),
    ],
)
def test_an_exporter_that_fails_is_one_line(script, reason, tmp_path, capsys, monkeypatch):
    """An exporter that fails prints one line; one that hangs is killed."""
    monkeypatch.setattr(run_span, "EXPORT_TIMEOUT", 0.2 if "sleep" in script else 15.0)
    started_export(tmp_path, script).wait()
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"deltawitness: the span of the run was not exported: {reason}\n"


def test_an_interpreter_that_is_gone_is_one_line(tmp_path, capsys):
    """The program's environment may have been deleted before the export."""
    lock = str(tmp_path / "supervisor.lock")
    document = {"python": str(tmp_path / "python"), "span": {}}
    run_span_path(lock).write_text(json.dumps(document))
    RunSpanExport(lock, 3).wait()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("deltawitness: the span of the run was not exported: ")


@pytest.mark.slow
def test_the_export_to_a_silent_server_times_out(tmp_path):
    """The export is bounded, whatever the exporter's own timeout is."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = RunSpanFile(tmp_path / "run_span.json", sys.executable)
        tracer = TracerProvider(shutdown_on_exit=False).get_tracer("deltawitness")
        assert file.start(tracer.start_span("nightly"))
        environment = {
            **os.environ,
            **NO_SIGNALS,
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
        }
        module = "deltawitness.telemetry.run_span_export"
        done = subprocess.run(
            [sys.executable, "-m", module, file.path, "3", "17"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "the exporter takes longer than 5 s"
