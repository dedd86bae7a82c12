"""The command line: runs a program observed, asks the ledger what was written, keeps it true."""

from __future__ import annotations

import sys

try:
    from deltawitness.cli.app import main
except ImportError as missing:
    sys.stderr.write(
        f"deltawitness: {missing.name} is not installed: pip install 'deltawitness[cli]'\n"
    )
    raise SystemExit(2) from None

__all__ = ["main"]
