"""Draining: append records from spools to the tables of the ledger, each exactly once.

`recorder` writes a process's spool; it consists of `open_runs`, the bookkeeping of runs, and
`drain_thread`, which decides when to drain. `drain` appends batches, `dedup` drops rows that a
table already has, `abandoned` counts the operations of runs whose process died, `process` drains in
a helper process, `serve` drains for all processes of a host, `fold` moves the rows of shards to the
main tables, `maintenance` compacts the tables and deletes files past their retention, and `expire`
deletes old rows.
"""
