"""A list of runs, and the report of one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from deltawitness.answers.rows import seconds_of_run
from deltawitness.answers.trace_links import trace_url
from deltawitness.plurals import count_of
from deltawitness.report.failures import print_failed
from deltawitness.report.format import number, seconds, short_ids, text, timestamp
from deltawitness.report.summary import print_summary_table, summary_of_rows
from deltawitness.report.tables import Column, print_line, print_table
from deltawitness.report.writes import print_run_writes

__all__ = ["print_run", "print_runs"]

if TYPE_CHECKING:
    from deltawitness.answers.run_report import RunReport

Row = Mapping[str, Any]


_COUNTS = ("writes", "hits", "misses", "noops", "errors")

_RUN_COLUMNS = (
    Column("run"),
    Column("job", wrap_at=8),
    Column("status"),
    Column("started", wrap_at=10, splits_words=False),
    *(Column(name, is_number=True) for name in ("seconds", *_COUNTS, "rows +", "tables")),
)


def print_runs(console: Console, rows: Sequence[Row], similar_ids: Iterable[str] = ()) -> None:
    """Print a line for each run.

    Args:
        console: the console to print on.
        rows: rows of the runs.
        similar_ids: ids of other runs, from which the shortened ids have to differ.
    """
    if not rows:
        console.print("no runs", highlight=False)
        return
    ids = short_ids((row["run_id"] for row in rows), similar_ids)
    cells = [
        [
            ids[row["run_id"]],
            text(row["job"]),
            text(row["status"]),
            timestamp(row["start_time"]),
            seconds(_duration(row)),
            *(number(row[name]) for name in (*_COUNTS, "rows_added", "tables_touched")),
        ]
        for row in rows
    ]
    print_table(console, _RUN_COLUMNS, cells)


def _duration(row: Row) -> float | None:
    return seconds_of_run(row["start_time"], row["end_time"], row["status"])


def print_run(
    console: Console,
    report: RunReport,
    template: str | None = None,
    *,
    has_operations: bool = True,
) -> None:
    """Print the report of one run: operations, end, origin, processes, child runs, outputs and failures.

    Args:
        console: the console to print on.
        report: the report.
        template: template of the links to traces; None for no links.
        has_operations: whether the operations and the failures are listed.
    """
    run = report.run
    print_line(console, f"run {run['run_id']}  job {run['job']}")
    print_summary_table(console, summary_of_rows(run["run_id"], run["job"], report.operations))
    ends = (*_undo_lines(report), *_trace_lines(report, template))
    for line in (*_details(run), *_output_lines(report), *ends):
        print_line(console, line)
    if len(report.parts) > 1:
        _print_processes(console, report.parts)
    if report.children:
        ids = short_ids(row["run_id"] for rows in report.children.values() for row in rows)
        total = _counts_text(report.total())
        print_line(console, f"{_title(run)}  {_counts_text(run)}; with its child runs {total}")
        for line in _tree_lines(report, run["run_id"], ids):
            print_line(console, line)
    if not has_operations:
        return
    if report.writes:
        print_run_writes(console, report.writes, run["run_id"])
    if report.failed:
        print_failed(console, report.failed, run["run_id"])


OUTPUTS_SHOWN = 20
"""Maximum number of tables that are printed of a run."""

TRACES_SHOWN = 3
"""Maximum number of links to traces that are printed of a run."""


def _output_lines(report: RunReport) -> list[str]:
    outputs = [f"{each['name'] or each['uri']}@{each['version']}" for each in report.outputs()]
    if not outputs:
        return []
    more = f", and {len(outputs) - OUTPUTS_SHOWN} more" if len(outputs) > OUTPUTS_SHOWN else ""
    return [f"outputs: {', '.join(outputs[:OUTPUTS_SHOWN])}{more}"]


def _undo_lines(report: RunReport) -> list[str]:
    return [
        f"{'undone' if row['status'] == 'ok' else 'undone in part'} by run {row['run_id']}"
        f" at {timestamp(row['start_time'])}"
        for row in report.undone_by
    ]


def _trace_lines(report: RunReport, template: str | None) -> list[str]:
    links = [trace_url(template, trace_id) for trace_id in report.trace_ids()[:TRACES_SHOWN]]
    return [f"trace: {link}" for link in links if link is not None]


_PROCESS_COLUMNS = (
    Column("host", wrap_at=8),
    Column("pid", is_number=True),
    Column("status"),
    Column("started", wrap_at=10, splits_words=False),
    *(Column(name, is_number=True) for name in ("seconds", "writes", "noops", "errors", "rows +")),
)


def _print_processes(console: Console, parts: Sequence[Row]) -> None:
    print_line(console, f"{count_of(len(parts), 'process', 'processes')}:")
    cells = [
        [
            text(part["host"]),
            text(part["pid"]),
            text(part["status"]),
            timestamp(part["start_time"]),
            seconds(_duration(part)),
            *(number(part[name]) for name in ("writes", "noops", "errors", "rows_added")),
        ]
        for part in parts
    ]
    print_table(console, _PROCESS_COLUMNS, cells)


def _details(run: Row) -> list[str]:
    if run["status"] is None:
        return [
            f"first seen {timestamp(run['start_time'])}, not ended: it is open, or its spool is lost"
        ]
    why = f" by {run['error_type']}" if run["error_type"] else ""
    if (run["exit_code"] or 0) > 0:  # a negative code is a signal, which the error type names
        why += f" with exit code {run['exit_code']}"
    took = _duration(run)
    length = "; its end is not known" if took is None else f" for {seconds(took)} s"
    lines = [f"{run['status']}{why}, from {timestamp(run['start_time'])}{length}"]
    if run["parent_run_id"]:
        lines.append(f"child of run {run['parent_run_id']}")
    lines += _origin_lines(run)
    if run["dropped"]:
        lines.append(f"{count_of(run['dropped'], 'operation')} dropped before being recorded")
    lines += [f"{entry['name']}: {entry['value']}" for entry in run["attributes"] or []]
    return lines


_ORIGIN_WORDS = (
    ("pipeline", "pipeline"),
    ("pipeline_run_id", "run"),
    ("task", "task"),
    ("attempt", "attempt"),
    ("code_version", "code version"),
    ("image", "image"),
    ("pod", "pod"),
    ("author", "author"),
)


def _origin_lines(run: Row) -> list[str]:
    """Return lines about why and where a run runs, without what is not known."""
    parts = [
        f"{word} {run[name]}" for name, word in _ORIGIN_WORDS if run.get(name) not in {None, ""}
    ]
    where = f"{run['system']}: " if run.get("system") else ""
    lines = [f"message: {run['message']}"] if run.get("message") else []
    lines += [where + ", ".join(parts)] if parts or where else []
    return lines + ([f"link: {run['link']}"] if run.get("link") else [])


def _title(run: Row) -> str:
    return f"{run['job']}  {run['status'] or 'not ended'}"


def _counts_text(counts: Row) -> str:
    parts = [
        f"{name.replace('_', ' ')} {counts[name]:,}"
        for name in ("writes", "hits", "misses", "noops", "errors", "rows_added")
        if counts[name]
    ]
    return ", ".join(parts) or "nothing"


def _tree_lines(
    report: RunReport, run_id: str, ids: Mapping[str, str], indent: str = ""
) -> Iterator[str]:
    children = report.children.get(run_id, [])
    for position, child in enumerate(children, start=1):
        is_last = position == len(children)
        branch, below = ("└── ", "    ") if is_last else ("├── ", "│   ")
        name = ids[child["run_id"]]
        yield f"{indent}{branch}{_title(child)}  {_counts_text(child)}  {name}"
        yield from _tree_lines(report, child["run_id"], ids, indent + below)
