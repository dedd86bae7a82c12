"""The summary of `deltawitness run` is true about the export of the trace and about failed writes."""

from __future__ import annotations

import json
import os
import textwrap

import pytest

from helpers.collector_parts import Backend, free_ports
from helpers.ledger_commands import invoke, json_of, run

pytestmark = pytest.mark.slow

PROGRAM = """
    import logging
    import pyarrow as pa
    from deltalake import write_deltalake
    logging.disable()
    write_deltalake("t", pa.table({"x": [1]}), mode="append")
"""

OWN_SDK = """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider())
"""

LATE = """
    import pathlib, pyarrow as pa
    from deltalake import write_deltalake
    rows = pa.table({"x": [1]})
    for _ in range(3):
        write_deltalake("t", rows, mode="append", configuration={"delta.checkpointInterval": "3"})
    pathlib.Path("t/_delta_log/_last_checkpoint").unlink(missing_ok=True)
    pathlib.Path("t/_delta_log/_last_checkpoint/x").mkdir(parents=True)
    try:
        for _ in range(3):
            write_deltalake("t", rows, mode="append")
    except Exception as error:
        print(type(error).__name__)
"""
"""The commit of version 5 lands, and the checkpoint after it fails."""


def exporting(port):
    """Variables that export traces to a port of this machine."""
    return {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
    }


def trace_line(done):
    """Return the line of the summary about the trace, without the id."""
    assert done.returncode == 0, done.stderr
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("trace")]
    return line.partition(": ")[2]


def test_a_trace_is_exported_when_the_exporter_says_so(tmp_path):
    """With a server that answers, the summary names the exporter and the endpoint."""
    server = Backend().up()
    try:
        done = run(tmp_path, PROGRAM, **exporting(server.port))
    finally:
        server.down()
    assert trace_line(done) == f"exported by otlp to http://127.0.0.1:{server.port}"
    assert server.trace_requests


def test_a_trace_is_not_exported_to_a_closed_port(tmp_path):
    """The reason of the exporter is in the summary; the program's exit code stays 0."""
    (port,) = free_ports(1)
    line = trace_line(run(tmp_path, PROGRAM, **exporting(port)))
    assert line.startswith("not exported: ")
    assert "UNAVAILABLE" in line


def test_a_trace_that_is_not_sampled_has_no_reported_export(tmp_path):
    """An exporter is set and reports nothing: the summary does not say that anything was exported."""
    server = Backend().up()
    given = exporting(server.port) | {"OTEL_TRACES_SAMPLER": "always_off"}
    given["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = given["OTEL_EXPORTER_OTLP_ENDPOINT"]
    given["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    try:
        done = run(tmp_path, PROGRAM, **given)
    finally:
        server.down()
    assert trace_line(done) == f"no export reported by otlp to http://127.0.0.1:{server.port}"
    assert not server.trace_requests


def hidden(folder, module):
    """Variables with which a module cannot be imported in the program."""
    text = f"""
        import os, sys
        if os.environ.get("DELTAWITNESS_EVENTS_FILE"):
            sys.modules[{module!r}] = None
    """
    (folder / "sitecustomize.py").write_text(textwrap.dedent(text))
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}


def test_a_program_without_the_sdk_is_told_which_extra_is_missing(tmp_path):
    """Without the SDK the write is recorded, and the summary names the extra."""
    variables = exporting(free_ports(1)[0]) | hidden(tmp_path, "opentelemetry.sdk")
    line = trace_line(run(tmp_path, PROGRAM, **variables))
    assert line == (
        "not exported: opentelemetry-sdk is not installed in the program's environment:"
        " pip install 'deltawitness[otel]'"
    )
    assert json_of("runs", "--root", tmp_path / ".deltawitness")[0]["writes"] == 1


def test_a_program_without_the_exporter_is_told_which_extra_is_missing(tmp_path):
    """Without the OTLP exporter, the line on stderr and the summary name the extra."""
    module = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"
    done = run(tmp_path, PROGRAM, **exporting(free_ports(1)[0]), **hidden(tmp_path, module))
    line = trace_line(done)
    assert line.startswith("not exported: ")
    assert line.endswith(": pip install 'deltawitness[otel]'")
    assert "OpenTelemetry cannot be set up: " in done.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "not exported: no OpenTelemetry exporter is configured"),
        ({"OTEL_SDK_DISABLED": "true"}, "not exported: OTEL_SDK_DISABLED is true"),
        ({"OTEL_TRACES_EXPORTER": "none"}, "not exported: OTEL_TRACES_EXPORTER is none"),
    ],
    ids=str,
)
@pytest.mark.one_case_in(2)
def test_settings_without_an_export_are_named(variables, expected, tmp_path):
    """The summary names the setting because of which nothing is exported."""
    given = exporting(free_ports(1)[0]) | variables if variables else {}
    assert trace_line(run(tmp_path, PROGRAM, **given)) == expected


def test_a_program_with_its_own_sdk_has_no_confirmed_export(tmp_path):
    """The command cannot see whether the exporters of the program's code have exported."""
    line = trace_line(run(tmp_path, OWN_SDK + PROGRAM))
    assert line == "no export reported: the program sets up OpenTelemetry itself"


def test_a_failed_write_that_landed_must_not_be_retried(tmp_path, monkeypatch):
    """The summary, its JSON and `show` say that the commit is in the log, and with which message."""
    monkeypatch.chdir(tmp_path)
    done = run(tmp_path, LATE, options=["--json", "summary.json"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "the write did not raise"
    assert "landed as v5: do not retry" in done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    (failed,) = summary["failed"]
    assert (failed["landed"], failed["versions"], failed["operation"]) == ("yes", [5], "WRITE")
    assert failed["error_message"] in done.stderr
    shown = invoke("show", summary["run_id"]).stdout
    assert "landed as v5: do not retry" in shown
    (row,) = json_of("show", summary["run_id"])["failed"]
    assert (row["landed"], row["version"]) == ("yes", 5)


def test_a_failed_write_is_printed_with_its_message(tmp_path):
    """A write that did not land has its message, and no warning of a retry."""
    text = """
        import pyarrow as pa
        from deltalake import write_deltalake
        write_deltalake("t", pa.table({"x": [1]}))
        write_deltalake("t", pa.table({"x": [1]}))
    """
    done = run(tmp_path, text)
    assert done.returncode == 1
    summary = done.stderr[done.stderr.index("run 0") :]
    assert "table_exists" in summary
    assert "A table already exists at" in summary
    assert "do not retry" not in summary


def test_the_message_of_a_source_that_raises_is_not_printed(tmp_path):
    """The text of the program's own exception may be data: the summary has its class."""
    text = """
        import pyarrow as pa
        from deltalake import write_deltalake
        def batches():
            raise LookupError("canary")
            yield
        schema = pa.schema([("x", pa.int64())])
        try:
            write_deltalake("t", pa.RecordBatchReader.from_batches(schema, batches()))
        except Exception:
            pass
    """
    done = run(tmp_path, text)
    assert done.returncode == 0, done.stderr
    assert "source_failed" in done.stderr
    assert "canary" not in done.stderr
