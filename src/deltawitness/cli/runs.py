"""`deltawitness runs` and `deltawitness show`: list runs, and report one."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Annotated, Any

import typer

from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.durations import SinceOption
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, listed_ledger
from deltawitness.cli.ledger_queries import Row, RunReport, list_runs, read_run, similar_run_ids
from deltawitness.report.runs import print_run, print_runs
from deltawitness.report.summary import summary_lines

__all__ = ["runs_command", "show_command"]

STATUSES = ("ok", "error", "abandoned", "reconstructed")
"""Values of `deltawitness.ledger.tables.run_rows.RunStatus`, whose import is heavy."""


def _parse_status(text: str) -> str:
    if text not in STATUSES:
        msg = f"expected one of {', '.join(STATUSES)}"
        raise typer.BadParameter(msg)
    return text


def runs_command(
    job: Annotated[str | None, typer.Option(help="Filter by job name.")] = None,
    status: Annotated[
        str | None,
        typer.Option(
            parser=_parse_status, metavar="STATUS", help=f"Filter by status: {', '.join(STATUSES)}."
        ),
    ] = None,
    since: Annotated[dt.datetime | None, SinceOption] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows.")] = 20,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List finished runs, newest first."""
    with exit_on_ledger_error(root, "read"):
        ledger = listed_ledger(root)
        rows = list_runs(ledger, job=job, status=status, since=since, limit=limit)
        similar = [] if as_json else similar_run_ids(ledger, rows)
    if as_json:
        print_json(rows)
    else:
        print_runs(console(sys.stdout), rows, similar)


def show_command(
    run_id: Annotated[str, typer.Argument(help="Run id, or an unambiguous prefix of it.")],
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show one run: its child runs, its operations by table, and what failed."""
    with exit_on_ledger_error(root, "read"):
        report = read_run(listed_ledger(root), run_id)
    if as_json:
        print_json(_report_json(report))
    else:
        print_run(console(sys.stdout), report)


def _report_json(report: RunReport) -> dict[str, Any]:
    return {
        "run": report.run,
        "children": _children_json(report, report.run["run_id"]),
        "total": report.total(),
        "tables": summary_lines(report.summary),
        "failed": report.failed,
    }


def _children_json(report: RunReport, run_id: str) -> list[Row]:
    return [
        {**child, "children": _children_json(report, child["run_id"])}
        for child in report.children.get(run_id, [])
    ]
