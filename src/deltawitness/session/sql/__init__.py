"""SQL statements on Delta tables: DataFusion plans them, delta-rs writes.

`router` decides where a statement goes. `dml`, `merge`, `create_table` and `commands` execute it,
with `delta_sql` to translate expressions for delta-rs and `frame_writer` to stream rows into a table.
"""
