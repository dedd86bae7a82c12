"""Entries of a cache: where they are stored, how they are written, locked, and deleted.

`definitions` has what computes an entry, `locks` admits one process at a time, `writer` commits it,
`store` finds and parses it, `plan_store` stores its plan, `prune` deletes expired entries.
"""
