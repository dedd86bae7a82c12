"""Distributed writes: workers write the files of a Delta table, and the driver makes one commit.

`write` is the public call. `target` checks the table, `parts` and `engines` pass the parts to workers,
`staging` runs on a worker, `schemas` compares the results, and `commit` adds the files to the table.
"""
