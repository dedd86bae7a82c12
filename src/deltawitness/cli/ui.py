"""`deltawitness ui`: browse a ledger in the terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deltawitness.cli.console import MISUSED, CommandError
from deltawitness.cli.ledger_option import RootOption, exit_on_ledger_error, settings_of
from deltawitness.extras import is_installed

__all__ = ["ui_command"]


def ui_command(root: Annotated[str | None, RootOption] = None) -> None:
    """Browse a ledger in the terminal: runs, writes, versions, lineage, cache and health.

    It needs the extra `ui`, and works over SSH, with keyboard and mouse. It only reads. Exits 2 without
    the extra or without a terminal.
    """
    with exit_on_ledger_error(root, "read"):
        if not is_installed("textual"):
            msg = "deltawitness ui needs Textual: pip install 'deltawitness[ui]'"
            raise CommandError(msg, MISUSED)
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            msg = "deltawitness ui needs a terminal: use `deltawitness writes` in a pipe"
            raise CommandError(msg, MISUSED)
        settings = settings_of(root)
        from deltawitness.ui.app import LedgerApp  # noqa: PLC0415 - heavy

        app = LedgerApp(settings)
        app.run()
    raise typer.Exit(app.return_code or 0)
