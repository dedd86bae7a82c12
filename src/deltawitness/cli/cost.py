"""`deltawitness cost`: what jobs have written, rewritten, and left on the storage."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.durations import SinceOption
from deltawitness.cli.ledger_option import (
    RootOption,
    exit_on_ledger_error,
    listed_ledger,
    settings_of,
)
from deltawitness.report.cost import print_cost

__all__ = ["cost_command"]


def cost_command(
    tables: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TABLE",
            help="Names, ids, paths or URIs of tables, folders of tables, or globs; by default all tables"
            " of the ledger.",
        ),
    ] = None,
    job: Annotated[str | None, typer.Option(help="Filter by job name.")] = None,
    since: Annotated[dt.datetime | None, SinceOption] = None,
    files: Annotated[
        bool,
        typer.Option(
            "--files/--no-files",
            help="List the files on the storage, to find those of old versions.",
        ),
    ] = True,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show what each job has written, its write amplification, and the bytes that old versions hold.

    Exits 1 if a table or the ledger is unknown or cannot be read, 2 if the command line or a setting is
    invalid.

    Examples:
    deltawitness cost --since 30d

    deltawitness cost orders --job load --json
    """
    from deltawitness.answers.cost import cost  # noqa: PLC0415 - heavy

    with exit_on_ledger_error(root, "read"):
        listed_ledger(root)  # its error message names the options
        found = cost(*(tables or ()), job=job, since=since, files=files, settings=settings_of(root))
    if as_json:
        jobs = [{**asdict(each), "amplification": each.amplification} for each in found.jobs]
        print_json({"kind": "cost", "jobs": jobs, "notes": found.notes})
    else:
        print_cost(console(sys.stdout), found)
