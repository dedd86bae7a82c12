"""Links to traces, from the template of the settings."""

from __future__ import annotations

import re

__all__ = ["trace_ids_of", "trace_url"]

_TRACEPARENT = re.compile(
    r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}"
)


def trace_url(template: str | None, trace_id: str | None, span_id: str | None = None) -> str | None:
    """Return the link to a trace; None without a template or a trace.

    Args:
        template: :attr:`deltawitness.Settings.trace_url`.
        trace_id: id of the trace.
        span_id: id of the span; an empty text in the link if it is None.

    >>> trace_url("https://tempo.example/trace/{trace_id}", "4bf9")
    'https://tempo.example/trace/4bf9'
    """
    if template is None or trace_id is None:
        return None
    return template.replace("{trace_id}", trace_id).replace("{span_id}", span_id or "")


def trace_ids_of(traceparent: object) -> tuple[str | None, str | None]:
    """Return the ids of the trace and the span of a W3C `traceparent`; None for each if it is invalid.

    >>> trace_ids_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    ('4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7')
    """
    found = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    return (None, None) if found is None else (found[1], found[2])
