"""Draining: records from spools into the tables of the ledger, each exactly once.

`recorder` is the owner of a process's spool and of its drain thread, `drain` appends batches,
`dedup` drops rows that a table already has, `process` drains in a helper process, and
`maintenance` compacts the tables and deletes what is no longer needed.
"""
