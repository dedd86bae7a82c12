"""A file with the run span of a program under `deltawitness run`, from which the command exports the span.

A program cannot see its own exit code, and runs no more Python code when SIGKILL or `os._exit()` ends it. So
the program starts the span of its run, and the command, which waits for the program, ends it. The program
writes the span to a file when the run starts and again when the run ends. The command adds the exit code
and exports the span once, by :mod:`deltawitness.telemetry.run_span_export`. The program ends the span
itself only where the command has died before. If the command dies after the program, the span is lost.

The command offers the export by creating the file, with a digest of the command's OpenTelemetry settings. A
program with other settings (`env OTEL_EXPORTER_OTLP_ENDPOINT=... python app.py`) would export to another
endpoint, so it ends its span itself. So does a program that is not a direct child of the command
(`sh -c "python app.py; ..."`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltawitness.ids_and_clock import now_ns
from deltawitness.processes import interpreter, supervisor_lock
from deltawitness.semconv import OTEL_PREFIX, OtelEnv

__all__ = [
    "RunSpanFile",
    "accept_offer",
    "offer_export",
    "read_run_span",
    "run_span_path",
    "take_accepted_file",
]

Document = dict[str, Any]

_FILE_NAME = "run_span.json"
_OF_RESOURCE = (OtelEnv.SERVICE_NAME, OtelEnv.RESOURCE_ATTRIBUTES)
"""Settings that are in the span's resource already, so they may differ in the exporting process."""

_accepted: RunSpanFile | None = None
"""The file for the run span of this process, from the accepted offer until the span starts."""


# --- the command ---------------------------------------------------------------------------------


def run_span_path(lock: str) -> Path:
    """Return the path of the file with the run span.

    Args:
        lock: path of the lock that the command holds while it waits.
    """
    return Path(lock).with_name(_FILE_NAME)


def offer_export(lock: str, environ: Mapping[str, str]) -> None:
    """Offer a program that is about to start to export its run span after its end.

    Args:
        lock: path of the lock that the command holds while it waits.
        environ: the environment of the command, in which the exporter runs.

    Raises:
        OSError: the file cannot be written.
    """
    _write(run_span_path(lock), {"settings": _digest(environ)})


def read_run_span(path: Path) -> Document | None:
    """Return what the program has written to the file; None when there is no run span to export.

    Args:
        path: path of the file (:func:`run_span_path`).
    """
    try:
        document: Document = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return document if "span" in document else None


# --- the program ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunSpanFile:
    """The file to which a program writes its run span, instead of ending the span.

    Attributes:
        path: path of the file.
        python: path of an interpreter with the packages of the program.
        supervisor: process id of the command.
        owner: process id of the program: a forked child must not end the span of its parent.
    """

    path: Path
    python: str
    supervisor: int = field(default_factory=os.getppid)
    owner: int = field(default_factory=os.getpid)

    def start(self, span: Any) -> bool:
        """Write a span that has just started; return whether the command will export it."""
        return _is_exportable(span) and self._save(span, None)

    def end(self, span: Any) -> bool:
        """Write the final state of the span; return False when the caller has to end it instead."""
        if os.getpid() != self.owner:
            return True
        if os.getppid() != self.supervisor:
            return False
        # If this fails, the file still has the state at the start.
        self._save(span, now_ns())
        return True

    def _save(self, span: Any, end_time: int | None) -> bool:
        document = {"python": self.python, "span": _span_document(span, end_time)}
        try:
            _write(self.path, document)
        except OSError:
            return False
        return True


def accept_offer(environ: Mapping[str, str]) -> None:
    """Accept the command's offer to export the run span of this process, if there is one.

    Call this before OpenTelemetry is set up, which changes the environment.

    Args:
        environ: the environment of this process.
    """
    global _accepted  # noqa: PLW0603 - one run around one process
    lock, python = supervisor_lock(), interpreter()
    if lock is None or python is None:
        return
    path = run_span_path(lock)
    with suppress(OSError, ValueError):
        if json.loads(path.read_text()) == {"settings": _digest(environ)}:
            _accepted = RunSpanFile(path, python)


def take_accepted_file() -> RunSpanFile | None:
    """Return the file for the run span on the first call; None later, or when there was no offer."""
    global _accepted
    accepted, _accepted = _accepted, None
    return accepted


def _digest(environ: Mapping[str, str]) -> str:
    settings = sorted(
        (name, value)
        for name, value in environ.items()
        if name.startswith(OTEL_PREFIX) and name not in _OF_RESOURCE
    )
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _write(path: Path, document: Document) -> None:
    new = path.with_suffix(".new")
    # Attributes of types that JSON lacks are written as text.
    new.write_text(json.dumps(document, default=str))
    new.replace(path)


def _is_exportable(span: Any) -> bool:
    """Return whether a span is one of the SDK, and sampled."""
    return (
        span.is_recording()
        and span.get_span_context().trace_flags.sampled
        and hasattr(span, "instrumentation_scope")
    )


def _span_document(span: Any, end_time: int | None) -> Document:
    scope, resource = span.instrumentation_scope, span.resource
    return {
        "name": span.name,
        "kind": span.kind.name,
        "context": _context_document(span.get_span_context()),
        "parent": None if span.parent is None else _context_document(span.parent),
        "start_time": span.start_time,
        "end_time": end_time,
        "attributes": dict(span.attributes),
        "status": {"code": span.status.status_code.name, "description": span.status.description},
        "events": [
            {"name": one.name, "timestamp": one.timestamp, "attributes": dict(one.attributes)}
            for one in span.events
        ],
        "links": [
            {"context": _context_document(one.context), "attributes": dict(one.attributes)}
            for one in span.links
        ],
        "resource": {"attributes": dict(resource.attributes), "schema_url": resource.schema_url},
        "scope": {
            "name": scope.name,
            "version": scope.version,
            "schema_url": scope.schema_url,
            "attributes": dict(scope.attributes or {}),
        },
    }


def _context_document(context: Any) -> Document:
    return {
        "trace_id": context.trace_id,
        "span_id": context.span_id,
        "is_remote": context.is_remote,
        "trace_flags": int(context.trace_flags),
        "trace_state": context.trace_state.to_header(),
    }
