"""Links to traces, from the template of the settings."""

from __future__ import annotations

__all__ = ["trace_url"]


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
