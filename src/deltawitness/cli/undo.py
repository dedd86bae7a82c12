"""`deltawitness undo`: restore the tables that a run wrote."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deltawitness.answers.undo_plan import UndoPlan, UndoState
from deltawitness.cli.console import FAILED, JsonOption, console, print_json
from deltawitness.cli.ledger_option import (
    RootOption,
    exit_on_ledger_error,
    listed_ledger,
    settings_of,
)
from deltawitness.report.undo import print_undo

__all__ = ["undo_command"]

CREATED = 3
"""Exit code if tables that the run created stay, and no other table does."""


def undo_command(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Id of the run, or a prefix that no other run has.")
    ],
    apply: Annotated[
        bool, typer.Option("--apply", help="Restore the tables; else only print the plan.")
    ] = False,
    discard_later: Annotated[
        bool,
        typer.Option(
            "--discard-later",
            help="Also restore tables with later commits of others, and discard these.",
        ),
    ] = False,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Restore the tables that a run and its child runs wrote to the versions before the run.

    Exits 1 if a table is refused or could not be restored, 3 if only tables remain that the run created
    (they are never dropped). It exits 2 if the command line or a setting is invalid.

    Examples:
    deltawitness undo 01a2108d-76d3

    deltawitness undo 01a2108d-76d3 --apply
    """
    from deltawitness.answers.undo import undo  # noqa: PLC0415 - it imports the instrumentation

    with exit_on_ledger_error(root, "read"):
        if not apply:
            listed_ledger(root)  # its error message names the options
        plan = undo(run, apply=apply, discard_later=discard_later, settings=settings_of(root))
    if as_json:
        print_json({**asdict(plan), "is_complete": plan.is_complete})
    else:
        print_undo(console(sys.stdout), plan)
    _exit(plan)


def _exit(plan: UndoPlan) -> None:
    if plan.in_state(UndoState.REFUSED, UndoState.FAILED):
        raise typer.Exit(FAILED)
    if plan.in_state(UndoState.CREATED):
        raise typer.Exit(CREATED)
