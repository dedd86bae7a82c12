"""`deltawitness runs` and `deltawitness show`: the runs of the ledger, and all there is on one."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Annotated, Any

import typer

from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.durations import SinceOption
from deltawitness.cli.ledger_option import RootOption, existing_ledger, of_ledger
from deltawitness.cli.ledger_queries import Row, RunReport, run_report, runs_of
from deltawitness.report.runs import print_run, print_runs
from deltawitness.report.summary import summary_lines

__all__ = ["runs_command", "show_command"]

STATUSES = ("ok", "error", "abandoned", "reconstructed")
"""How a run ends, as `deltawitness.ledger.runs.RunStatus` says: importing that is heavy."""


def _status(text: str) -> str:
    if text not in STATUSES:
        msg = f"expected one of {', '.join(STATUSES)}"
        raise typer.BadParameter(msg)
    return text


def runs_command(
    job: Annotated[str | None, typer.Option(help="Of this job.")] = None,
    status: Annotated[
        str | None,
        typer.Option(
            parser=_status, metavar="STATUS", help=f"Filter by status: {', '.join(STATUSES)}."
        ),
    ] = None,
    since: Annotated[dt.datetime | None, SinceOption] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List finished runs, newest first."""
    with of_ledger(root, "read"):
        rows = runs_of(existing_ledger(root), job=job, status=status, since=since, limit=limit)
    if as_json:
        print_json(rows)
    else:
        print_runs(console(sys.stdout), rows)


def show_command(
    run_id: Annotated[str, typer.Argument(help="The run's id, or how it begins.")],
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show one run: the runs opened in it, what was done to which table, and what failed."""
    with of_ledger(root, "read"):
        told = run_report(existing_ledger(root), run_id)
    if as_json:
        print_json(_told_json(told))
    else:
        print_run(console(sys.stdout), told)


def _told_json(told: RunReport) -> dict[str, Any]:
    return {
        "run": told.run,
        "children": _children_json(told, told.run["run_id"]),
        "total": told.total(),
        "tables": summary_lines(told.summary),
        "failed": told.failed,
    }


def _children_json(told: RunReport, run_id: str) -> list[Row]:
    return [
        {**child, "children": _children_json(told, child["run_id"])}
        for child in told.children.get(run_id, [])
    ]
