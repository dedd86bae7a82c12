"""`diff` between random versions is what plain Python computes from their rows."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import diff
from deltawitness.exceptions import DiffError
from helpers.histories import build_history
from helpers.sizes import seeds, sized

SEEDS = seeds(1, 2, 100)
RUNS = sized(4, 6, 6)


@pytest.fixture(scope="module", params=SEEDS)
def history(request, tmp_path_factory):
    """A history; its seed is the parameter."""
    return build_history(tmp_path_factory.mktemp("history"), request.param, runs=RUNS)


def pairs(history):
    """Yield the table and two truths, for neighbouring and for some distant versions; in `make test` for a part."""
    source = random.Random(5)
    for table in history.tables:
        commits = history.of(table)
        yield from ((table, a, b) for a, b in [*pairwise(commits)][:: sized(2, 1, 1)])
        for _ in range(sized(2, 3, 3)):
            yield table, *source.choices(commits, k=2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_differences_by_key_are_those_of_the_model(history):
    """Added, removed and changed keys, and the operations between, are those of the model."""
    for table, a, b in pairs(history):
        found = diff(table, a.version, b.version, key="id", root=history.root)
        common = a.rows.keys() & b.rows.keys()
        changed = sum(a.rows[key] != b.rows[key] for key in common)
        added, removed = len(b.rows.keys() - common), len(a.rows.keys() - common)
        rows = found.rows
        assert (rows.added, rows.removed, rows.changed) == (added, removed, changed)
        assert rows.columns == ({"value": changed} if changed else {})
        assert (found.rows_a, found.rows_b) == (len(a.rows), len(b.rows))
        assert found.is_different == (a.rows != b.rows)
        assert_operations(history, table, found, a.version, b.version)


def assert_operations(history, table, found, first, last):
    """Assert that the operations of a difference are those of the history."""
    low, high = sorted((first, last))
    expected = history.of(table)[low + 1 : high + 1]
    assert [each.version for each in found.operations] == [each.version for each in expected]
    for each, truth in zip(found.operations, expected, strict=True):
        assert each.operation == truth.operation
        assert each.run_id == (truth.run and truth.run.run_id)
        assert each.job == (truth.run and truth.run.job)
        assert each.message == truth.message


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_differences_of_multisets_are_those_of_the_model(history):
    """Without a key, complete rows are compared."""
    for table, a, b in pairs(history):
        found = diff(table, a.version, b.version, root=history.root).rows
        added, removed = b.rows.items() - a.rows.items(), a.rows.items() - b.rows.items()
        assert (found.added, found.removed, found.changed) == (len(added), len(removed), None)


# --- values of all types, and repeated rows ----------------------------------------------------------

VALUES = {
    "id": (None, *range(8)),
    "part": ("a", "b c", "d/e", None),
    "x": (None, float("nan"), 0.0, -0.0, 1.5, float("inf")),
    "text": (None, "", "ä", "b"),
    "list": (None, [], [None], [float("nan")], [0.0], [-0.0, 1.0]),
    "struct": (None, {"y": None}, {"y": 1}),
}
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("part", pa.string()),
        ("x", pa.float64()),
        ("text", pa.string()),
        ("list", pa.list_(pa.float64())),
        ("struct", pa.struct([("y", pa.int32())])),
    ]
)


def random_rows(source, count):
    """Return a table of rows, of which many are equal."""
    rows = [{name: source.choice(values) for name, values in VALUES.items()} for _ in range(count)]
    return pa.Table.from_pylist(rows, SCHEMA)


def write_versions(place, source):
    """Write some versions with rows of all types."""
    write_deltalake(place, random_rows(source, 12), partition_by=["part"])
    for _ in range(6):
        kind = source.randrange(4)
        table = DeltaTable(place)
        if kind == 0:
            table.delete(f"id = {source.randrange(8)}")
        elif kind == 1:
            table.update({"text": "'changed'"}, predicate=f"id = {source.randrange(8)}")
        elif kind == 2:
            table.optimize.compact()
        else:
            write_deltalake(place, random_rows(source, source.randrange(1, 6)), mode="append")
    return DeltaTable(place).version()


def canonical(value):
    """Return a value that is equal for values that count as equal."""
    if isinstance(value, float):
        return "NaN" if value != value else value + 0.0  # noqa: PLR0124 - NaN
    if isinstance(value, list):
        return tuple(map(canonical, value))
    if isinstance(value, dict):
        return tuple((name, canonical(each)) for name, each in value.items())
    return value


def content(place, version):
    """Return the rows of a version."""
    rows = DeltaTable(place, version=version).to_pyarrow_table().to_pylist()
    return [{name: canonical(value) for name, value in row.items()} for row in rows]


def multiset(rows):
    """Return how often each row occurs."""
    return Counter(tuple(row.items()) for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(max(len(SEEDS), 2)))
def test_rows_of_all_types(tmp_path, seed):
    """Multisets and keys with NULL, NaN, -0.0, nested and repeated values are compared as in Python."""
    source, place = random.Random(seed), str(tmp_path / "t")
    last = write_versions(place, source)
    for _ in range(4):
        first, second = source.randrange(last + 1), source.randrange(last + 1)
        a, b = content(place, first), content(place, second)
        found = diff(place, first, second, root=tmp_path).rows
        added, removed = multiset(b) - multiset(a), multiset(a) - multiset(b)
        assert (found.added, found.removed) == (added.total(), removed.total())
        assert_by_key(place, (first, second), (a, b), tmp_path)


def assert_by_key(place, versions, rows, root):
    """Assert that the comparison by `id` and `part` is the truth, or that repeated keys are an error."""
    key = ("id", "part")
    counts = [Counter(tuple(row[name] for name in key) for row in side) for side in rows]
    repeated = {at for each in counts for at, count in each.items() if count > 1}
    try:
        found = diff(place, *versions, key=key, root=root).rows
    except DiffError:
        assert repeated
        return
    # Rows with repeated keys are in files that both versions have.
    by_key = [
        {at: row for row in side if (at := tuple(row[name] for name in key)) not in repeated}
        for side in rows
    ]
    left, right = by_key
    common = left.keys() & right.keys()
    changed = [name for at in common for name in left[at] if left[at][name] != right[at][name]]
    assert found.columns == dict(Counter(changed))
    assert found.changed == sum(left[at] != right[at] for at in common)
    assert (found.added, found.removed) == (len(right.keys() - common), len(left.keys() - common))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(max(len(SEEDS), 2)))
def test_unique_keys_of_all_types(tmp_path, seed):
    """A table with unique keys is compared by key, whatever files the versions share."""
    source, place = random.Random(seed), str(tmp_path / "t")
    rows = random_rows(source, 30).drop_columns(["id"])
    keys = [*range(29), None]
    for start in range(0, 30, 6):
        part = rows.slice(start, 6).append_column(
            "id", pa.array(keys[start : start + 6], pa.int64())
        )
        write_deltalake(place, part.select(SCHEMA.names), mode="append")
    DeltaTable(place).update({"text": "'changed'"}, predicate=f"id < {source.randrange(30)}")
    DeltaTable(place).delete(f"id = {source.randrange(29)}")
    DeltaTable(place).optimize.compact()
    versions = source.sample(range(DeltaTable(place).version() + 1), 2)
    assert_by_key(place, versions, [content(place, each) for each in versions], tmp_path)
    assert diff(place, *versions, key="id", root=tmp_path).rows.key == ("id",)
