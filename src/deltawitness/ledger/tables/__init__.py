"""The tables of the ledger: schemas, locations, rows from events, and frames to query them."""
