"""Summary of the writes of a run: a table, and the traces as trees."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.tree import Tree

from deltawitness.events import METRIC_MEANINGS
from deltawitness.events_file import EventLine
from deltawitness.plurals import count_of
from deltawitness.report.failures import print_failed
from deltawitness.report.format import number, operation, size
from deltawitness.report.tables import Column, print_line, print_table

__all__ = [
    "RunSummary",
    "SummaryLine",
    "print_summary",
    "print_summary_table",
    "print_trace",
    "summarize",
    "summary_lines",
    "summary_of_rows",
]

_NANOSECONDS = 1e9


@dataclass(slots=True)
class SummaryLine:
    """The writes to one table with one operation.

    Attributes:
        operations: number of operations.
        errors: number of failed operations.
        seconds: total duration of the engine's calls in seconds.
        metrics: sums of the operations' counts, such as `rows_added`.
        modes: save modes of WRITEs, in the order of their first use; the values are unused.
    """

    operations: int = 0
    errors: int = 0
    seconds: float = 0.0
    metrics: Counter[str] = field(default_factory=Counter)
    modes: dict[str, None] = field(default_factory=dict)

    def add(self, event: EventLine) -> None:
        """Count one write."""
        self.operations += 1
        self.errors += event.result == "error"
        self.seconds += event.duration_ns / _NANOSECONDS
        self.metrics.update(event.metrics)
        if event.mode is not None:
            self.modes[event.mode] = None

    def join(self, other: SummaryLine) -> None:
        """Add the counts of another line."""
        self.operations += other.operations
        self.errors += other.errors
        self.seconds += other.seconds
        self.metrics.update(other.metrics)
        self.modes.update(other.modes)


@dataclass(slots=True)
class RunSummary:
    """The operations of one run.

    Attributes:
        run_id: id of the run.
        job: name of its job.
        lines: counts by table id, table name and operation, in the order of their first operation.
        total: counts of all operations.
        tables: number of tables with an operation.
        traces: ids of the traces that contain its writes.
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
    """Return the counts by table and operation as JSON-able values."""
    return [
        {"table": table, "operation": name, "modes": [*line.modes], **_line_json(line)}
        for (_, table, name), line in summary.lines.items()
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


def summary_of_rows(run_id: str, job: str, rows: Iterable[Mapping[str, Any]]) -> RunSummary:
    """Return the summary of a run from counts of the ledger.

    Args:
        run_id: id of the run.
        job: name of its job.
        rows: :attr:`deltawitness.answers.run_report.RunReport.operations`.
    """
    lines: dict[tuple[str, str, str], SummaryLine] = {}
    total = SummaryLine()
    for row in rows:
        line = _line_of_row(row)
        name = row["table_name"] or (row["table_id"] or "?")[:8]
        key = (row["table_id"] or name, name, row["operation"])
        lines.setdefault(key, SummaryLine()).join(line)
        total.join(line)
    return RunSummary(run_id, job, lines, total, len({table for table, _, _ in lines}), [])


def _line_of_row(row: Mapping[str, Any]) -> SummaryLine:
    line = SummaryLine(row["operations"], row["errors"], (row["milliseconds"] or 0.0) / 1000)
    if row["mode"] is not None:
        line.modes[row["mode"]] = None
    line.metrics.update({name: row[name] for name in METRIC_MEANINGS if row.get(name)})
    return line


def print_summary(
    console: Console,
    summary: RunSummary,
    notes: Sequence[str] = (),
    failed: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Print the operations of a run by table, those that failed, and each of the notes on a line.

    Args:
        console: the console to print on.
        summary: the counts.
        notes: lines after the tables.
        failed: the failed operations (:func:`deltawitness.report.failures.failed_rows`).
    """
    print_line(console, f"run {summary.run_id}  job {summary.job}")
    print_summary_table(console, summary)
    if failed:
        print_failed(console, failed, summary.run_id)
    for note in notes:
        print_line(console, note)


_COLUMNS = (
    Column("table", wrap_at=10),
    Column("operation", wrap_at=9, splits_words=False),
    *(
        Column(name, is_number=True)
        for name in ("ops", "rows +", "rows ~", "rows -", "files +", "files -", "bytes +")
    ),
    *(Column(name, is_number=True) for name in ("retries", "errors", "seconds")),
)


def print_summary_table(console: Console, summary: RunSummary) -> None:
    """Print a row for each table and operation, and their total; one line if there is no operation."""
    if not summary.lines:
        print_line(console, "no operations on Delta tables")
        return
    rows = [
        [name, operation(engine_operation, *line.modes), *_cells(line)]
        for (_, name, engine_operation), line in summary.lines.items()
    ]
    total = [count_of(summary.tables, "table"), "", *_cells(summary.total)]
    print_table(console, _COLUMNS, rows, total=total)


def _cells(line: SummaryLine) -> list[str]:
    counts = line.metrics
    return [
        str(line.operations),
        number(counts["rows_added"]),
        number(counts["rows_updated"]),
        number(counts["rows_deleted"]),
        number(counts["files_added"]),
        number(counts["files_removed"]),
        size(counts["bytes_added"]),
        number(counts["retries"]),
        number(line.errors),
        f"{line.seconds:.3f}",
    ]


def print_trace(console: Console, summary: RunSummary, events: Sequence[EventLine]) -> None:
    """Print a tree for each trace of a run, with its writes as branches."""
    traces: list[str | None] = [*summary.traces] or [None]
    for trace_id in traces:
        tree = Tree(f"{summary.job}  trace {trace_id or 'none: no OpenTelemetry SDK configured'}")
        for event in sorted(events, key=lambda line: line.started_at):
            if event.trace_id == trace_id:
                tree.add(_trace_line(event))
        console.print(tree, highlight=False)


def _trace_line(event: EventLine) -> str:
    what = f"{operation(event.operation, event.mode)} {event.table or ''}".rstrip()
    versions = ", ".join(f"v{version}" for version in event.versions) or event.result
    error = f"  {event.error_type}" if event.error_type else ""
    counts = ", ".join(
        f"{name.replace('_', ' ')} {count:,}"
        for name, count in event.metrics.items()
        if count and name.startswith("rows")
    )
    milliseconds = event.duration_ns / 1e6
    return f"{what}  {versions}  {milliseconds:.1f} ms  {counts}{error}".rstrip()
