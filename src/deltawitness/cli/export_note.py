"""The lines of the run's summary about the export of its traces.

A line has `exported` only if the exporter of the run's span, which the command starts after the program,
has ended without an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deltawitness.activation import is_sdk_disabled, names_exporter
from deltawitness.cli.run_span import RunSpanExport
from deltawitness.semconv import OtelEnv

__all__ = ["export_notes"]


def export_notes(
    traces: Iterable[str],
    environ: Mapping[str, str],
    run_span: RunSpanExport,
    reason: str | None,
    *,
    has_events: bool,
    is_shown: bool,
) -> list[str]:
    """Return a line for each trace, or one line when the program has none.

    Args:
        traces: ids of the traces of the program's writes.
        environ: the environment of the command.
        run_span: the finished export of the run's span.
        reason: why the program set up no OpenTelemetry; None if it set it up, or did not report it.
        has_events: whether an operation of the program was observed.
        is_shown: whether the command asked for traces that are only printed (`--show-trace`).
    """
    traces = sorted(traces)
    if traces and not (is_shown or names_exporter(environ)):
        return [f"trace {trace}: {_OWN_SETUP}" for trace in traces]
    state = _state(environ, run_span, reason)
    lines = [f"trace {trace}: {state or _unconfirmed(environ)}" for trace in traces]
    if lines or not (has_events or names_exporter(environ)):
        return lines
    if has_events and state is None:
        state = "not exported: OpenTelemetry was not set up in the program"
    return [f"trace: {state or _unconfirmed(environ)}"]


_OWN_SETUP = "no export reported: the program sets up OpenTelemetry itself"


def _state(environ: Mapping[str, str], run_span: RunSpanExport, reason: str | None) -> str | None:
    """Return whether the traces were exported, and why not; None if no exporter has reported either."""
    if not names_exporter(environ):
        return "not exported: no OpenTelemetry exporter is configured"
    if is_sdk_disabled(environ):
        return "not exported: OTEL_SDK_DISABLED is true"
    if _exporter(environ) == "none":
        return "not exported: OTEL_TRACES_EXPORTER is none"
    problem = reason or run_span.problem
    if problem is not None:
        return f"not exported: {problem}"
    return f"exported by {_destination(environ)}" if run_span.is_exported else None


def _unconfirmed(environ: Mapping[str, str]) -> str:
    return f"no export reported by {_destination(environ)}"


def _exporter(environ: Mapping[str, str]) -> str:
    return environ.get(OtelEnv.TRACES_EXPORTER, "").strip() or "otlp"


def _destination(environ: Mapping[str, str]) -> str:
    exporter = _exporter(environ)
    if "otlp" not in exporter:
        return exporter
    endpoint = environ.get(OtelEnv.TRACES_ENDPOINT) or environ.get(
        OtelEnv.ENDPOINT, "the default endpoint"
    )
    return f"{exporter} to {endpoint}"
