"""`deltawitness overdue`: what is late, empty or far from its own past."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deltawitness.answers.trends.overdue import TOLERANCE, read_overdue
from deltawitness.cli.console import (
    FAILED,
    JsonOption,
    console,
    errors_exit_with_2,
    print_json,
)
from deltawitness.cli.durations import AtOption, SinceOption
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, listed_ledger
from deltawitness.report.trends import print_overdue

__all__ = ["overdue_command"]


def overdue_command(
    table: Annotated[
        str | None,
        typer.Argument(
            metavar="[TABLE]", help="Name, id (or a prefix of it), path or URI; all by default."
        ),
    ] = None,
    since: Annotated[dt.datetime | None, SinceOption] = None,
    at: Annotated[dt.datetime | None, AtOption] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.1, help="Standard deviations that are not unusual.")
    ] = TOLERANCE,
    show_all: Annotated[
        bool, typer.Option("--all", help="Print every table, also those that are not late.")
    ] = False,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List late tables, runs that changed nothing, and unusual numbers of rows.

    What is usual is learned from the history. Without --since, the last run of each job is judged. Exits 0
    if nothing is late or unusual, 1 if something is, 2 after any error.

    Examples:
    deltawitness overdue

    deltawitness overdue orders --all
    """
    with errors_exit_with_2(), exit_on_ledger_error(root, "read"):
        ledger = listed_ledger(root)
        found = read_overdue(ledger, table, at=at, since=since, tolerance=tolerance, option="--")
    if as_json:
        print_json({"kind": "overdue", "is_ok": found.is_ok, **asdict(found)})
    else:
        print_overdue(console(sys.stdout), found, show_all=show_all)
    if not found.is_ok:
        raise typer.Exit(FAILED)
