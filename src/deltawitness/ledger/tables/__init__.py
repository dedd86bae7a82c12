"""The tables of the ledger: schemas, locations, rows made from events, and frames to query them."""
