"""Stack traces of Python are shortened before they are compared, and no secret in them is exported."""

from __future__ import annotations

import time

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from helpers.collector_canaries import CANARIES, TOGETHER
from helpers.collector_parts import until

HEADER = "Traceback (most recent call last):\n"
FRAME = '  File "/srv/app/load.py", line 7, in load\n    return load(orders)\n'
PLAIN = f"{HEADER}{FRAME}{FRAME}ValueError: bad row\n"
SHORT = f"{HEADER}  line 7, in load\n  line 7, in load\nValueError: bad row\n"
CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"

PLACES = {
    "message": f"{HEADER}{FRAME}ValueError: {{}}\n",
    "message of a cause": f"{HEADER}{FRAME}ValueError: {{}}\n{CAUSED}{PLAIN}",
    "message of an effect": f"{PLAIN}{CAUSED}{HEADER}{FRAME}ValueError: {{}}\n",
    "indented message": f"{HEADER}{FRAME}ValueError: bad row\n    {{}}\n",
    "source line": f'{HEADER}  File "/srv/a.py", line 1, in f\n    load({{}})\n{FRAME}ValueError: bad row\n',
    "last source line": f'{HEADER}  File "/srv/a.py", line 1, in f\n    {{}}\nValueError: bad row\n',
    "source line of an effect": f'{PLAIN}{CAUSED}{HEADER}  File "a.py", line 1, in f\n    {{}}\nValueError: x',
    "path": f'{HEADER}  File "{{}}", line 1, in f\n    pass\nValueError: bad row\n',
    "function": f'{HEADER}  File "/srv/a.py", line 1, in {{}}\n    pass\nValueError: bad row\n',
    "type": f"{HEADER}{FRAME}{{}}: bad row\n",
    "instead of a type": f"{HEADER}{FRAME}{{}}",
    "before": f"{{}}\n{PLAIN}",
    "between frames": f"{HEADER}{FRAME}{{}}\n{FRAME}ValueError: bad row\n",
}
"""Where the secret stands: in place of the braces."""

SETTINGS = {"DECISION_WAIT": "1s", "DECISION_WAIT_AFTER_ROOT": "1s"}


def attributes(values):
    """Return attributes with texts or bytes."""
    return [
        KeyValue(
            key=key,
            value=AnyValue(bytes_value=value)
            if isinstance(value, bytes)
            else AnyValue(string_value=value),
        )
        for key, value in values.items()
    ]


def spans(events):
    """Return an export request with a failed span for each event, which has the attributes of one of `events`."""
    now = time.time_ns()
    made = [
        Span(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            name="load",
            start_time_unix_nano=now,
            end_time_unix_nano=now + 1000,
            status=Status(code=Status.STATUS_CODE_ERROR),
            events=[Span.Event(name="exception", attributes=attributes(event))],
        )
        for number, event in enumerate(events, 1)
    ]
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=made)])]
    )


def exported(one, backend, events):
    """Send events, and return the attributes of each after redaction, in the order of `events`."""
    with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
        TraceServiceStub(channel).Export(spans(events))
    until(lambda: len(backend.spans()) >= len(events), "the spans")
    found = sorted(backend.spans(), key=lambda span: span.trace_id)
    return [
        {pair.key: pair.value.string_value for pair in span.events[0].attributes} for span in found
    ]


def traces(one, backend, texts):
    """Return stack traces after redaction."""
    sent = [{"exception.stacktrace": text} for text in texts]
    return [event["exception.stacktrace"] for event in exported(one, backend, sent)]


@pytest.fixture
def started(collector, backend):
    """Return a Collector."""
    return collector("config.yaml", BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}", **SETTINGS)


def test_a_stack_trace_has_no_files_and_source_lines(started, backend):
    """Line, function and exception remain; of a cause as well."""
    repeated = (
        f"{HEADER}{FRAME}  [Previous line repeated 996 more times]\nRecursionError: too deep\n"
    )
    marked = (
        f'{HEADER}  File "a.py", line 1, in <module>\n    load(1)\n    ~~~~^^^\nmy.BadError: no\n'
    )
    sent = [PLAIN, f"{PLAIN}{CAUSED}{PLAIN}", repeated, marked]
    assert traces(started, backend, sent) == [
        SHORT,
        f"{SHORT}{CAUSED}{SHORT}",
        f"{HEADER}  line 7, in load\n  [Previous line repeated 996 more times]\nRecursionError: too deep\n",
        f"{HEADER}  line 1, in <module>\nmy.BadError: no\n",
    ]


def test_a_log_record_has_a_short_stack_trace(started, backend):
    record = LogRecord(
        body=AnyValue(string_value="failed"), attributes=attributes({"exception.stacktrace": PLAIN})
    )
    with grpc.insecure_channel(f"127.0.0.1:{started.ports['GRPC']}") as channel:
        LogsServiceStub(channel).Export(
            ExportLogsServiceRequest(
                resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])]
            )
        )
    (found,) = until(backend.logs, "the record")
    assert {pair.key: pair.value.string_value for pair in found.attributes} == {
        "exception.stacktrace": SHORT
    }


@pytest.mark.slow
def test_a_secret_in_a_stack_trace_is_masked_wherever_it_is(started, backend):
    """In a message, a source line, a path, and where a short stack trace is cut."""
    sent = [
        (place, known, text.format(said))
        for place, text in PLACES.items()
        for known, said in [*CANARIES.items(), ("", TOGETHER)]
    ]
    found = traces(started, backend, [text for _, _, text in sent])
    assert [
        (place, text)
        for (place, known, _), text in zip(sent, found, strict=True)
        if any(canary in text for canary in ([known] if known else CANARIES))
    ] == []


def test_a_secret_that_goes_on_after_a_source_line_is_masked(started, backend):
    """What begins in a source line is not removed without its rest."""
    sent = [
        f'{before}{HEADER}  File "a.py", line 1, in f\n    {begin}\n{rest}\n'
        for before in ("", f"{PLAIN}{CAUSED}")
        for begin, rest in (
            ("-----BEGIN PRIVATE KEY-----", "canary: 1"),
            ("x = 'a", "canary: b'"),
            ('password="a', 'canary: b"'),
            ("password={a", "canary: b}"),
            ("password=", "canary:1"),
            ("┌───┐", "canary: 1"),
            ("+----+", "canary: 1"),
            ("in row: [1,", "canary: 1"),
            ("Preview of invalid data:", "canary: 1"),
        )
    ]
    assert [text for text in traces(started, backend, sent) if "canary" in text] == []


def test_other_stack_traces_are_compared_with_the_list(started, backend):
    """A text of another form, and the keys that the Collector uses meanwhile, change nothing."""
    java = "java.io.IOException: no\n\tat org.example.Load.run(Load.java:7) of /srv/lake/t\n"
    odd = PLAIN.replace("return load(orders)", "don't")
    other = {"exception.stacktrace": 'File "/srv/a.py"', "redact.tmp.frames": "x"}
    sent = [
        {"exception.stacktrace": java},
        {"exception.stacktrace": odd},
        other | {"redact.tmp.raised": "longer than it"},
        {"redact.tmp.frames": "x", "redact.tmp.raised": "longer than it"},
    ]
    assert exported(started, backend, sent) == [
        {"exception.stacktrace": java.replace("/srv/lake/t", "****")},
        {"exception.stacktrace": odd.replace("/srv/app/load.py", "****")},
        {"exception.stacktrace": 'File "****"'},
        {},
    ]


def test_large_bytes_are_masked(started, backend):
    """All of them, also if what follows the first ones is a text."""
    blob = b"0aB/" * 12_500
    text = "0aB/" * 100 + " canary"
    (found,) = exported(started, backend, [{"blob": blob, "text": text}])
    assert found == {"blob": "****", "text": "****"}
