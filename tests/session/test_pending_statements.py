"""A statement has the effect of its creation, whatever changes before it runs.

Random statements are created in every way (as text, with parameters, prepared, as a plan, as an
optimized plan). Then names, schemas, views, settings, prepared statements and sessions change, other
statements write the table, and the statements run in one or several threads. After each: the rows
and the count of the reference, or an error without a commit; and no other table has changed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawitness import ObservedSessionContext
from deltawitness.exceptions import StatementError
from deltawitness.session.core.table_providers import provider_of
from helpers.sql_reference import Reference, in_order
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

SEQUENCES = {"long": 2_500, "ci": 80}.get(os.environ.get("TEST_SIZE"), 6)
SEQUENCES_ON_A_SERVER = {"long": 2_500, "ci": 8}.get(os.environ.get("TEST_SIZE"), 2)

counted: Counter[str] = Counter()

LITERAL = re.compile(r'(?<=(?:"| )(?:=|<|>) )\d+\b')
"""Whole numbers that a column is compared with: they become parameters."""


# --- creation of statements ----------------------------------------------------------------------------


def with_parameters(sql):
    """Return the statement with a parameter for each integer in a comparison, and the integers."""
    values = []

    def parameter(match):
        values.append(int(match[0]))
        return f"${len(values)}"

    return LITERAL.sub(parameter, sql), values


def as_text(place, sql, _):
    return place.ctx.sql(sql)


def as_text_with_parameters(place, sql, _):
    ctx = place.ctx
    text, values = with_parameters(sql)
    given = {str(place): value for place, value in enumerate(values, 1)}
    frame = ctx.sql(text, param_values=given or None)
    given.update(dict.fromkeys(given, 77))  # the caller changes its dict
    return frame


def as_prepared(place, sql, name):
    ctx = place.ctx
    ctx.sql(f"PREPARE {name} AS {sql}")
    place.prepared.append(name)
    return ctx.sql(f"EXECUTE {name}")


def as_prepared_with_parameters(place, sql, name):
    ctx = place.ctx
    text, values = with_parameters(sql)
    types = f"({', '.join(['BIGINT'] * len(values))})" if values else ""
    ctx.sql(f"PREPARE {name}{types} AS {text}")
    place.prepared.append(name)
    return ctx.sql(f"EXECUTE {name}" + (f"({', '.join(map(str, values))})" if values else ""))


def as_plan(place, sql, _):
    ctx = place.ctx
    return ctx.create_dataframe_from_logical_plan(ctx.sql(sql).logical_plan())


def as_optimized_plan(place, sql, _):
    ctx = place.ctx
    return ctx.create_dataframe_from_logical_plan(ctx.sql(sql).optimized_logical_plan())


def as_plan_in_another_session(place, sql, _):
    ctx = place.ctx
    other = ObservedSessionContext()
    other.from_pydict({"id": [1]}, name="src")
    return other.create_dataframe_from_logical_plan(ctx.sql(sql).logical_plan())


WAYS = (
    as_text,
    as_text_with_parameters,
    as_prepared,
    as_prepared_with_parameters,
    as_plan,
    as_optimized_plan,
    as_plan_in_another_session,
)


# --- changes before a statement runs --------------------------------------------------------------------


def _empty(schema):
    return pa.RecordBatch.from_pylist([], schema=schema)


class Place:
    """A table `t` and its source `src`, other tables that take over their names, and a session."""

    def __init__(self, root, options, table, source, partition_by, kind):
        self.root, self.options = root, options
        self.source, self.kind = source, kind
        self.prepared = []
        self.make("t", table, partition_by)
        self.make("src", source)
        self.make("other_t", SCHEMA.empty_table())
        self.make("other_src", SOURCE_SCHEMA.empty_table())
        self.ctx = ObservedSessionContext()
        self.ctx.sql("CREATE SCHEMA elsewhere")
        self.register("elsewhere.t", "other_t")
        self.register("elsewhere.src", "other_src")
        self.register("base", "src")
        self.register("t", "t")
        self.register_source()

    def make(self, name, table, partition_by=None):
        write_deltalake(
            f"{self.root}/{name}", table, partition_by=partition_by, storage_options=self.options
        )

    def register(self, name, table):
        self.ctx.register_delta(name, f"{self.root}/{table}", storage_options=self.options)

    def table(self, name):
        return DeltaTable(f"{self.root}/{name}", storage_options=self.options)

    def rows(self):
        """Return the rows of `t`, read without the session."""
        ctx = SessionContext()
        ctx.register_table("t", provider_of(self.table("t")))
        return in_order(pa.table(ctx.table("t")).cast(SCHEMA))

    def register_source(self):
        """Register the source `src` as a Delta table, as an in-memory table or as a view."""
        if self.kind == "delta":
            self.register("src", "src")
        elif self.kind == "memory":
            self.ctx.register_record_batches(
                "src", [self.source.to_batches() or [_empty(SOURCE_SCHEMA)]]
            )
        else:
            self.ctx.sql('CREATE VIEW src AS SELECT * FROM base WHERE "id" IS NULL OR true')

    def reset(self):
        """Restore the original meaning of the names."""
        self.ctx.sql("SET datafusion.catalog.default_schema = 'public'")
        self.ctx.sql("SET datafusion.sql_parser.dialect = 'generic'")
        for name in ("t", "src"):
            self.ctx.deregister_table(name)
        self.register("t", "t")
        self.register_source()


def nothing(_):
    pass


def another_delta_table(place):
    for name in ("t", "src"):
        place.ctx.deregister_table(name)
        place.register(name, f"other_{name}")


def a_table_in_memory(place):
    for name, schema in (("t", SCHEMA), ("src", SOURCE_SCHEMA)):
        place.ctx.deregister_table(name)
        place.ctx.register_record_batches(name, [[_empty(schema)]])


def a_view(place):
    place.ctx.deregister_table("src")
    place.ctx.sql('CREATE VIEW src AS SELECT * FROM elsewhere.src WHERE "id" = 0')


def another_default_schema(place):
    place.ctx.sql("SET datafusion.catalog.default_schema = 'elsewhere'")


def another_dialect(place):
    place.ctx.sql("SET datafusion.sql_parser.dialect = 'mysql'")


def nothing_by_that_name(place):
    for name in ("t", "src"):
        place.ctx.deregister_table(name)


def other_prepared_statements(place):
    for name in place.prepared:
        place.ctx.sql(f"DEALLOCATE {name}")
        place.ctx.sql(f"PREPARE {name} AS DELETE FROM t")


CHANGES = (
    nothing,
    another_delta_table,
    a_table_in_memory,
    a_view,
    another_default_schema,
    another_dialect,
    nothing_by_that_name,
    other_prepared_statements,
)


# --- the property -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, say):
    """The directory of the tables of each sequence."""
    yield tmp_path_factory.mktemp("pending")
    say(f"pending statements: {dict(sorted(counted.items()))}")


def make(place, number, way, sql):
    """Create a statement; None if the engine refuses to create it in this way, which is allowed."""
    try:
        return way(place, sql, f"p{number}")
    except StatementError:
        raise
    except Exception as error:  # noqa: BLE001 - every error of the engine is counted
        counted[f"refused by the engine: {str(error)[:60]}"] += 1
        return None


def check(place, reference, sql, frame):
    """Run a statement and compare the table with the reference."""
    (count,) = frame.to_pydict()["count"]
    rows_now = place.rows()

    def is_right(table, said):
        return (in_order(table), said) == (rows_now, count)

    expected = reference.run(sql, is_right)
    assert rows_now == in_order(reference.table), sql
    if not sql.startswith("TRUNCATE"):
        assert count == expected, sql


def run_rounds(place, reference, rounds):
    """Create the statements of each round, change what their names resolve to, and run them."""
    number = 0
    for pairs, change in rounds:
        pending = []
        for sql, way in pairs:
            number += 1
            frame = make(place, number, way, sql)
            pending += [] if frame is None else [(sql, way, frame)]
        change(place)
        for sql, way, frame in reversed(pending):
            check(place, reference, sql, frame)
            counted[way.__name__] += 1
        place.reset()
    assert (place.table("other_t").version(), place.table("other_src").version()) == (0, 0)


everything = given(
    rows=rows,
    source=source_rows,
    partition_by=st.sampled_from(PARTITIONS),
    kind=st.sampled_from(("delta", "memory", "view")),
    rounds=st.lists(
        st.tuples(
            st.lists(st.tuples(statements, st.sampled_from(WAYS)), min_size=1, max_size=3),
            st.sampled_from(CHANGES),
        ),
        min_size=1,
        max_size=2,
    ),
)


@pytest.mark.timeout(600)
@settings(of_any_size, max_examples=SEQUENCES)
@everything
def test_a_pending_statement_has_the_reference_effect(
    folder, rows, source, partition_by, kind, rounds
):
    """A pending statement has the reference's effect, or raises without a commit."""
    shutil.rmtree(folder)
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    source = pa.Table.from_pylist(source, schema=SOURCE_SCHEMA)
    place = Place(folder, None, table, source, partition_by, kind)
    counted["sequences"] += 1
    run_rounds(place, Reference(table, source), rounds)


@pytest.mark.timeout(600)
@settings(of_any_size, max_examples=SEQUENCES_ON_A_SERVER)
@everything
def test_a_pending_statement_has_the_reference_effect_on_s3(
    server, rows, source, partition_by, kind, rounds
):
    """A pending statement on S3 has the reference's effect, or raises without a commit."""
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    source = pa.Table.from_pylist(source, schema=SOURCE_SCHEMA)
    counted["sequences on a server"] += 1
    root = f"s3://lake/pending/{counted['sequences on a server']}"
    place = Place(root, server.options, table, source, partition_by, kind)
    run_rounds(place, Reference(table, source), rounds)


def test_threads_run_pending_statements_of_one_session(tmp_path):
    """Threads run pending statements on the tables of their creation while names are swapped."""
    write_deltalake(tmp_path / "t", pa.table({"id": [0], "n": [0]}))
    write_deltalake(tmp_path / "other", pa.table({"id": [0], "n": [0]}))
    ctx = ObservedSessionContext()
    ctx.register_delta("t", tmp_path / "t")
    ctx.sql("PREPARE add_row(BIGINT) AS INSERT INTO t SELECT $1, max(n) FROM t")
    pending = [ctx.sql(f"EXECUTE add_row({number})") for number in range(1, 13)]
    pending += [ctx.sql("UPDATE t SET n = n + (SELECT 1)") for _ in range(2)]

    def exchange(number):
        ctx.deregister_table("t")
        ctx.register_delta("t", tmp_path / ("other", "t")[number % 2])

    def run(frame):
        for _ in range(50):
            try:
                return frame.to_pydict()["count"][0]
            except Exception as error:
                # delta-rs refuses the second of two concurrent statements that change the same rows.
                if "concurrent" not in str(error).lower():
                    raise
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(run, frame) for frame in pending]
        for number in range(20):
            exchange(number)
        counts = [result.result(timeout=100) for result in results]
    assert counts[:12] == [1] * 12
    found = DeltaTable(tmp_path / "t").to_pyarrow_table().to_pydict()
    assert sorted(found["id"]) == list(range(13))
    assert found["n"][found["id"].index(0)] == 2
    assert DeltaTable(tmp_path / "other").version() == 0
