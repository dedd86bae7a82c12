"""`deltawitness writes`: the operations of the ledger."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Annotated

import typer

from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.durations import SinceOption
from deltawitness.cli.ledger_option import RootOption, listed_ledger, of_ledger
from deltawitness.cli.ledger_queries import list_writes, similar_run_ids
from deltawitness.report.writes import print_writes
from deltawitness.semconv import CacheResult

__all__ = ["writes_command"]


def writes_command(
    table: Annotated[
        str | None, typer.Option(help="Of this table: its name, its id or where it lies.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Of this run: its id, or how it begins.")] = None,
    since: Annotated[dt.datetime | None, SinceOption] = None,
    result: Annotated[CacheResult | None, typer.Option(help="Ended so.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List what was done to tables, newest first."""
    with of_ledger(root, "read"):
        ledger = listed_ledger(root)
        rows = list_writes(ledger, table=table, run=run, since=since, result=result, limit=limit)
        similar = [] if as_json else similar_run_ids(ledger, rows)
    if as_json:
        print_json(rows)
    else:
        print_writes(console(sys.stdout), rows, similar)
