"""The command line: run a program observed, list its writes, and check and repair the ledger."""

from __future__ import annotations

import sys

try:
    from deltawitness.cli.app import main
except ImportError as _missing:
    sys.stderr.write(
        f"deltawitness: {_missing.name} is not installed: pip install 'deltawitness[cli]'\n"
    )
    raise SystemExit(2) from None

__all__ = ["main"]
