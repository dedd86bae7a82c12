"""State of one DataFusion session: its Delta tables, open handles, frames and the names they resolve to.

`state` owns the tables of a session, `snapshot` resolves names at one version of each, `frames`
attaches to each frame what its plan does not hold, and `unpatched` calls the engine without the patches.
SQL statements are handled in `deltawitness.session.sql`.
"""
