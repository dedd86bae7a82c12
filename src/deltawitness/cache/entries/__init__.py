"""Entries of a cache: where they are stored, how they are written, locked, and deleted.

`definitions` says what computes an entry, `locks` lets one process compute it, `writer` commits it,
`store` finds and parses it, `plan_store` stores its plan, `prune` deletes expired entries.
"""
