"""The spool: a local, append-only journal of each process, drained into the ledger later.

`provisional` builds the record of a write while its thread waits, `records` encodes it, `writer`
appends it, `reader` finds the segments to drain, `supervisor` adds how the process ended.
"""
