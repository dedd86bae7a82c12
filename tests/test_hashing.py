"""Hashes are the same in every process, and differ for different inputs."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow as pa
import pytest
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake

from deltawitness import plan_hash, plan_shape_hash, schema_hash

BASE = pa.schema([pa.field("id", pa.int64()), pa.field("name", pa.string())])

DIFFERENT = {
    "order": pa.schema([BASE.field(1), BASE.field(0)]),
    "name": pa.schema([pa.field("ID", pa.int64()), BASE.field(1)]),
    "type": pa.schema([pa.field("id", pa.int32()), BASE.field(1)]),
    "nullability": pa.schema([pa.field("id", pa.int64(), nullable=False), BASE.field(1)]),
    "more": pa.schema([*BASE, pa.field("x", pa.int8())]),
    "zone": pa.schema([pa.field("id", pa.timestamp("us", "UTC")), BASE.field(1)]),
    "unit": pa.schema([pa.field("id", pa.timestamp("us")), BASE.field(1)]),
    "decimal": pa.schema([pa.field("id", pa.decimal128(9, 2)), BASE.field(1)]),
    "list": pa.schema([pa.field("id", pa.list_(pa.int64())), BASE.field(1)]),
    "large list": pa.schema([pa.field("id", pa.large_list(pa.int64())), BASE.field(1)]),
    "fixed list": pa.schema([pa.field("id", pa.list_(pa.int64(), 3)), BASE.field(1)]),
    "struct": pa.schema([pa.field("id", pa.struct([("a", pa.int8())])), BASE.field(1)]),
    "inner null": pa.schema(
        [pa.field("id", pa.struct([pa.field("a", pa.int8(), nullable=False)])), BASE.field(1)]
    ),
    "map": pa.schema([pa.field("id", pa.map_(pa.string(), pa.int8())), BASE.field(1)]),
    "dictionary": pa.schema([pa.field("id", pa.dictionary(pa.int8(), pa.string())), BASE.field(1)]),
    "extension": pa.schema([pa.field("id", pa.uuid()), BASE.field(1)]),
}


@pytest.mark.parametrize(
    "nested",
    [
        lambda name: pa.map_(pa.field(name, pa.string(), nullable=False), pa.field("v", pa.int8())),
        lambda name: pa.list_(pa.field(name, pa.int64()), 3),
        lambda name: pa.list_view(pa.field(name, pa.int64())),
    ],
    ids=["map", "fixed list", "list view"],
)
def test_a_hash_does_not_depend_on_the_schema_that_was_hashed_before(nested):
    """Arrow takes schemas for equal whose nested fields have other names."""
    one, other = (pa.schema([("x", nested(name))]) for name in ("a", "b"))
    assert one.equals(other)
    expected = schema_hash(one)
    assert schema_hash(other) != expected
    assert schema_hash(one) == expected


@pytest.mark.parametrize("what", DIFFERENT)
def test_a_schema_that_differs_has_another_hash(what):
    """Each part of a schema changes the hash."""
    hashes = {schema_hash(schema) for schema in DIFFERENT.values()} | {schema_hash(BASE)}
    assert schema_hash(DIFFERENT[what]) != schema_hash(BASE)
    assert len(hashes) == len(DIFFERENT) + 1


def test_metadata_of_a_schema_does_not_count():
    """Metadata does not change the hash, at any level of nesting."""
    noted = pa.schema(
        [pa.field("id", pa.int64(), metadata={"a": "b"}), BASE.field(1)], metadata={"c": "d"}
    )
    nested = pa.schema([pa.field("s", pa.struct([pa.field("a", pa.int8(), metadata={"x": "y"})]))])
    plain = pa.schema([pa.field("s", pa.struct([pa.field("a", pa.int8())]))])
    assert schema_hash(noted) == schema_hash(BASE)
    assert schema_hash(nested) == schema_hash(plain)


def test_a_schema_is_found_wherever_it_is(tmp_path):
    """Tables, frames, readers and Delta tables export an Arrow schema."""
    table = pa.table({"id": pa.array([1], pa.int64())})
    write_deltalake(tmp_path, table)
    frame = SessionContext().from_arrow(table)
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches())
    delta = DeltaTable(tmp_path)
    sources = [table, frame, reader, delta, delta.schema(), table.schema, table.to_batches()[0]]
    assert {schema_hash(source) for source in sources} == {schema_hash(table.schema)}
    assert reader.read_all() == table


def test_an_object_without_a_schema_is_an_error_that_names_its_type():
    """The message names the type of the object."""
    with pytest.raises(TypeError, match="int exports no Arrow schema"):
        schema_hash(7)


@pytest.fixture
def ctx():
    """A session with an anonymous and a named table."""
    context = SessionContext()
    context.from_arrow(pa.table({"a": [1]}), name="t")
    return context


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT * FROM t WHERE a = 1", "SELECT * FROM t WHERE a = 2"),
        ("SELECT 'x'", "SELECT 'it''s \"quoted\" (y)'"),
        ("SELECT 1.5, true", "SELECT 2.5, false"),
        ("SELECT * FROM t LIMIT 3", "SELECT * FROM t LIMIT 4"),
        ("SELECT DATE '2024-01-01'", "SELECT DATE '2025-01-01'"),
        ("VALUES (1), (2)", "VALUES (3), (4)"),
        ("SELECT * FROM t WHERE a IN (1, 2)", "SELECT * FROM t WHERE a IN (3, 4)"),
    ],
)
def test_literals_count_in_the_plan_hash_and_not_in_the_shape(one, other, ctx):
    """A query with other values has the same shape hash and another plan hash."""
    first, second = ctx.sql(one), ctx.sql(other)
    assert plan_hash(first) != plan_hash(second)
    assert plan_shape_hash(first) == plan_shape_hash(second)
    assert plan_hash(first) == plan_hash(ctx.sql(one))


@pytest.mark.parametrize(
    "other",
    ["SELECT a + 1 FROM t", "SELECT a FROM t", "SELECT a AS b FROM t", "SELECT max(a) FROM t"],
)
def test_another_query_has_another_shape(other, ctx):
    """Columns, aliases and functions change the shape hash."""
    assert plan_shape_hash(ctx.sql("SELECT * FROM t WHERE a > 1")) != plan_shape_hash(
        ctx.sql(other)
    )


def test_anonymous_tables_do_not_make_a_difference():
    """`from_arrow` gives a random table name, which does not change the hash."""
    table = pa.table({"a": [1]})
    hashes = {plan_hash(SessionContext().from_arrow(table)) for _ in range(3)}
    assert len(hashes) == 1


PROGRAM = """
import pyarrow as pa
from datafusion import SessionContext
from deltawitness import plan_hash, plan_shape_hash, schema_hash, table_id
ctx = SessionContext()
frame = ctx.from_arrow(pa.table({"a": [1], "b": ["x"]}))
ctx.from_arrow(pa.table({"a": [1]}), name="t")
query = ctx.sql("SELECT a, count(*) FROM t WHERE a > 3 AND a <> 5 GROUP BY a")
print(schema_hash(pa.schema([("a", pa.int64()), ("b", pa.map_(pa.string(), pa.int8()))])))
print(plan_hash(query), plan_shape_hash(query), plan_hash(frame))
print(table_id("/data/t"), table_id("s3://b/t", key=b"k"))
"""


@pytest.mark.slow
def test_hashes_are_equal_across_processes_hash_seeds_and_folders(tmp_path):
    """Three processes with different hash seeds and folders give the same hashes."""
    said = set()
    for seed in ("0", "1", "4711"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        said.add(
            subprocess.run(
                [sys.executable, "-c", PROGRAM],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
    assert len(said) == 1
    assert len(said.pop().split()) == 6
