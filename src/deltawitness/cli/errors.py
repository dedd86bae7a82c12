"""`deltawitness errors`: list failed operations."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Annotated

import typer

from deltawitness.answers.lists import WriteFilter, list_writes
from deltawitness.answers.lookup import similar_run_ids
from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.durations import SinceOption
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, listed_ledger
from deltawitness.report.failures import print_errors
from deltawitness.semconv import CacheResult

__all__ = ["errors_command"]


def errors_command(
    since: Annotated[dt.datetime | None, SinceOption] = None,
    job: Annotated[str | None, typer.Option(help="Filter by job name.")] = None,
    table: Annotated[
        str | None,
        typer.Option(help="Filter by table: its name, id (or a prefix of it), path or URI."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows.")] = 20,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List failed operations of all runs, newest first; exits 0 also if there are some.

    Exits 1 if there is no ledger or it cannot be read, 2 if the command line or a setting is invalid.
    """
    chosen = WriteFilter(since=since, job=job, table=table, result=CacheResult.ERROR)
    with exit_on_ledger_error(root, "read"):
        ledger = listed_ledger(root)
        rows = list_writes(ledger, chosen, limit=limit, prefix="--")
        similar = [] if as_json else similar_run_ids(ledger, rows)
    if as_json:
        print_json(rows)
    else:
        print_errors(console(sys.stdout), rows, similar)
