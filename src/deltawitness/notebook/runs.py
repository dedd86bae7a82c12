"""Runs, operations and commits in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from deltawitness.answers.rows import RunRow, TableVersion, WriteRow, seconds_of_run
from deltawitness.answers.shown_commit import ShownCommit
from deltawitness.answers.shown_run import ShownRun
from deltawitness.html_display import RowList
from deltawitness.html_report.markup import Markup, isolated
from deltawitness.notebook.parts import (
    MAX_ROWS,
    cut_listing,
    facts_table,
    listing,
    names_of,
    note,
    short_id,
)
from deltawitness.report.format import number, operation, rows, seconds, timestamp

__all__ = ["row_renderer", "show_commit", "show_row_list", "show_run"]


def show_row_list(found: RowList[Any]) -> list[Markup]:
    """Show runs or operations, a line for each."""
    if not found:
        return [note("no rows")]
    if isinstance(found[0], RunRow):
        return _runs("runs", found)
    return _writes("operations", found)


_RUN_HEAD = (
    *("run", "job", "status", "began", "seconds", "writes", "hits", "misses", "errors"),
    *("rows added", "tables"),
)


def _runs(caption: str, found: Sequence[RunRow]) -> list[Markup]:
    lines = [
        (
            short_id(row.run_id),
            isolated(row.job),
            isolated(row.status or "not ended"),
            timestamp(row.start_time),
            seconds(_seconds_of(row)),
            *(number(each) for each in (row.writes, row.hits, row.misses, row.errors)),
            *(number(each) for each in (row.rows_added, row.tables_touched)),
        )
        for row in found[: MAX_ROWS + 1]
    ]
    return cut_listing(caption, _RUN_HEAD, lines, len(found), _RUN_HEAD[4:])


def _seconds_of(row: RunRow) -> float | None:
    return seconds_of_run(row.start_time, row.end_time, row.status)


_WRITE_HEAD = ("time", "table", "operation", "result", "rows", "seconds", "made from", "job", "run")


def _writes(caption: str, found: Sequence[WriteRow]) -> list[Markup]:
    lines = [
        (
            timestamp(row.event_time),
            isolated(_name_of(row)),
            isolated(operation(row.operation, row.mode)),
            isolated(": ".join(filter(None, (row.result, row.error_type or row.reason)))),
            rows(row.rows_added, row.rows_updated, row.rows_deleted),
            seconds(None if row.duration_ms is None else row.duration_ms / 1000),
            isolated(names_of(row.inputs or row.run_inputs)),
            isolated(row.job),
            short_id(row.run_id),
        )
        for row in found[: MAX_ROWS + 1]
    ]
    return cut_listing(caption, _WRITE_HEAD, lines, len(found), ("rows", "seconds"))


def _name_of(row: WriteRow) -> str:
    return str(TableVersion(row.version, row.table_name, row.table_uri, row.table_id))


def show_run(found: ShownRun) -> list[Markup]:
    """Show a run with its operations, failures and child runs."""
    run = found.run
    facts = {
        "job": run.job,
        "status": run.status or "not ended",
        "ended by": run.error_type,
        "exit code": run.exit_code,
        "began": run.start_time,
        "seconds": seconds(_seconds_of(run)),
        "message": run.message,
        "author": run.author,
        "code version": run.code_version,
        "attempt": run.attempt,
        "processes": len(found.processes) or None,
        "outputs": names_of(each.table for each in found.outputs[:MAX_ROWS]),
        "undone by": ", ".join(each.run_id for each in found.undone_by),
        **{f"attribute {name}": value for name, value in run.attributes.items()},
    }
    failed = [(isolated(_name_of(row)), isolated(row.error_message)) for row in found.failed]
    return [
        facts_table(f"run {run.run_id}", facts),
        *_writes("operations", found.writes),
        *listing("failed operations", ("table", "error"), failed),
        *_runs("child runs", found.children),
    ]


def show_commit(found: ShownCommit) -> list[Markup]:
    """Show a version of a table."""
    metrics = {name.replace("_", " "): count for name, count in found.metrics.known().items()}
    milliseconds = found.duration_ms
    facts = {
        "operation": operation(found.operation, found.mode),
        "predicate": found.predicate,
        "time": found.time,
        "result": found.result,
        "error": found.error_message or found.error_type,
        "landed": found.landed,
        "job": found.job,
        "run": found.run_id,
        "author": found.author,
        "message": found.message,
        "code": found.call_site and f"{found.call_site.file}:{found.call_site.line}",
        "code version": found.code_version,
        "inferred inputs" if found.are_inputs_inferred else "inputs": names_of(found.inputs),
        "expectations": found.expectation_result,
        "seconds": seconds(None if milliseconds is None else milliseconds / 1000),
        **metrics,
        "write id": found.write_id,
        "trace": found.trace_url or found.trace_id,
        "engine": found.engine,
    }
    return [facts_table(str(found.table), facts), *map(note, found.notes)]


def row_renderer(caption: str) -> Callable[[Any], list[Markup]]:
    """Return a function that shows every known value of a row."""

    def render(row: Any) -> list[Markup]:
        facts = {name: getattr(row, name) for name in row.__slots__}
        shown = {
            name.replace("_", " "): names_of(value)
            if name.endswith("inputs")
            else value
            if isinstance(value, datetime | int | float | str)
            else ""
            for name, value in facts.items()
        }
        return [facts_table(caption, shown)]

    return render
