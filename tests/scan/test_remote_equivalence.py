"""Queries and statements have the same results on an object store as on a disk, with NaN and NULL.

`session/test_sql_equivalence.py` shows that the results on a disk are right.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltawitness import ObservedSessionContext
from helpers.random_rows import random_rows
from helpers.remote_parts import running_server
from helpers.sql_statements import (
    COLUMNS,
    PARTITIONS,
    SCHEMA,
    SOURCE_SCHEMA,
    VALUES,
    of_any_size,
    predicates,
    source_rows,
    statements,
)

pytestmark = pytest.mark.slow

QUERIES = {"long": 3_000, "ci": 50}.get(os.environ.get("TEST_SIZE"), 12)
SEQUENCES = {"long": 600, "ci": 8}.get(os.environ.get("TEST_SIZE"), 2)

NAN = float("nan")

counted: Counter[str] = Counter()

rows = st.lists(
    st.fixed_dictionaries(
        {
            name: st.sampled_from(
                [None, NAN, NAN, NAN, 1.5, 0.0] if name == "f.x" else [None, None, *VALUES[name]]
            )
            for name in COLUMNS
        }
    ),
    min_size=2,
    max_size=6,
)
"""Rows as those of the equivalence on a disk, with NaN in every other float."""

float_predicates = st.builds(
    "{}({} {} {}){}".format,
    st.sampled_from(["", "NOT "]),
    st.sampled_from(['"f.x"', '"f.x" * 2', 'CAST("id" AS DOUBLE)']),
    st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"]),
    st.sampled_from(["1.5", "0", "CAST('NaN' AS DOUBLE)", '"f.x"', '"small"', "NULL"]),
    st.sampled_from(["", " IS NULL", " IS NOT TRUE"]),
)
"""Predicates over floats: comparisons with numbers, NaN, other columns and NULL."""


@pytest.fixture(scope="module")
def server(tmp_path_factory, say):
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running
    say(f"equivalence on S3: {dict(counted)}")


def lay(place, options, data, partition_by, files):
    """Write a table in several files, replacing an existing one."""
    first = {"mode": "overwrite", "schema_mode": "overwrite", "partition_by": partition_by}
    write_deltalake(place, data.slice(0, 0), storage_options=options, **first)
    for number in range(files):
        part = data.take(list(range(number, data.num_rows, files)))
        write_deltalake(place, part, mode="append", storage_options=options)


def in_order(table):
    return sorted(map(repr, table.to_pylist()))


@pytest.fixture(scope="module")
def pairs(server, tmp_path_factory):
    """For each partitioning, a session over a local table and one over the same table on the server."""
    found = []
    for number, partition_by in enumerate(PARTITIONS):
        parts = [row for seed in range(3) for row in random_rows(3 * number + seed, 20)]
        data = pa.Table.from_pylist(parts, schema=SCHEMA)
        sessions = []
        for place, options in (
            (str(tmp_path_factory.mktemp("pairs") / str(number)), None),
            (f"s3://lake/pairs/{number}", server.options),
        ):
            lay(place, options, data.slice(0, 20), partition_by, 1)
            for start in (20, 40):
                part = data.slice(start, 20)
                write_deltalake(place, part, mode="append", storage_options=options)
            ctx = ObservedSessionContext()
            ctx.register_delta("t", place, storage_options=options)
            sessions.append(ctx)
        found.append(sessions)
    return found


@settings(max_examples=QUERIES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    condition=st.one_of(predicates(), float_predicates),
    number=st.integers(0, len(PARTITIONS) - 1),
)
def test_a_query_has_the_same_rows_on_a_server_as_on_a_disk(pairs, condition, number):
    """The rows are the same, whichever filters are pushed down to the scan."""
    sql = f'SELECT "id", "f.x", "p" FROM t WHERE {condition}'
    disk, remote = (in_order(pa.table(ctx.sql(sql))) for ctx in pairs[number])
    assert remote == disk
    counted["queries"] += 1


@settings(of_any_size, max_examples=SEQUENCES)
@given(
    rows=rows,
    source=source_rows,
    partition_by=st.sampled_from(PARTITIONS),
    sequence=st.lists(
        st.one_of(
            statements,
            float_predicates.map("DELETE FROM t WHERE {}".format),
            float_predicates.map('UPDATE t SET "small" = 7 WHERE {}'.format),
            float_predicates.map("INSERT INTO t SELECT * FROM t WHERE {}".format),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_statements_leave_the_same_rows_on_a_server_as_on_a_disk(
    server, tmp_path_factory, rows, source, partition_by, sequence
):
    """Rows and counts are the same after each statement."""
    folder = tmp_path_factory.mktemp("sequence", numbered=True)
    sessions = []
    for root, options in (
        (str(folder), None),
        (f"s3://lake/sequences/{counted['sequences']}", server.options),
    ):
        data = pa.Table.from_pylist(rows, schema=SCHEMA)
        lay(f"{root}/t", options, data, partition_by, 2)
        src = pa.Table.from_pylist(source, schema=SOURCE_SCHEMA)
        write_deltalake(f"{root}/src", src, mode="overwrite", storage_options=options)
        ctx = ObservedSessionContext()
        ctx.register_table("t", DeltaTable(f"{root}/t", storage_options=options))
        ctx.register_delta("src", f"{root}/src", storage_options=options)
        sessions.append(ctx)
    counted["sequences"] += 1
    for sql in sequence:
        disk, remote = (ctx.sql(sql).to_pydict()["count"] for ctx in sessions)
        assert remote == disk, sql
        disk, remote = (in_order(pa.table(ctx.table("t"))) for ctx in sessions)
        assert remote == disk, sql
        counted["statements"] += 1
    shutil.rmtree(folder)
