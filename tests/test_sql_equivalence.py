"""SQL writes leave the same rows in a Delta table as in a table of another engine.

The reference is DataFusion's in-memory table where it can run the statement, and DuckDB where it
cannot: MERGE, TRUNCATE, INSERT OVERWRITE, and subqueries, which the in-memory table gets wrong
(`DELETE ... WHERE id IN (SELECT 3)` deletes every row).
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections import Counter

import duckdb
import pyarrow as pa
import pytest
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltawitness import ObservedSessionContext
from helpers.sql_statements import PARTITIONS, SCHEMA, SOURCE_SCHEMA, rows, source_rows, statements

pytestmark = pytest.mark.slow

SEQUENCES = {"long": 2_500, "ci": 400}.get(os.environ.get("DELTAWITNESS_TEST_SIZE"), 130)

FAULTS = ("__common_expr", "need to have the same data type")
"""What the table in memory fails with: filters with a common part, and a CASE of several types."""

counted: Counter[str] = Counter()


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
    """The rows in a defined order, with values that can be compared with each other."""
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


@pytest.fixture(scope="module")
def place(tmp_path_factory, say):
    """The directory of the tables of each sequence."""
    yield tmp_path_factory.mktemp("equivalence")
    statements = {name: count for name, count in counted.items() if name != "sequences"}
    say(f"equivalence: {counted['sequences']} sequences, statements by reference: {statements}")


@pytest.mark.timeout(600)
@settings(
    max_examples=SEQUENCES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
@given(
    rows=rows,
    source=source_rows,
    partition_by=st.sampled_from(PARTITIONS),
    files=st.integers(1, 3),
    sequence=st.lists(statements, min_size=1, max_size=5),
)
def test_a_delta_table_holds_what_the_reference_holds(
    place, rows, source, partition_by, files, sequence
):
    """After each statement, the rows and the count of changed rows equal the reference's."""
    shutil.rmtree(place)
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    write_deltalake(place / "t", table.slice(0, 0), partition_by=partition_by)
    for number in range(files):
        part = pa.Table.from_pylist(rows[number::files], schema=SCHEMA)
        write_deltalake(place / "t", part, mode="append")
    write_deltalake(place / "src", pa.Table.from_pylist(source, schema=SOURCE_SCHEMA))
    ctx = ObservedSessionContext()
    ctx.register_table("t", DeltaTable(place / "t"))
    ctx.register_delta("src", place / "src")
    reference = Reference(table, pa.Table.from_pylist(source, schema=SOURCE_SCHEMA))
    counted["sequences"] += 1
    for sql in sequence:
        (count,) = ctx.sql(sql).to_pydict()["count"]
        rows_now = in_order(pa.table(ctx.table("t")))

        def is_right(table, said, count=count, rows_now=rows_now):
            return (in_order(table), said) == (rows_now, count)

        expected = reference.run(sql, is_right)
        assert rows_now == in_order(reference.table), sql
        if not sql.startswith("TRUNCATE"):
            assert count == expected, sql
