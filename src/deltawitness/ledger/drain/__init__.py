"""Draining: append records from spools to the tables of the ledger, each exactly once.

`recorder` writes a process's spool; it consists of `open_runs`, the bookkeeping of runs, and
`drain_thread`, which decides when to drain. `drain` appends batches, `dedup` drops rows that a
table already has, `process` drains in a helper process, and `maintenance` compacts the tables and
deletes files past their retention.
"""
