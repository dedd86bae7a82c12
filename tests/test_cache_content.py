"""A census tells two tables apart by any value of theirs, and never by the order in which rows come."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from decimal import Decimal

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from deltawitness.cache.fingerprint import table_digest
from deltawitness.cache.fingerprint.table_digest import digest_table

few = settings(max_examples=settings().max_examples // 3)
"""Each example hashes a dozen tables."""


def told(table, batch_rows=None):
    """The census of a table."""
    return digest_table(table.schema, table.to_batches(batch_rows))


def of(values, kind=None):
    """The hash of one column."""
    return told(pa.table({"x": pa.array(values, kind)})).columns["x"]


MEMBERS = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("real", pa.float64()),
        ("text", pa.string()),
        ("bytes", pa.binary()),
        ("flag", pa.bool_()),
        ("price", pa.decimal128(12, 3)),
        ("moment", pa.timestamp("us", "UTC")),
        ("numbers", pa.list_(pa.int32())),
        ("member", MEMBERS),
        ("entries", pa.map_(pa.string(), pa.int64())),
    ]
)


def maybe(strategy):
    """A value, or NULL."""
    return st.none() | strategy


texts = st.text(st.characters(codec="utf-8"), max_size=4)
rows = st.fixed_dictionaries(
    {
        "number": maybe(st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)),
        "real": maybe(
            st.sampled_from([0.0, -0.0, 1.5, math.inf, -math.inf, math.nan]) | st.floats()
        ),
        "text": maybe(texts),
        "bytes": maybe(st.binary(max_size=3)),
        "flag": maybe(st.booleans()),
        "price": maybe(st.decimals(-999, 999, places=3)),
        "moment": maybe(st.datetimes(timezones=st.just(dt.UTC))),
        "numbers": maybe(st.lists(maybe(st.integers(-2, 2)), max_size=3)),
        "member": maybe(
            st.fixed_dictionaries(
                {"a": maybe(st.integers(0, 2)), "b": maybe(st.lists(maybe(texts), max_size=2))}
            )
        ),
        "entries": maybe(
            st.lists(
                st.tuples(texts, maybe(st.integers(0, 2))), max_size=2, unique_by=lambda e: e[0]
            )
        ),
    }
)
tables = st.lists(rows, max_size=6)


def plain(value):
    """A value as one that is equal exactly when the census takes it for the same."""
    match value:
        case float():
            return "nan" if math.isnan(value) else value + 0.0
        case dict():
            return tuple(plain(member) for member in value.values())
        case list() | tuple():
            return ("list", *(plain(member) for member in value))
        case _:
            return value


def multiset(found):
    """The rows, each as often as it is there."""
    return Counter(tuple(plain(row[name]) for name in SCHEMA.names) for row in found)


def table_of(found):
    return pa.Table.from_pylist(found, SCHEMA)


@few
@given(tables, st.randoms(use_true_random=False), st.integers(1, 3))
@pytest.mark.slow
def test_no_order_of_rows_or_columns_and_no_layout_makes_a_difference(found, random, batch_rows):
    """Rows shuffled, columns shuffled, in batches of another size, cut out of a longer table."""
    names = list(SCHEMA.names)
    shuffled = list(found)
    random.shuffle(shuffled)
    random.shuffle(names)
    longer = pa.concat_tables([table_of(found[:1]), table_of(shuffled), table_of(found[:2])])
    other = longer.slice(len(found[:1]), len(found)).select(names)
    one, two = told(table_of(found)), told(other, batch_rows)
    assert (one.hash, one.rows, one.columns) == (two.hash, two.rows, two.columns)


@few
@given(tables, tables)
@pytest.mark.slow
def test_two_tables_are_told_apart_exactly_when_their_rows_differ(one, two):
    """Over all pairs: the same hash for the same multiset of rows, another for another."""
    assert (told(table_of(one)).hash == told(table_of(two)).hash) == (
        multiset(one) == multiset(two)
    )


@few
@given(tables.filter(bool), st.data())
@pytest.mark.slow
def test_any_change_of_one_value_is_seen_in_its_column_alone(found, data):
    """Changed to any other; and in the hash of the whole."""
    at = data.draw(st.integers(0, len(found) - 1))
    name = data.draw(st.sampled_from(SCHEMA.names))
    other = data.draw(rows.map(lambda row: row[name]))
    changed = [dict(row) for row in found]
    changed[at][name] = other
    before, after = told(table_of(found)), told(table_of(changed))
    differing = [
        column for column in before.columns if before.columns[column] != after.columns[column]
    ]
    is_same = plain(found[at][name]) == plain(other) and type(plain(found[at][name])) is type(
        plain(other)
    )
    assert differing == ([] if is_same else [name])
    assert (before.hash == after.hash) == is_same


@few
@given(tables.filter(bool), st.data())
@pytest.mark.slow
def test_a_row_less_or_once_more_is_seen(found, data):
    """In every column, whatever stands in it: of two that cancel each other out as well."""
    at = data.draw(st.integers(0, len(found) - 1))
    times = data.draw(st.integers(1, 3))
    less, more = found[:at] + found[at + 1 :], found + [found[at]] * times
    seen = [told(table_of(each)) for each in (found, less, more)]
    for name in SCHEMA.names:
        assert len({digest.columns[name] for digest in seen}) == 3
    assert len({digest.hash for digest in seen}) == 3


def test_values_that_change_places_between_rows_are_seen():
    """Each column holds what it held, and the rows are others."""
    one = told(pa.table({"id": [1, 2], "name": ["a", "b"]}))
    two = told(pa.table({"id": [1, 2], "name": ["b", "a"]}))
    assert one.columns == two.columns
    assert one.whole != two.whole
    assert one.hash != two.hash


NAN, OTHER_NAN = (pa.py_buffer(b.to_bytes(8, "little")) for b in (0x7FF8 << 48, 0x7FF0 << 48 | 1))


def test_every_nan_is_the_same_and_no_null():
    """Whatever its bits and its width."""
    nans = [pa.Array.from_buffers(pa.float64(), 1, [None, each]) for each in (NAN, OTHER_NAN)]
    assert len({of(nan) for nan in nans} | {of([math.nan], pa.float32())}) == 1
    assert of([math.nan], pa.float64()) != of([None], pa.float64())


def test_minus_zero_is_zero():
    """As SQL compares them."""
    assert of([-0.0, 0.0]) == of([0.0, 0.0]) != of([0.0, None])


def test_null_is_nothing_else_at_any_depth():
    """No empty text, list or struct of NULLs, no 0, no false."""
    assert of([None], pa.string()) != of([""])
    assert of([None], pa.int64()) != of([0])
    assert of([None], pa.bool_()) != of([False])
    listed = pa.list_(pa.int64())
    assert len({of([each], listed) for each in (None, [], [None], [None, None])}) == 4
    member = pa.struct([("a", pa.int64())])
    assert len({of([each], member) for each in (None, {"a": None}, {"a": 0})}) == 3


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([1, None, -2], [pa.int8(), pa.int16(), pa.int32(), pa.int64()]),
        ([1, None, 2], [pa.uint8(), pa.uint32(), pa.int64()]),
        ([1.5, None, -2.25], [pa.float16(), pa.float32(), pa.float64()]),
        (
            ["a", None, ""],
            [
                pa.string(),
                pa.large_string(),
                pa.string_view(),
                pa.dictionary(pa.int8(), pa.string()),
            ],
        ),
        ([b"a", None, b"b"], [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1)]),
        ([Decimal("1.50"), None], [pa.decimal32(5, 2), pa.decimal64(9, 2), pa.decimal128(20, 2)]),
        ([dt.date(2024, 2, 29), None], [pa.date32(), pa.date64()]),
        (
            [dt.datetime(2024, 2, 29, tzinfo=dt.UTC), None],
            [pa.timestamp("s", "UTC"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC")],
        ),
        (
            [[1], None, []],
            [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_view(pa.int8())],
        ),
    ],
    ids=lambda value: str(value[0]) if isinstance(value[0], pa.DataType) else "",
)
def test_the_width_of_a_type_makes_no_difference(values, kinds):
    """What another engine keeps in fewer bytes, or in a view, is the same."""
    assert len({of(values, kind) for kind in kinds}) == 1


def test_values_of_two_kinds_are_never_the_same():
    """Even where their bytes are."""
    ones = [
        of([1]),
        of([1], pa.uint64()),
        of([1.0]),
        of([True]),
        of([1], pa.timestamp("us")),
        of([1], pa.timestamp("us", "UTC")),
        of([1], pa.timestamp("ns")),
        of([1], pa.duration("us")),
        of([1], pa.time64("us")),
        of([1], pa.time32("s")),
        of([1], pa.date32()),
        of(["1"]),
        of([b"1"]),
        of([Decimal(1)], pa.decimal128(5, 0)),
        of([Decimal(1)], pa.decimal128(5, 1)),
        of([None], pa.null()),
        of([(0, 0, 1)], pa.month_day_nano_interval()),
    ]
    assert len(set(ones)) == len(ones)


def test_a_type_that_is_not_known_is_said(monkeypatch):
    """Rather than taken for the same whatever is in it."""
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(TypeError, match="cannot be told"):
        told(pa.table({"x": union}))


def test_the_files_of_a_table_make_no_difference(tmp_path):
    """Written in one go, or in many, partitioned, compacted."""
    rows = pa.table(
        {
            "id": range(1000),
            "part": [n % 3 for n in range(1000)],
            "text": [f"{n}" for n in range(1000)],
        }
    )
    write_deltalake(tmp_path / "one", rows)
    for start in range(0, 1000, 100):
        write_deltalake(
            tmp_path / "many", rows.slice(900 - start, 100), mode="append", partition_by=["part"]
        )
    hashes = {told(DeltaTable(tmp_path / name).to_pyarrow_table()).hash for name in ("one", "many")}
    DeltaTable(tmp_path / "many").optimize.z_order(["text"])
    hashes.add(told(DeltaTable(tmp_path / "many").to_pyarrow_table()).hash)
    assert hashes == {told(rows).hash}


def test_many_rows_in_chunks_of_any_size(monkeypatch, size):
    """Rows are hashed in chunks, several at once, and the whole is the same."""
    count = size(20_000, 1_000_000)
    table = pa.table({"id": range(count), "text": [f"{n % 97}" for n in range(count)]})
    found = {told(table).hash}
    for rows_at_once in (999, 4096):
        monkeypatch.setattr(table_digest, "CHUNK_ROWS", rows_at_once)
        found.add(told(table, 1000).hash)
    assert len(found) == 1


def test_no_rows_are_some_content_as_well():
    """Of no rows, the names and kinds of the columns are what counts."""
    empty = pa.table({"x": pa.array([], pa.int64())})
    assert told(empty) == told(empty.slice(0, 0), 10)
    assert told(empty).hash != told(empty.rename_columns(["y"])).hash
    assert told(empty).hash != told(pa.table({"x": [None]})).hash
