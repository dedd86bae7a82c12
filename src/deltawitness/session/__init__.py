"""DataFusion sessions, observed: proxies for programs that use ours, patches for those that do not.

`proxies` and `patches` send each method of the engine to a handler (`context_handlers`,
`frame_handlers`, `catalog_handlers`). A handler uses the state of the session (`core`); a SQL
statement goes through `sql.router` to DataFusion or to delta-rs.
"""
