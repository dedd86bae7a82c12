"""OpenLineage: send each write as run events, and replay the ledger as such events."""
