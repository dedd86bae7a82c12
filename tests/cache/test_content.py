"""The content digest of a table differs for any difference in values, and ignores row order."""

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

from deltawitness.session.fingerprint import table_digest
from deltawitness.session.fingerprint.table_digest import digest_table

few = settings(max_examples=settings().max_examples // 3)
"""Each example hashes a dozen tables."""


def digest_of(table, batch_rows=None):
    """The digest of a table."""
    return digest_table(table.schema, table.to_batches(batch_rows))


def column_hash(values, kind=None):
    """The hash of one column."""
    return digest_of(pa.table({"x": pa.array(values, kind)})).columns["x"]


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


def nullable(strategy):
    """A strategy for a value or NULL."""
    return st.none() | strategy


texts = st.text(st.characters(codec="utf-8"), max_size=4)
rows = st.fixed_dictionaries(
    {
        "number": nullable(st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)),
        "real": nullable(
            st.sampled_from([0.0, -0.0, 1.5, math.inf, -math.inf, math.nan]) | st.floats()
        ),
        "text": nullable(texts),
        "bytes": nullable(st.binary(max_size=3)),
        "flag": nullable(st.booleans()),
        "price": nullable(st.decimals(-999, 999, places=3)),
        "moment": nullable(st.datetimes(timezones=st.just(dt.UTC))),
        "numbers": nullable(st.lists(nullable(st.integers(-2, 2)), max_size=3)),
        "member": nullable(
            st.fixed_dictionaries(
                {
                    "a": nullable(st.integers(0, 2)),
                    "b": nullable(st.lists(nullable(texts), max_size=2)),
                }
            )
        ),
        "entries": nullable(
            st.lists(
                st.tuples(texts, nullable(st.integers(0, 2))), max_size=2, unique_by=lambda e: e[0]
            )
        ),
    }
)
tables = st.lists(rows, max_size=6)


def comparable(value):
    """A value in a form that is equal exactly when the digests are equal."""
    match value:
        case float():
            return "nan" if math.isnan(value) else value + 0.0
        case dict():
            return tuple(comparable(member) for member in value.values())
        case list() | tuple():
            return ("list", *(comparable(member) for member in value))
        case _:
            return value


def multiset(found):
    """The rows with their multiplicities."""
    return Counter(tuple(comparable(row[name]) for name in SCHEMA.names) for row in found)


def table_of(found):
    return pa.Table.from_pylist(found, SCHEMA)


@few
@given(tables, st.randoms(use_true_random=False), st.integers(1, 3))
@pytest.mark.slow
def test_the_digest_ignores_row_order_column_order_and_layout(found, random, batch_rows):
    """Shuffled rows, shuffled columns, other batch sizes and slices of a longer table have the same digest."""
    names = list(SCHEMA.names)
    shuffled = list(found)
    random.shuffle(shuffled)
    random.shuffle(names)
    longer = pa.concat_tables([table_of(found[:1]), table_of(shuffled), table_of(found[:2])])
    other = longer.slice(len(found[:1]), len(found)).select(names)
    one, two = digest_of(table_of(found)), digest_of(other, batch_rows)
    assert (one.hash, one.rows, one.columns) == (two.hash, two.rows, two.columns)


@few
@given(tables, tables)
@pytest.mark.slow
def test_digests_differ_exactly_when_the_rows_differ(one, two):
    """Two tables have the same digest exactly if they have the same multiset of rows."""
    assert (digest_of(table_of(one)).hash == digest_of(table_of(two)).hash) == (
        multiset(one) == multiset(two)
    )


@few
@given(tables.filter(bool), st.data())
@pytest.mark.slow
def test_a_changed_value_changes_the_hash_of_its_column_only(found, data):
    """Changing one value changes the hash of its column, no other column hash, and the hash of the table."""
    at = data.draw(st.integers(0, len(found) - 1))
    name = data.draw(st.sampled_from(SCHEMA.names))
    other = data.draw(rows.map(lambda row: row[name]))
    changed = [dict(row) for row in found]
    changed[at][name] = other
    before, after = digest_of(table_of(found)), digest_of(table_of(changed))
    differing = [
        column for column in before.columns if before.columns[column] != after.columns[column]
    ]
    is_same = comparable(found[at][name]) == comparable(other) and type(
        comparable(found[at][name])
    ) is type(comparable(other))
    assert differing == ([] if is_same else [name])
    assert (before.hash == after.hash) == is_same


@few
@given(tables.filter(bool), st.data())
@pytest.mark.slow
def test_a_missing_or_repeated_row_changes_every_column_hash(found, data):
    """Adding or removing a row changes every column hash, also where two changes could cancel out."""
    at = data.draw(st.integers(0, len(found) - 1))
    times = data.draw(st.integers(1, 3))
    less, more = found[:at] + found[at + 1 :], found + [found[at]] * times
    seen = [digest_of(table_of(each)) for each in (found, less, more)]
    for name in SCHEMA.names:
        assert len({digest.columns[name] for digest in seen}) == 3
    assert len({digest.hash for digest in seen}) == 3


def test_values_swapped_between_rows_change_the_rows_hash():
    """Swapping values between rows keeps the column hashes and changes the rows hash."""
    one = digest_of(pa.table({"id": [1, 2], "name": ["a", "b"]}))
    two = digest_of(pa.table({"id": [1, 2], "name": ["b", "a"]}))
    assert one.columns == two.columns
    assert one.rows_hash != two.rows_hash
    assert one.hash != two.hash


NAN, OTHER_NAN = (pa.py_buffer(b.to_bytes(8, "little")) for b in (0x7FF8 << 48, 0x7FF0 << 48 | 1))


def test_all_nans_are_equal_and_differ_from_null():
    """All NaNs are equal, whatever their bits and width, and no NaN equals NULL."""
    nans = [pa.Array.from_buffers(pa.float64(), 1, [None, each]) for each in (NAN, OTHER_NAN)]
    assert len({column_hash(nan) for nan in nans} | {column_hash([math.nan], pa.float32())}) == 1
    assert column_hash([math.nan], pa.float64()) != column_hash([None], pa.float64())


def test_minus_zero_equals_zero():
    """-0.0 equals 0.0, as in SQL."""
    assert column_hash([-0.0, 0.0]) == column_hash([0.0, 0.0]) != column_hash([0.0, None])


def test_null_equals_only_null_at_any_depth():
    """NULL differs from an empty text, an empty list, a struct of NULLs, 0 and false."""
    assert column_hash([None], pa.string()) != column_hash([""])
    assert column_hash([None], pa.int64()) != column_hash([0])
    assert column_hash([None], pa.bool_()) != column_hash([False])
    listed = pa.list_(pa.int64())
    assert len({column_hash([each], listed) for each in (None, [], [None], [None, None])}) == 4
    member = pa.struct([("a", pa.int64())])
    assert len({column_hash([each], member) for each in (None, {"a": None}, {"a": 0})}) == 3


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
def test_the_width_of_a_type_does_not_count(values, kinds):
    """Equal values in narrower types or in views have the same digest."""
    assert len({column_hash(values, kind) for kind in kinds}) == 1


def test_values_of_different_kinds_are_never_equal():
    """Values of different kinds differ, even if their bytes are equal."""
    ones = [
        column_hash([1]),
        column_hash([1], pa.uint64()),
        column_hash([1.0]),
        column_hash([True]),
        column_hash([1], pa.timestamp("us")),
        column_hash([1], pa.timestamp("us", "UTC")),
        column_hash([1], pa.timestamp("ns")),
        column_hash([1], pa.duration("us")),
        column_hash([1], pa.time64("us")),
        column_hash([1], pa.time32("s")),
        column_hash([1], pa.date32()),
        column_hash(["1"]),
        column_hash([b"1"]),
        column_hash([Decimal(1)], pa.decimal128(5, 0)),
        column_hash([Decimal(1)], pa.decimal128(5, 1)),
        column_hash([None], pa.null()),
        column_hash([(0, 0, 1)], pa.month_day_nano_interval()),
    ]
    assert len(set(ones)) == len(ones)


def test_a_type_that_cannot_be_hashed_is_an_error(monkeypatch):
    """A type that cannot be hashed raises instead of being ignored."""
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(TypeError, match="cannot hash columns of type"):
        digest_of(pa.table({"x": union}))


@pytest.mark.slow
def test_the_files_of_a_table_do_not_count(tmp_path):
    """One write, many writes, partitions and compaction lead to the same digest."""
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
    hashes = {
        digest_of(DeltaTable(tmp_path / name).to_pyarrow_table()).hash for name in ("one", "many")
    }
    DeltaTable(tmp_path / "many").optimize.z_order(["text"])
    hashes.add(digest_of(DeltaTable(tmp_path / "many").to_pyarrow_table()).hash)
    assert hashes == {digest_of(rows).hash}


@pytest.mark.slow
def test_the_chunk_size_does_not_count(monkeypatch, size):
    """The digest does not depend on the chunk size or on parallel hashing."""
    count = size(20_000, 1_000_000, 5_000)
    table = pa.table({"id": range(count), "text": [f"{n % 97}" for n in range(count)]})
    found = {digest_of(table).hash}
    for rows_at_once in (999, 4096):
        monkeypatch.setattr(table_digest, "CHUNK_ROWS", rows_at_once)
        found.add(digest_of(table, 1000).hash)
    assert len(found) == 1


def test_an_empty_table_has_a_digest_of_its_schema():
    """Empty tables have the same digest if their column names and kinds are equal."""
    empty = pa.table({"x": pa.array([], pa.int64())})
    assert digest_of(empty) == digest_of(empty.slice(0, 0), 10)
    assert digest_of(empty).hash != digest_of(empty.rename_columns(["y"])).hash
    assert digest_of(empty).hash != digest_of(pa.table({"x": [None]})).hash
