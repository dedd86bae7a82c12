"""Entries whose source is not a query: datasets, artifacts, and snapshots of a session's metadata."""
