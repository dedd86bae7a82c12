"""The command line: run a program observed, list its writes, and check and repair the ledger."""

from __future__ import annotations

import sys

from deltawitness.command_interrupt import INTERRUPTED, exit_at_interrupt, raise_at_interrupt

__all__ = ["main"]


def main() -> None:
    """Run the command line; an interrupt (SIGINT) ends it with 130."""
    exit_at_interrupt()
    try:
        # Imported here: an interrupt of the import is an interrupt of the command.
        from deltawitness.cli.app import main as run  # noqa: PLC0415 - as above
    except ImportError as missing:
        sys.stderr.write(
            f"deltawitness: {missing.name} is not installed: pip install 'deltawitness[cli]'\n"
        )
        raise SystemExit(2) from None
    try:
        raise_at_interrupt()
        run()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
