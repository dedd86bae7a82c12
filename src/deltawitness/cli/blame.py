"""`deltawitness blame`: the commits and runs that wrote rows as they are."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deltawitness.answers.blame import LIMIT, answer_blame
from deltawitness.answers.json_values import json_value
from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.ledger_option import (
    RootOption,
    exit_on_ledger_error,
    listed_ledger,
    settings_of,
)
from deltawitness.report.blame import print_blame

__all__ = ["blame_command"]

NO_ROW = 3
"""Exit code if no row meets the condition."""


def blame_command(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE[@VERSION]", help="Name, id (or a prefix of it), path or URI."
        ),
    ],
    where: Annotated[
        str, typer.Option(metavar="SQL", help="Condition of the rows, such as 'id = 42'.")
    ],
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of different rows.")] = LIMIT,
    show_rows: Annotated[
        bool, typer.Option("--show-rows", help="Print the values of the rows; else only commits.")
    ] = False,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Find the commits and runs that wrote rows as they are; commits that only copied them do not count.

    Exits 3 if no row meets the condition, 1 if there is no such table or the SQL is invalid, 2 if the
    command line or a setting is.

    Example:
    deltawitness blame orders --where 'id = 42'
    """
    with exit_on_ledger_error(root, "read"):
        found = answer_blame(
            listed_ledger(root, is_required=False),
            table,
            where,
            limit=limit,
            show_rows=show_rows,
            settings=settings_of(root),
        )
    if as_json:
        print_json({"kind": "blame", **json_value(found), "versions": found.versions})
    else:
        print_blame(console(sys.stdout), found)
    if not found.rows:
        raise typer.Exit(NO_ROW)
