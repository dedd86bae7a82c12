"""One version of a table: who made it, why, how and from what."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from rich.console import Console

from deltawitness.answers.shown_commit import ShownCommit
from deltawitness.report.failures import landed_text
from deltawitness.report.format import operation, rows, size
from deltawitness.report.tables import Column, print_line, print_table

__all__ = ["print_shown_commit"]

_COLUMNS = (Column("what", wrap_at=12), Column("value", wrap_at=20))


def print_shown_commit(console: Console, shown: ShownCommit) -> None:
    """Print one version of a table, without what is not known."""
    what = operation(shown.operation, shown.mode) or "unknown operation"
    print_line(console, f"{shown.table}  {what}")
    lines = [(name, value) for name, value in _lines(shown) if value]
    print_table(console, _COLUMNS, lines)
    for note in shown.notes:
        print_line(console, f"note: {note}")


def _lines(shown: ShownCommit) -> Iterator[tuple[str, str]]:
    """Yield the names and the values of the lines; an empty value for an unknown one."""
    yield "table", shown.table.uri or ""
    if len(shown.versions) > 1:
        yield "versions", ", ".join(map(str, shown.versions))
    yield "time", _time(shown.time)
    yield "run", _with(shown.run_id, shown.run.status if shown.run else None)
    yield "job", shown.job or ""
    yield "author", shown.author or ""
    yield "message", shown.message or ""
    yield "code version", shown.code_version or ""
    yield "call site", _call_site(shown)
    yield from _origin_lines(shown)
    yield "predicate", shown.predicate or ""
    yield _inputs_name(shown), ", ".join(map(str, shown.inputs))
    yield "plan", _with(shown.plan_hash, shown.plan_shape_hash and f"shape {shown.plan_shape_hash}")
    yield "schema", shown.schema_hash or ""
    yield from _count_lines(shown)
    yield "expectations", _with(shown.expectation_result, shown.expectations)
    yield "not met", shown.expectations_unmet or ""
    yield "error", _with(shown.error_type, shown.error_message)
    yield "landed", landed_text(shown.landed, shown.versions)
    yield "trace", shown.trace_url or shown.trace_id or ""
    yield "write", shown.write_id or ""
    yield "engine", shown.engine or ""
    yield "host", _with(shown.host, None if shown.pid is None else f"pid {shown.pid}")
    yield "source", shown.source or ""


def _origin_lines(shown: ShownCommit) -> Iterator[tuple[str, str]]:
    run = shown.run
    if run is not None:
        system = run.system and ", ".join(filter(None, (run.system, run.pipeline, run.task)))
        yield "system", system or ""
        yield "link", run.link or ""
    for name, value in shown.origin.items():
        yield f"engine's {name}", str(value)


def _inputs_name(shown: ShownCommit) -> str:
    return "inputs (inferred)" if shown.are_inputs_inferred else "inputs"


def _count_lines(shown: ShownCommit) -> Iterator[tuple[str, str]]:
    counts = shown.metrics
    yield "rows", rows(counts.rows_added, counts.rows_updated, counts.rows_deleted)
    yield "rows copied", _count(counts.rows_copied)
    yield "files", rows(counts.files_added, None, counts.files_removed)
    yield "bytes added", size(counts.bytes_added or 0)
    yield "files deleted", _count(counts.files_deleted)
    yield "retries", "" if counts.retries is None else str(counts.retries)
    yield "seconds", "" if shown.duration_ms is None else f"{shown.duration_ms / 1000:.3f}"


def _count(count: int | None) -> str:
    return f"{count:,}" if count else ""


def _call_site(shown: ShownCommit) -> str:
    site = shown.call_site
    return "" if site is None else _with(f"{site.file}:{site.line}", site.function)


def _with(text: str | None, more: str | None) -> str:
    return "" if text is None else f"{text} ({more})" if more else text


def _time(time: dt.datetime | None) -> str:
    return "" if time is None else time.astimezone(dt.UTC).isoformat(timespec="milliseconds")
