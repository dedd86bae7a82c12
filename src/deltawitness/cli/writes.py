"""`deltawitness writes`: list operations."""

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
from deltawitness.report.writes import print_writes
from deltawitness.semconv import CacheResult, ExpectationResult

__all__ = ["writes_command"]


def _parse_result(text: str) -> CacheResult:
    """Parse a result, which may be followed by `: reason` as in the listing.

    Raises:
        typer.BadParameter: the text is no result.
    """
    try:
        return CacheResult(text.partition(":")[0].strip())
    except ValueError:
        msg = f"expected one of {', '.join(CacheResult)}"
        raise typer.BadParameter(msg) from None


def writes_command(
    table: Annotated[
        str | None,
        typer.Option(help="Filter by table: its name, id (or a prefix of it), path or URI."),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Filter by run: its id, or an unambiguous prefix of it.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Filter by job name.")] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Filter by the author of the run (DELTAWITNESS_AUTHOR), in any case."),
    ] = None,
    operation: Annotated[
        str | None,
        typer.Option(help="Filter by operation, such as DELETE or 'WRITE append', in any case."),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=0, help="Filter by a version that the operation committed.")
    ] = None,
    since: Annotated[dt.datetime | None, SinceOption] = None,
    result: Annotated[
        CacheResult | None,
        typer.Option(
            parser=_parse_result,
            metavar="RESULT",
            help=f"Filter by result: {', '.join(CacheResult)}.",
        ),
    ] = None,
    expectation: Annotated[
        ExpectationResult | None,
        typer.Option(help="Filter by the result of the expectations of the write."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows.")] = 20,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List operations on tables, newest first.

    Exits 1 if there is no ledger or it cannot be read, 2 if the command line or a setting is invalid.
    """
    chosen = WriteFilter(
        table=table,
        run=run,
        job=job,
        user=user,
        operation=operation,
        version=version,
        result=result,
        since=since,
        expectation=expectation,
    )
    with exit_on_ledger_error(root, "read"):
        ledger = listed_ledger(root)
        rows = list_writes(ledger, chosen, limit=limit, prefix="--")
        similar = [] if as_json else similar_run_ids(ledger, rows)
    if as_json:
        print_json(rows)
    else:
        print_writes(console(sys.stdout), rows, similar)
