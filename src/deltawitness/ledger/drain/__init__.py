"""Draining: append records from spools to the tables of the ledger, each exactly once.

`recorder` owns a process's spool and its drain thread, `drain` appends batches, `dedup` drops rows
that a table already has, `process` drains in a helper process, and `maintenance` compacts the
tables and deletes files past their retention.
"""
