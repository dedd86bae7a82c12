"""Export the run span of a program that has ended, in a process that `deltawitness run` starts.

The process exports one span, with the interpreter of the program. So it has the program's exporters, the
command does not load the SDK, and an exporter that hangs is killed with its process.

The exit code is 0 when the span was exported; otherwise the last line of stderr says why it was not.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from deltawitness.process_exit import cause_of
from deltawitness.semconv import ERROR_TYPE, PROCESS_EXIT_CODE, SCOPE_NAME, ErrorType
from deltawitness.telemetry.run_span_file import Document, read_run_span
from deltawitness.telemetry.sdk import configure_sdk

__all__ = ["FLUSH_TIMEOUT", "main", "span_with_exit"]

FLUSH_TIMEOUT = 5.0
"""Maximum seconds for the export of the span."""


class ExportError(Exception):
    """The span was not exported; the text is the reason."""


def main(path: str, exit_code: str, ended_at: str) -> None:
    """Export a span and end the process, without the exit handlers of the SDK, which may wait longer.

    Args:
        path: path of the file to which the program wrote the span.
        exit_code: exit code of the program; -N when signal N ended it.
        ended_at: nanoseconds since the Unix epoch at which the program ended.
    """
    code = 1
    try:
        document = read_run_span(Path(path))
        if document is not None:
            _export(span_with_exit(document["span"], int(exit_code), int(ended_at)))
        sys.stdout.flush()
        code = 0
    except BaseException as error:  # noqa: BLE001 - a distribution or an exporter may raise anything
        reason = str(error) or type(error).__qualname__
        sys.stderr.write(f"{' '.join(reason.split())}\n")
        sys.stderr.flush()
    os._exit(code)


def span_with_exit(document: Document, exit_code: int, ended_at: int) -> ReadableSpan:
    """Return the span of a run with the exit code of its process.

    Args:
        document: the span, as the program wrote it.
        exit_code: exit code of the program; -N when signal N ended it. A code other than 0 is an error.
        ended_at: nanoseconds since the Unix epoch; used as the end of a span that the program did not end.
    """
    scope, resource = document["scope"], document["resource"]
    parent = document["parent"]
    return ReadableSpan(
        name=document["name"],
        context=_context(document["context"]),
        parent=None if parent is None else _context(parent),
        resource=Resource(resource["attributes"], resource["schema_url"]),
        attributes=_attributes(document, exit_code),
        events=[
            Event(one["name"], one["attributes"], one["timestamp"]) for one in document["events"]
        ],
        links=[Link(_context(one["context"]), one["attributes"]) for one in document["links"]],
        kind=SpanKind[document["kind"]],
        status=_status(document["status"], exit_code),
        start_time=document["start_time"],
        end_time=document["end_time"] or ended_at,
        instrumentation_scope=InstrumentationScope(
            scope["name"], scope["version"], scope["schema_url"], scope["attributes"]
        ),
    )


def _context(document: Document) -> SpanContext:
    return SpanContext(
        document["trace_id"],
        document["span_id"],
        document["is_remote"],
        TraceFlags(document["trace_flags"]),
        TraceState.from_header([document["trace_state"]]),
    )


def _attributes(document: Document, exit_code: int) -> dict[str, Any]:
    attributes = {**document["attributes"], PROCESS_EXIT_CODE: exit_code}
    if exit_code != 0:
        has_run_handlers = document["end_time"] is not None
        cause = cause_of(exit_code, has_run_handlers=has_run_handlers) or ErrorType.OTHER.value
        attributes.setdefault(ERROR_TYPE, cause)
    return attributes


def _status(document: Document, exit_code: int) -> Status:
    description = document["description"]
    if exit_code == 0:
        return Status(StatusCode[document["code"]], description)
    return Status(StatusCode.ERROR, description or _ending(exit_code))


def _ending(exit_code: int) -> str:
    if exit_code < 0:
        with suppress(ValueError):
            return f"ended by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _export(span: ReadableSpan) -> None:
    problems = _Problems()
    log = logging.getLogger("opentelemetry")
    log.addHandler(problems)
    log.propagate = False
    flushing = threading.Thread(target=_flush, args=(span, problems), daemon=True)
    flushing.start()
    flushing.join(FLUSH_TIMEOUT)
    if flushing.is_alive():
        msg = problems.last or f"the exporter takes longer than {FLUSH_TIMEOUT:g} s"
        raise ExportError(msg)
    if problems.has_failed:
        raise ExportError(problems.last)


def _flush(span: ReadableSpan, problems: _Problems) -> None:
    try:
        if not hasattr(trace.get_tracer_provider(), "force_flush"):
            configure_sdk()
        provider: Any = trace.get_tracer_provider()
        # Span.end() does the same for a span that was started in this process.
        provider.get_tracer(SCOPE_NAME).span_processor.on_end(span)
        provider.force_flush(int(FLUSH_TIMEOUT * 1000))
    except Exception as error:  # noqa: BLE001 - a distribution or an exporter may raise anything
        problems.add(str(error) or type(error).__qualname__, has_failed=True)


class _Problems(logging.Handler):
    """Collects the log records of OpenTelemetry, which logs the errors of exporters and does not raise them.

    Attributes:
        last: the last message.
        has_failed: whether one of them was an error.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        self.has_failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Collect the message of a log record."""
        self.add(record.getMessage(), has_failed=record.levelno >= logging.ERROR)

    def add(self, message: str, *, has_failed: bool) -> None:
        """Collect a message, and whether it is an error."""
        self.last = message
        self.has_failed = self.has_failed or has_failed


if __name__ == "__main__":
    main(*sys.argv[1:])
