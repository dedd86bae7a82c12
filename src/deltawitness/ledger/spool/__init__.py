"""The spool: a local, append-only journal per process, drained into the ledger later.

`provisional` builds the record of a write on its caller's thread, `records` encodes records,
`writer` appends them, `reader` finds the segments to drain, `host` finds those of the other live
processes of the host, and `supervisor` adds how the process ended.
"""
