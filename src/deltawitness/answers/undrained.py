"""The hint to import spools, for answers that may lack rows of dead processes."""

from __future__ import annotations

from contextlib import suppress

from deltawitness.ledger.tables.listing import LedgerListing

__all__ = ["NOT_DRAINED", "has_undrained", "undrained_hint"]

NOT_DRAINED = "spools of dead processes are not imported yet: run `deltawitness drain`"


def has_undrained(ledger: LedgerListing) -> bool:
    """Return whether rows of dead processes are not in the ledger yet; False if the spools cannot be read.

    Args:
        ledger: the ledger, with the folder of its spools.
    """
    if ledger.spools is None:
        return False
    from deltawitness.ledger.drain.recorder import recorder_of  # noqa: PLC0415 - heavy
    from deltawitness.ledger.spool.reader import has_abandoned  # noqa: PLC0415 - rarely needed

    own = recorder_of(ledger.root)
    with suppress(OSError):  # a folder of another user
        return has_abandoned(ledger.spools, None if own is None else own.home)
    return False


def undrained_hint(ledger: LedgerListing) -> str:
    """Return the end of an error message about rows that the ledger lacks; empty if no spool may have them."""
    return f"; {NOT_DRAINED}" if has_undrained(ledger) else ""
