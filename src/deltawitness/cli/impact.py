"""`deltawitness impact`: which tables depend on a table, and whether they are stale."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from deltawitness.answers.impact import read_impact
from deltawitness.answers.impact_report import Dependent, Impact
from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, listed_ledger
from deltawitness.report.impact import print_impact

__all__ = ["impact_command"]


def impact_command(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE[@VERSION]",
            help="Name, id (or a prefix of it), path or URI. With a version, only what has read this"
            " version or a later one.",
        ),
    ],
    depth: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of levels; by default all.")
    ] = None,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List the tables that depend on a table, and which are stale; exits 0 also if there are some.

    Exits 1 if the ledger has no such table or version, or several; 2 if the command line or a setting is
    invalid.
    """
    with exit_on_ledger_error(root, "read"):
        found = read_impact(listed_ledger(root), table, depth=depth)
    if as_json:
        print_json(_impact_json(found))
    else:
        print_impact(console(sys.stdout), found)


def _impact_json(found: Impact) -> dict[str, Any]:
    dependents = [_dependent_json(each) for each in found.dependents]
    return {"kind": "impact", **asdict(found), "dependents": dependents}


def _dependent_json(dependent: Dependent) -> dict[str, Any]:
    inputs = [{**asdict(each), "is_stale": each.is_stale} for each in dependent.inputs]
    state = {"is_stale": dependent.is_stale, "stale_since": dependent.stale_since}
    return {**asdict(dependent), **state, "inputs": inputs}
