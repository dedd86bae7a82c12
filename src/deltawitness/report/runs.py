"""Runs as the ledger tells them: a line for each, and all there is on one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from deltawitness.report.format import number, seconds, short_id, text, timestamp
from deltawitness.report.summary import RunSummary, summary_table

__all__ = ["print_run", "print_runs"]

if TYPE_CHECKING:
    from datetime import datetime

Row = Mapping[str, Any]

FAILED_SHOWN = 20
"""Failed operations that are shown of a run."""


class RunReportView(Protocol):
    """What is printed of one run: see :class:`deltawitness.cli.ledger_queries.RunReportView`."""

    run: dict[str, Any]
    children: dict[str, list[dict[str, Any]]]
    summary: RunSummary
    failed: list[dict[str, Any]]

    def total(self) -> dict[str, int]:
        """Return what the counts add up to."""


def print_runs(console: Console, rows: Sequence[Row]) -> None:
    """Print a line for each run."""
    table = Table()
    table.add_column("run", no_wrap=True)
    for name in ("job", "status"):
        table.add_column(name)
    table.add_column("started", no_wrap=True)
    is_cached = any(row["hits"] or row["misses"] for row in rows)
    asked = ("hits", "misses") if is_cached else ()
    for name in ("seconds", "writes", *asked, "noops", "errors", "rows +", "tables"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["run_id"],
            text(row["job"]),
            text(row["status"]),
            timestamp(row["start_time"]),
            seconds(_duration(row)),
            *(number(row[name]) for name in ("writes", *asked, "noops", "errors", "rows_added")),
            number(row["tables_touched"]),
        )
    console.print(table, highlight=False)


def _duration(row: Row) -> float | None:
    start: datetime | None = row["start_time"]
    end: datetime | None = row["end_time"]
    return None if start is None or end is None else (end - start).total_seconds()


def print_run(console: Console, told: RunReportView) -> None:
    """Print all there is on one run."""
    run = told.run
    console.print(summary_table(told.summary, f"run {run['run_id']}  job {run['job']}"))
    for line in _facts(run):
        console.print(line, highlight=False)
    if told.children:
        total = told.total()
        tree = Tree(f"{_in_a_line(run)}  {_counted(run)}; with its runs {_counted(total)}")
        _grow(tree, told, run["run_id"])
        console.print(tree, highlight=False)
    if told.failed:
        _print_failed(console, told.failed, run["run_id"])


def _facts(run: Row) -> list[str]:
    if run["status"] is None:
        return [
            f"first seen {timestamp(run['start_time'])}, not ended: it is open, or its spool is lost"
        ]
    why = f" by {run['error_type']}" if run["error_type"] else ""
    if (run["exit_code"] or 0) > 0:  # a signal is its own name
        why += f" with exit code {run['exit_code']}"
    lines = [
        f"{run['status']}{why}, from {timestamp(run['start_time'])} for {seconds(_duration(run))} s"
    ]
    if run["parent_run_id"]:
        lines.append(f"opened in run {run['parent_run_id']}")
    if run["dropped"]:
        lines.append(f"{run['dropped']} operations could not be told")
    lines += [f"{entry['name']}: {entry['value']}" for entry in run["attributes"] or []]
    return lines


def _in_a_line(run: Row) -> str:
    return f"{run['job']}  {run['status'] or 'not ended'}"


def _counted(counts: Row) -> str:
    parts = [
        f"{name.replace('_', ' ')} {counts[name]:,}"
        for name in ("writes", "hits", "misses", "noops", "errors", "rows_added")
        if counts[name]
    ]
    return ", ".join(parts) or "nothing"


def _grow(tree: Tree, told: RunReportView, run_id: str) -> None:
    for child in told.children.get(run_id, []):
        branch = tree.add(f"{_in_a_line(child)}  {_counted(child)}  {short_id(child['run_id'])}")
        _grow(branch, told, child["run_id"])


def _print_failed(console: Console, rows: Sequence[Row], run_id: str) -> None:
    table = Table(title="failed", title_justify="left")
    for name in ("time", "table", "operation", "error", "landed"):
        table.add_column(name)
    table.add_column("message", overflow="fold")
    for row in rows[:FAILED_SHOWN]:
        table.add_row(
            timestamp(row["event_time"]),
            text(row["table_name"]),
            text(row["operation"]),
            text(row["error_type"]),
            text(row["landed"]),
            text(row["error_message"]),
        )
    console.print(table, highlight=False)
    more = len(rows) - FAILED_SHOWN
    if more > 0:
        console.print(f"{more} more: deltawitness writes --run {run_id} --result error")
