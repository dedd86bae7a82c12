"""`deltawitness drain`, `ledger optimize` and `ledger verify`: import spools, compact and check."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deltawitness.cli.console import FAILED, JsonOption, console, print_error, print_json
from deltawitness.cli.ledger_option import RootOption, existing_ledger, exit_on_ledger_error
from deltawitness.report.maintenance import print_drained, print_maintained, print_verification

__all__ = ["drain_command", "optimize_command", "verify_command"]


def drain_command(
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Import the spools of dead processes into the ledger. Exits 1 if any is left."""
    from deltawitness.ledger.spool.reader import adopt  # noqa: PLC0415 - heavy

    with exit_on_ledger_error(root, "written"):
        ledger = existing_ledger(root, or_spools=True)
        drained = ledger.drain()
        left = sum(1 for _ in adopt(ledger.spools))
    if as_json:
        print_json({**asdict(drained), "left": left})
    else:
        print_drained(console(sys.stdout), drained)
    if left:
        print_error(
            f"the spools of {left} dead processes could not be imported and stay where they are"
        )
        raise typer.Exit(FAILED)


def optimize_command(
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Compact the ledger's tables, and delete files that no version of the last 7 days needs."""
    with exit_on_ledger_error(root, "maintained"):
        maintained = existing_ledger(root).optimize()
    if as_json:
        print_json([asdict(table) for table in maintained])
    else:
        print_maintained(console(sys.stdout), maintained)


def verify_command(
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Check the ledger for duplicate, contradictory or unreadable rows. Exits 1 if there are any."""
    with exit_on_ledger_error(root, "read"):
        verification = existing_ledger(root).verify()
    if as_json:
        print_json({"is_good": verification.is_good, **asdict(verification)})
    else:
        print_verification(console(sys.stdout), verification)
    if not verification.is_good:
        raise typer.Exit(FAILED)
