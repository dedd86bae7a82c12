"""`deltawitness runs`: list runs."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Annotated

import typer

from deltawitness.answers.lists import list_runs
from deltawitness.answers.lookup import similar_run_ids
from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.durations import SinceOption
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, listed_ledger
from deltawitness.ledger.tables.schema import RUNS
from deltawitness.report.runs import print_runs

__all__ = ["runs_command"]

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
    """List finished runs, newest first.

    Exits 1 if there is no ledger or it cannot be read, 2 if the command line or a setting is invalid.
    """
    with exit_on_ledger_error(root, "read"):
        ledger = listed_ledger(root, first=RUNS)
        rows = list_runs(ledger, job=job, status=status, since=since, limit=limit)
        similar = [] if as_json else similar_run_ids(ledger, rows)
    if as_json:
        print_json(rows)
    else:
        print_runs(console(sys.stdout), rows, similar)
