"""`deltawitness bisect`: the first version of a table that is wrong, and what made it so."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from deltawitness.answers.bisect import CHECKS, DEPTH, answer_bisect
from deltawitness.answers.bisect_values import BisectResult
from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.ledger_option import (
    RootOption,
    exit_on_ledger_error,
    listed_ledger,
    settings_of,
)
from deltawitness.report.bisect import print_bisect

__all__ = ["bisect_command"]

NOT_FOUND = 3
"""Exit code if no tested version is bad, or the oldest one already is."""


def bisect_command(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE[@VERSION]",
            help="Name, id (or a prefix of it), path or URI. Versions after VERSION are left out.",
        ),
    ],
    bad: Annotated[
        str,
        typer.Option(
            metavar="SQL",
            help="True for a bad version: a condition on a row ('euros < 0'), on all rows"
            " ('count(*) = 0'), or a query of one boolean value over the table t.",
        ),
    ],
    good: Annotated[
        int | None,
        typer.Option(min=0, metavar="VERSION", help="A good version: the search starts after it."),
    ] = None,
    checks: Annotated[
        int, typer.Option(min=0, help="Versions to test beyond the search; many test all.")
    ] = CHECKS,
    depth: Annotated[
        int, typer.Option(min=1, help="Maximum number of tables, one an input of the other.")
    ] = DEPTH,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Find the first bad version of a table, its commit and run, and the inputs that show the cause.

    Exits 0 if there is a first bad version, 3 if no tested version is bad or the oldest one already is, 1
    if there is no such table or the SQL is invalid, 2 if the command line or a setting is.

    Example:
    deltawitness bisect report --bad 'euros < 0'
    """
    with exit_on_ledger_error(root, "read"):
        found = answer_bisect(
            listed_ledger(root, is_required=False),
            table,
            bad,
            good=good,
            checks=checks,
            depth=depth,
            settings=settings_of(root),
        )
    if as_json:
        print_json({"kind": "bisect", **_json(found)})
    else:
        print_bisect(console(sys.stdout), found)
    if not found.is_found:
        raise typer.Exit(NOT_FOUND)


def _json(found: BisectResult) -> dict[str, Any]:
    inputs = [
        {
            **asdict(each),
            "is_changed": each.is_changed,
            "cause": None if each.cause is None else _json(each.cause),
        }
        for each in found.inputs
    ]
    more = {"is_found": found.is_found, "good_again": found.good_again, "inputs": inputs}
    return {**asdict(found), **more}
