"""A second engine that executes the same statements, to compare rows with."""

from __future__ import annotations

import math
import re
from collections import Counter

import duckdb
import pyarrow as pa
from datafusion import SessionContext

from helpers.sql_statements import SCHEMA, SOURCE_SCHEMA

FAULTS = ("__common_expr", "need to have the same data type")
"""What the table in memory fails with: filters with a common part, and a CASE of several types."""


counted: Counter[str] = Counter()
"""How often each engine computed the rows of a statement."""


class Reference:
    """The table and its source in another engine."""

    def __init__(self, table, source):
        self.table = table
        self.source = source

    def run(self, sql, is_right):
        """Run a statement and return its row count.

        DuckDB runs the statements that the in-memory table gets wrong: it treats a filter that folds to
        NULL or to false as no filter.
        """
        has_no_form = sql.startswith(("MERGE", "TRUNCATE", "INSERT OVERWRITE"))
        before = self.table
        if not has_no_form and "(SELECT" not in sql:
            try:
                count = self._in_memory(sql)
            except Exception as error:
                if not any(fault in str(error) for fault in FAULTS):
                    raise
                count = None
            if is_right(self.table, count):
                counted["DataFusion"] += 1
                return count
            counted["DataFusion, overruled"] += 1
        self.table = before
        counted["DuckDB"] += 1
        return self._in_duckdb(sql)

    def _in_memory(self, sql):
        ctx = SessionContext()
        ctx.register_record_batches("source_rows", [self.table.to_batches() or [_empty(SCHEMA)]])
        ctx.sql("CREATE TABLE t AS SELECT * FROM source_rows").collect()
        ctx.register_record_batches("src", [self.source.to_batches() or [_empty(SOURCE_SCHEMA)]])
        count = ctx.sql(sql).collect()[0]["count"][0].as_py()
        self.table = pa.table(ctx.table("t")).cast(SCHEMA)
        return count

    def _in_duckdb(self, sql):
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for name, table in (("t", self.table), ("src", self.source)):
                connection.register(f"{name}_rows", table)
                connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_rows")
            if sql.startswith("INSERT OVERWRITE t"):
                count = self._overwrite(connection, sql)
            else:
                (count,) = connection.execute(sql).fetchone()
            self.table = connection.sql("SELECT * FROM t").to_arrow_table().cast(SCHEMA)
            return count

    @staticmethod
    def _overwrite(connection, sql):
        columns, query = re.fullmatch(r"INSERT OVERWRITE t (\(.*?\) )?(SELECT .*)", sql).groups()
        connection.execute(f"CREATE TABLE new_rows AS {query}")
        connection.execute("DELETE FROM t")
        return connection.execute(
            f"INSERT INTO t {columns or ''}SELECT * FROM new_rows"
        ).fetchone()[0]


def _empty(schema):
    return pa.RecordBatch.from_pylist([], schema=schema)


def in_order(table):
    """Return the rows in a defined order, with comparable values."""
    return sorted(repr(_plain(row)) for row in table.to_pylist())


def _plain(value):
    match value:
        case float():
            # DISTINCT merges 0.0 and -0.0, which are equal in SQL.
            return "NaN" if math.isnan(value) else value + 0.0
        case dict():
            return {key: _plain(member) for key, member in value.items()}
        case list():
            return [_plain(member) for member in value]
    return value
