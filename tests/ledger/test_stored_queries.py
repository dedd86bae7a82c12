"""The result of a query that the ledger's engine stores is read like a table, from memory or again from the files."""

from __future__ import annotations

import pytest

from deltawitness.ledger.tables import listing as listing_module
from deltawitness.ledger.tables.listing import LedgerListing
from deltawitness.ledger.tables.schema import LedgerRoot
from helpers.report_ledgers import operation, run_row, write_ledger


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A ledger of three operations and two runs."""
    inventory = [operation(number, version=number) for number in range(3)]
    runs = [run_row(0), run_row(30, status="error")]
    return LedgerRoot(write_ledger(tmp_path_factory.mktemp("stored"), inventory, runs))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1_000], ids=["view", "memory"])
def test_a_stored_query_can_be_named(root, limit, monkeypatch):
    """Its name can be that of a table, and storing it again replaces it."""
    monkeypatch.setattr(listing_module, "MAX_STORED", limit)
    ledger = LedgerListing(root)
    ledger.store("operations", "SELECT version FROM inventory WHERE version > 0")
    found = ledger.query("SELECT version FROM operations ORDER BY version")
    assert found == [{"version": 1}, {"version": 2}]
    ledger.store("runs", "SELECT run_id, status FROM runs", "SELECT run_id FROM run_parts")
    assert ledger.query("SELECT status FROM runs ORDER BY run_id") == [
        {"status": "ok"},
        {"status": "error"},
    ]
    assert ledger.query("SELECT count(*) AS count FROM run_parts, inventory") == [{"count": 6}]
    ledger.store("operations", "SELECT version FROM inventory WHERE version > 1")
    assert ledger.query("SELECT version FROM operations") == [{"version": 2}]
