"""The ledger: what each run wrote, when, from which inputs and with which result, as Delta tables.

A finished write goes to the spool of its process (`spool`), a drain moves spools into the tables
(`drain`, `tables`), and a reconcile adds what only the logs of the written tables know (`reconcile`).
`ledger` is the public class, `integrity` checks the whole.
"""
