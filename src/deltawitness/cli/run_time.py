"""`deltawitness time`: where the time of a run went."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deltawitness.answers.run_time import time
from deltawitness.cli.console import JsonOption, console, print_json
from deltawitness.cli.ledger_option import (
    RootOption,
    exit_on_ledger_error,
    listed_ledger,
    settings_of,
)
from deltawitness.report.run_time import print_time

__all__ = ["time_command"]


def time_command(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Id of the run, or a prefix that no other run has.")
    ],
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show where the time of a run and its child runs went, by table and operation.

    Exits 1 if there is no such run or ledger, 2 if the command line or a setting is invalid.

    Examples:
    deltawitness time 01a2108d-76d3
    """
    with exit_on_ledger_error(root, "read"):
        listed_ledger(root)  # its error message names the options
        found = time(run, settings=settings_of(root))
    if as_json:
        print_json({"kind": "time", **asdict(found)})
    else:
        print_time(console(sys.stdout), found)
