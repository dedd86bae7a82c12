"""Values of nested types are compared by their hashes, and shown as they are."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import diff
from deltawitness.answers.diff import datasets
from deltawitness.answers.diff.datasets import nested_values
from deltawitness.exceptions import DiffError
from deltawitness.report.format import NESTED_CHARACTERS, row_values
from helpers.deletion_vectors import delete_rows
from helpers.ledger_commands import invoke, json_of

pytestmark = pytest.mark.slow

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("name", pa.string()),
        ("point", pa.struct([("x", pa.float64()), ("on", pa.date32())])),
        ("tags", pa.list_(pa.string())),
        ("prices", pa.map_(pa.string(), pa.decimal128(5, 2))),
        ("deep", pa.list_(pa.struct([("m", pa.map_(pa.int64(), pa.list_(pa.int64())))]))),
    ]
)


def row(number, **more):
    return {
        "id": number,
        "name": f"n{number}",
        "point": {"x": number / 2, "on": dt.date(2024, 2, 29)},
        "tags": ["a", None, "ö"],
        "prices": [("eur", Decimal("1.50")), ("usd", None)],
        "deep": [{"m": [(1, [number, 2])]}, None],
        **more,
    }


SHOWN = {
    "point": {"x": 1.0, "on": dt.date(2024, 2, 29)},
    "tags": ["a", None, "ö"],
    "prices": {"eur": Decimal("1.50"), "usd": None},
    "deep": [{"m": {1: [2, 2]}}, None],
}
"""The nested values of row 2."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A table of two versions: row 1 changes, row 3 goes and row 2 comes."""
    monkeypatch.chdir(tmp_path)
    versions = [
        [row(1), row(3)],
        [row(1, tags=[], prices=None, point=None), row(2)],
    ]
    for rows in versions:
        write_deltalake("t", pa.Table.from_pylist(rows, SCHEMA), mode="overwrite")
    return "t"


def test_rows_by_key_have_their_nested_values(place):
    """Changed columns have the values before and after, also where one is NULL or empty."""
    added, removed, changed = diff(place, 0, 1, key="id", show_rows=True).rows.examples
    assert (added.values, removed.values) == ({"id": 2}, {"id": 3})
    assert changed.before == {
        "point": {"x": 0.5, "on": dt.date(2024, 2, 29)},
        "tags": SHOWN["tags"],
        "prices": SHOWN["prices"],
    }
    assert changed.after == {"point": None, "tags": [], "prices": None}


def test_a_key_and_complete_rows_have_their_nested_values(place):
    """A nested column of a key, and all columns without a key."""
    keys = [
        each.values for each in diff(place, 0, 1, key=["id", "deep"], show_rows=True).rows.examples
    ]
    assert {"id": 2, "deep": SHOWN["deep"]} in keys
    rows = [each.values for each in diff(place, 0, 1, show_rows=True).rows.examples]
    assert {"id": 2, "name": "n2", **SHOWN} in rows
    assert len(rows) == 4


def test_the_command_prints_compact_json(place):
    """The terminal has cut JSON, and `--json` the complete values."""
    text = " ".join(invoke("diff", place, "0", "1", "--show-rows").stdout.split())
    assert 'tags=["a",null,"ö"]' in text.replace(" ", "")
    found = json_of("diff", place, "0", "1", "--show-rows", code=1)
    (values,) = [each["values"] for each in found["rows"]["examples"] if each["values"]["id"] == 2]
    assert values["prices"] == {"eur": "1.50", "usd": None}
    assert values["deep"] == [{"m": {"1": [2, 2]}}, None]


def test_long_values_are_cut():
    """A value of a nested type takes no more than its maximum; a text that is no nested value is complete."""
    shown = row_values({"x": list(range(1000)), "s": "s" * 200})
    nested, _, text = shown.removeprefix("x=").partition(", s=")
    assert (len(nested), nested[:8], nested[-1]) == (NESTED_CHARACTERS, "[0,1,2,3", "…")
    assert text == "s" * 200
    assert json.loads(row_values({"x": {"a": 'b"\n'}}).removeprefix("x=")) == {"a": 'b"\n'}


def test_deletion_vectors_and_a_text_that_is_a_hash(tmp_path):
    """Rows of files with deletion vectors have their values; a text is never taken for a hash."""
    place = str(tmp_path / "t")
    write_deltalake(place, pa.Table.from_pylist([row(1), row(2), row(3)], SCHEMA))
    delete_rows(place, [[0, 2]])
    found = diff(place, 0, 1, root=tmp_path / "ledger", show_rows=True).rows.examples
    assert [each.values["tags"] for each in found] == [SHOWN["tags"]] * 2
    hashed = datasets._hash(SHOWN["tags"])
    other = str(tmp_path / "o")
    write_deltalake(other, pa.table({"name": [hashed]}))
    write_deltalake(other, pa.table({"name": ["b"]}), mode="overwrite")
    texts = [each.values["name"] for each in diff(other, 0, 1, show_rows=True).rows.examples]
    assert sorted(texts) == sorted([hashed, "b"])


def test_values_of_maps_that_are_no_mapping(tmp_path):
    """A map with nested keys is a list of pairs."""
    kind = pa.map_(pa.struct([("a", pa.int64())]), pa.int64())
    source = datasets.RowSource("t", pa.schema([("m", kind)]), None, (lambda _: batches(kind),))
    wanted = {"m": {datasets._hash([({"a": 1}, 2)])}, "nope": {"x"}}
    assert list(nested_values(source, wanted)["m"].values()) == [[[{"a": 1}, 2]]]


def batches(kind):
    yield pa.record_batch({"m": pa.array([None, [({"a": 1}, 2)]], kind)})
    raise AssertionError("all values were found before")


def test_rows_that_can_no_longer_be_read(place, monkeypatch):
    """An error while the values are read is the error of rows that cannot be read."""

    def fail(source, wanted):
        raise OSError("gone")

    monkeypatch.setattr(datasets, "nested_values", fail)
    with pytest.raises(DiffError, match=r"the rows of t@0 cannot be read: .*gone"):
        diff(place, 0, 1, show_rows=True)
