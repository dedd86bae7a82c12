"""Rules of an expectation: which arguments are valid, and what each rule means for rows."""

from __future__ import annotations

import datetime as dt
import pickle

import pyarrow as pa
import pytest

from deltawitness import Within, expect, within
from deltawitness.exceptions import ConfigurationError, ExpectationError
from deltawitness.expectations.row_buffer import RowBuffer
from deltawitness.expectations.row_checks import row_checks
from deltawitness.expectations.rules import parse_rules
from deltawitness.expectations.schema_check import check_schema, delta_types

NAN = float("nan")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, "at least one"),
        ({"rows_added": -1}, "rows_added"),
        ({"rows_added": True}, "rows_added"),
        ({"rows_added": (2, 1)}, "rows_added"),
        ({"rows_added": (None, None)}, "rows_added"),
        ({"rows_added": "many"}, "rows_added"),
        ({"schema": "same"}, "schema"),
        ({"schema": ["unchanged"]}, "schema"),
        ({"nulls": {"id": 1.5}}, "nulls"),
        ({"nulls": {"id": -1}}, "nulls"),
        ({"nulls": {"id": True}}, "nulls"),
        ({"nulls": "id"}, "nulls"),
        ({"unique": []}, "unique"),
        ({"unique": [[]]}, "unique"),
        ({"unique": 1}, "unique"),
        ({"unique": [1]}, "unique"),
        ({"values": {"id": (2, 1)}}, "values"),
        ({"values": {"id": (NAN, 1)}}, "values"),
        ({"values": {"id": (1, "a")}}, "values"),
        ({"values": {"id": set()}}, "values"),
        ({"values": {"id": [[1]]}}, "values"),
        ({"values": {"id": {None}}}, "values"),
        ({"values": {1: {2}}}, "values"),
        ({"nulls": {"id": 0}, "on_failure": "ignore"}, "on_failure"),
        ({"nulls": {"id": 0}, "quarantine": "q"}, "quarantine"),
        ({"nulls": {"id": 0}, "table": 3}, "table"),
    ],
)
def test_an_invalid_rule_is_an_error_that_names_it(arguments, names):
    with pytest.raises(ConfigurationError, match=f"expect: .*{names}"):
        expect(**arguments)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((-1, 2), {}),
        ((2, 1), {}),
        ((0, float("inf")), {}),
        (("1", 2), {}),
        ((0, 1, "last 0"), {}),
        ((0, 1, "20"), {}),
        ((0, 1, 20), {}),
        ((0, 1, "last 5"), {"min_commits": 6}),
        ((0, 1, "last 5"), {"min_commits": 0}),
    ],
)
def test_invalid_relative_bounds_are_an_error(arguments, options):
    with pytest.raises(ConfigurationError, match="within: "):
        within(*arguments, **options)


def test_relative_bounds_have_a_default():
    assert within(0.5, 2) == Within(0.5, 2.0, commits=20, min_commits=1)


def results(batches, **rules):
    """Return label, whether it is met and the count of each rule."""
    parsed = parse_rules(**rules)
    checks = row_checks(parsed, parsed.rows_added)
    schema = batches[0].schema if batches else pa.schema([("a", pa.int64()), ("d", pa.int64())])
    for check in checks:
        check.begin(schema)
    for batch in batches:
        for check in checks:
            check.update(batch)
    found = [check.result() for check in checks]
    return {each.label: (each.is_met, each.observed) for each in found}


def batch(**columns):
    return pa.record_batch(columns)


@pytest.mark.parametrize(
    ("bounds", "is_met"),
    [(3, True), (4, False), ((3, 3), True), ((None, 2), False), ((4, None), False), ((1, 9), True)],
)
def test_bounds_of_rows_are_inclusive(bounds, is_met):
    rows = [batch(a=[1, 2]), batch(a=[3])]
    assert results(rows, rows_added=bounds) == {"rows_added": (is_met, 3)}


@pytest.mark.parametrize(
    ("most", "is_met"), [(29, True), (28, False), (0.29, True), (0.28, False), (1.0, True)]
)
def test_nulls_are_a_count_or_a_fraction_of_the_rows(most, is_met):
    """0.29 of 100 rows are 29, although the product of the floats is a little less."""
    rows = [batch(a=pa.array([None] * 29 + [1] * 71, pa.int64()))]
    assert results(rows, nulls={"a": most}) == {"nulls(a)": (is_met, 29)}


def test_nulls_of_encoded_and_missing_columns_are_counted():
    """A value of a dictionary may be null, and a column that the rows lack is null in each row."""
    encoded = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None]))
    rows = [pa.record_batch({"d": encoded})]
    assert results(rows, nulls={"d": 2, "x": 2}) == {"nulls(d)": (True, 2), "nulls(x)": (False, 3)}
    assert results([], nulls={"d": 0.0}) == {"nulls(d)": (True, 0)}


def test_a_key_is_unique_in_all_rows_of_the_write():
    """Rows with a null in the key are ignored; every row with a repeated key counts."""
    rows = [batch(a=[1, 2, None], b=["x", "x", "y"]), batch(a=[1, None, 1], b=["x", "y", "z"])]
    assert results(rows, unique=[["a", "b"], ["b"], ["a"]]) == {
        "unique(a,b)": (False, 2),
        "unique(b)": (False, 5),
        "unique(a)": (False, 3),
    }
    assert results(rows[:1], unique="a") == {"unique(a)": (True, 0)}
    assert results([], unique="a") == {"unique(a)": (True, 0)}


@pytest.mark.parametrize(
    ("column", "allowed", "outside"),
    [
        (pa.array([0, 5, 10, None]), (0, 10), 0),
        (pa.array([-1, 11, 5]), (0, 10), 2),
        (pa.array([-1, 11, 5]), (0, None), 1),
        (pa.array([-1, 11, 5]), (None, 5.5), 1),
        (pa.array([1.0, NAN, 2.0]), (0, None), 1),
        (pa.array([1.0, NAN, 2.0]), (None, 9), 1),
        (pa.array(["a", "b", None]), {"a"}, 1),
        (pa.array(["a", "b"], pa.string_view()), {"a", "b"}, 0),
        (pa.array(["a", "b"]).dictionary_encode(), ["a"], 1),
        (pa.array([dt.date(2026, 1, 2)]), (dt.date(2026, 1, 3), None), 1),
        (pa.array([True, False]), {True}, 1),
        (pa.array([1, 2, 3], pa.int8()), {1, 2, 300}, 1),  # no int8 is 300
        (pa.array([1, 2]), {1, 1.5}, 1),
    ],
)
def test_values_are_in_a_range_or_in_a_set(column, allowed, outside):
    found = results([batch(v=column)], values={"v": allowed})
    assert found == {"values(v)": (outside == 0, outside)}


def test_a_rule_that_arrow_cannot_compute_is_not_met():
    """The same holds for a rule with a column that the rows lack."""
    rows = [batch(a=[[1], [2]], f=[1.0, 2.0])]
    found = results(rows, unique=["a"], values={"f": ("a", "b"), "a": {1}, "x": {1}})
    assert set(found.values()) == {(False, None)}
    assert results(rows, unique=[["f", "x"]]) == {"unique(f,x)": (False, None)}
    found = results([], unique=["x"], values={"x": {1}})  # a write without rows
    assert set(found.values()) == {(False, None)}


def schema_of(**columns):
    return delta_types(pa.schema(list(columns.items())))


TABLE = schema_of(a=pa.int64(), b=pa.list_(pa.struct([("x", pa.string())])))


@pytest.mark.parametrize(
    ("written", "unchanged", "compatible"),
    [
        ({"b": pa.large_list(pa.struct([("x", pa.string_view())])), "a": pa.int64()}, 0, 0),
        (
            {"a": pa.int64(), "b": pa.list_(pa.struct([("x", pa.string())])), "c": pa.int8()},
            1,
            0,
        ),
        ({"a": pa.int64()}, 1, 1),
        ({"a": pa.int32(), "b": pa.list_(pa.struct([("x", pa.string())]))}, 1, 1),
        ({"a": pa.int64(), "b": pa.list_(pa.struct([("x", pa.int64())]))}, 1, 1),
    ],
)
def test_a_schema_is_compared_by_columns_and_delta_types(written, unchanged, compatible):
    types = schema_of(**written)
    assert check_schema("unchanged", types, TABLE).observed == unchanged
    assert check_schema("compatible", types, TABLE).observed == compatible


def test_many_differing_columns_are_counted():
    many = {f"c{n}": "long" for n in range(9)}
    check = check_schema("unchanged", {}, many)
    assert (check.is_met, check.observed) == (False, 9)
    assert check.detail.endswith("no column `c4`, and 4 more")


def test_rows_beyond_the_limit_are_in_a_file():
    """They can be read several times, in order."""
    rows = [batch(a=[n, n + 1]) for n in range(0, 100, 2)]
    buffer = RowBuffer(rows[0].schema, limit=200)
    for each in rows:
        buffer.append(each)
    for _ in range(2):
        assert buffer.reader().read_all()["a"].to_pylist() == list(range(100))
    buffer.close()


def test_the_error_can_be_pickled():
    """A worker process can return it."""
    error = pickle.loads(pickle.dumps(ExpectationError("not met")))
    assert (str(error), error.report) == ("not met", None)
