"""The ledger: Delta tables with a row per write, run and metadata snapshot.

A finished write goes to the spool of its process (`spool`), a drain appends spools to the tables
(`drain`, `tables`), and a reconcile adds rows for commits that are found only in the logs of the
written tables (`reconcile`). `ledger` is the public class, `integrity` checks a ledger.
"""
