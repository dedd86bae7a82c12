"""SQL writes leave the same rows in a Delta table as in a table of another engine.

The reference is DataFusion's in-memory table where it can run the statement, and DuckDB where it
cannot: MERGE, TRUNCATE, INSERT OVERWRITE, and subqueries, which the in-memory table gets wrong
(`DELETE ... WHERE id IN (SELECT 3)` deletes every row).
"""

from __future__ import annotations

import os
import shutil

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawitness import ObservedSessionContext
from helpers.sql_reference import Reference, counted, in_order
from helpers.sql_statements import (
    PARTITIONS,
    SCHEMA,
    SOURCE_SCHEMA,
    of_any_size,
    rows,
    source_rows,
    statements,
)

pytestmark = pytest.mark.slow

SEQUENCES = {"long": 2_500, "ci": 400}.get(os.environ.get("TEST_SIZE"), 8)


@pytest.fixture(scope="module")
def place(tmp_path_factory, say):
    """The directory of the tables of each sequence."""
    yield tmp_path_factory.mktemp("equivalence")
    statements = {name: count for name, count in counted.items() if name != "sequences"}
    say(f"equivalence: {counted['sequences']} sequences, statements by reference: {statements}")


@pytest.mark.timeout(600)
@settings(of_any_size, max_examples=SEQUENCES)
@given(
    rows=rows,
    source=source_rows,
    partition_by=st.sampled_from(PARTITIONS),
    files=st.integers(1, 3),
    sequence=st.lists(statements, min_size=1, max_size=5),
)
def test_a_delta_table_has_the_rows_of_the_reference(
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
