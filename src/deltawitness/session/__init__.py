"""Observe DataFusion sessions: through proxy classes, or through patches of DataFusion's own classes.

`proxies` and `patches` send each method of the engine to a handler (`context_handlers`,
`frame_handlers`, `catalog_handlers`). A handler uses the state of the session (`core`); a SQL
statement goes through `sql.router` to DataFusion or to delta-rs.
"""
