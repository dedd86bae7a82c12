"""Queries of the commands for the cache; they return rows as dictionaries."""

from __future__ import annotations

from deltawitness.answers.lookup import find_run_id
from deltawitness.answers.predicates import equal
from deltawitness.answers.run_report import run_family
from deltawitness.ledger.tables.listing import LedgerListing, Row
from deltawitness.ledger.tables.literals import is_in
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.semconv import CacheOperation, CacheResult

__all__ = ["Row", "rewritable_writes"]


_MAINTENANCE = ("optimize", "vacuum", "checkpoint", "cleanup", "create", "snapshot")
"""Operations that change no row."""


def rewritable_writes(ledger: LedgerListing, prefix: str) -> tuple[str, list[Row]]:
    """Return the id of a run, and the writes of rows in it and in its child runs, oldest first.

    Args:
        ledger: the ledger to query.
        prefix: the id of the run, or an unambiguous prefix of it.

    Raises:
        LedgerLookupError: the ledger has no such run, or the prefix is that of several.
    """
    run_id = find_run_id(ledger, prefix)
    changes_rows = f"NOT {is_in('cache_operation', _MAINTENANCE)}"
    # A distributed write creates its table together with the rows.
    creates_rows = f"cache_operation = '{CacheOperation.CREATE.value}' AND rows_added > 0"
    conditions = [
        is_in("run_id", run_family(ledger, run_id)),
        *equal("result", CacheResult.WRITE.value),
        f"({changes_rows} OR {creates_rows})",
    ]
    return run_id, ledger.rows(INVENTORY, conditions, order="event_time")
