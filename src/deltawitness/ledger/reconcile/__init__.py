"""Reconcile: compare the ledger with the logs of tables, and add rows that are missing.

`targets` selects tables, `log_reader` reads their logs, `writes` groups commits by write,
`inventory_index` and `mismatches` compare with the ledger, `rows_from_log` and `runs_from_log`
rebuild rows, `plan` appends them and advances the `watermarks`. `scan` calls these in order.

`inferred_runs` groups the commits of other programs into runs for an adopt; `adoption` has its result.
"""
