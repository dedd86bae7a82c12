"""What a run did: the summary table, and the trace as a tree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from deltawitness.events_file import EventLine
from deltawitness.report.format import number, size

__all__ = [
    "RunSummary",
    "SummaryLine",
    "print_summary",
    "print_trace",
    "summarize",
    "summary_lines",
    "summary_table",
]

_NANOSECONDS = 1e9


@dataclass(slots=True)
class SummaryLine:
    """What was done to one table with one operation."""

    operations: int = 0
    errors: int = 0
    seconds: float = 0.0
    metrics: Counter[str] = field(default_factory=Counter)

    def add(self, event: EventLine) -> None:
        """Count one write."""
        self.operations += 1
        self.errors += event.result == "error"
        self.seconds += event.duration_ns / _NANOSECONDS
        self.metrics.update(event.metrics)

    def join(self, other: SummaryLine) -> None:
        """Count what another line has counted."""
        self.operations += other.operations
        self.errors += other.errors
        self.seconds += other.seconds
        self.metrics.update(other.metrics)


@dataclass(slots=True)
class RunSummary:
    """What one run did.

    Attributes:
        run_id: the run.
        job: its job.
        lines: by table id, table name and operation, in the order in which they were first seen.
        total: all of it.
        tables: how many tables were touched.
        traces: the traces that its writes are in.
    """

    run_id: str
    job: str
    lines: dict[tuple[str, str, str], SummaryLine]
    total: SummaryLine
    tables: int
    traces: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON-able values."""
        return {
            "run_id": self.run_id,
            "job": self.job,
            "tables": self.tables,
            "traces": self.traces,
            "total": _line_json(self.total),
            "lines": summary_lines(self),
        }


def summary_lines(summary: RunSummary) -> list[dict[str, Any]]:
    """Return what was done to which table as JSON-able values."""
    return [
        {"table": table, "operation": operation, **_line_json(line)}
        for (_, table, operation), line in summary.lines.items()
    ]


def _line_json(line: SummaryLine) -> dict[str, Any]:
    return {
        "operations": line.operations,
        "errors": line.errors,
        "seconds": round(line.seconds, 6),
        **line.metrics,
    }


def summarize(run_id: str, job: str, events: Iterable[EventLine]) -> RunSummary:
    """Return the summary of a run's writes."""
    lines: dict[tuple[str, str, str], SummaryLine] = defaultdict(SummaryLine)
    total = SummaryLine()
    tables: set[str] = set()
    traces: dict[str, None] = {}
    for event in events:
        name = event.table or (event.table_id or "?")[:8]
        lines[event.table_id or name, name, event.operation].add(event)
        total.add(event)
        tables.add(event.table_id or name)
        if event.trace_id is not None:
            traces[event.trace_id] = None
    return RunSummary(run_id, job, dict(lines), total, len(tables), list(traces))


def print_summary(console: Console, summary: RunSummary, notes: Sequence[str] = ()) -> None:
    """Print the table of a run, and what else there is to say of it."""
    console.print(summary_table(summary, f"run {summary.run_id}  job {summary.job}"))
    for note in notes:
        console.print(note, highlight=False)


def summary_table(summary: RunSummary, title: str) -> Table:
    """Return the table of what was done to which table."""
    table = Table(title=title, title_justify="left")
    table.add_column("table")
    table.add_column("operation")
    for name in ("ops", "rows +", "rows ~", "rows -", "files +", "files -", "bytes +", "retries"):
        table.add_column(name, justify="right")
    table.add_column("errors", justify="right")
    table.add_column("seconds", justify="right")
    for (_, name, operation), line in summary.lines.items():
        table.add_row(name, operation, *_cells(line))
    table.add_section()
    table.add_row(f"{summary.tables} tables", "", *_cells(summary.total))
    return table


def _cells(line: SummaryLine) -> list[str]:
    counted = line.metrics
    return [
        str(line.operations),
        number(counted["rows_added"]),
        number(counted["rows_updated"]),
        number(counted["rows_deleted"]),
        number(counted["files_added"]),
        number(counted["files_removed"]),
        size(counted["bytes_added"]),
        number(counted["retries"]),
        number(line.errors),
        f"{line.seconds:.3f}",
    ]


def print_trace(console: Console, summary: RunSummary, events: Sequence[EventLine]) -> None:
    """Print the writes of a run as the tree that their traces make."""
    traces: list[str | None] = [*summary.traces] or [None]
    for trace_id in traces:
        tree = Tree(f"{summary.job}  trace {trace_id or 'none: no OpenTelemetry SDK configured'}")
        for event in sorted(events, key=lambda line: line.started_at):
            if event.trace_id == trace_id:
                tree.add(_trace_line(event))
        console.print(tree, highlight=False)


def _trace_line(event: EventLine) -> str:
    what = f"{event.operation} {event.table or ''}".rstrip()
    versions = ", ".join(f"v{version}" for version in event.versions) or event.result
    error = f"  {event.error_type}" if event.error_type else ""
    counts = ", ".join(
        f"{name.replace('_', ' ')} {count:,}"
        for name, count in event.metrics.items()
        if count and name.startswith("rows")
    )
    milliseconds = event.duration_ns / 1e6
    return f"{what}  {versions}  {milliseconds:.1f} ms  {counts}{error}".rstrip()
