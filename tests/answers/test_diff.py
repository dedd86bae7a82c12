"""`diff` of tables: names, schemas, properties, files, keys, features of the protocol, statistics and output."""

from __future__ import annotations

import json
import math
import threading

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, diff, run
from deltawitness.answers.diff import by_key, engine
from deltawitness.answers.diff.table_values import DiffChange, FileChanges
from deltawitness.exceptions import DiffError, LedgerLookupError, MissingExtraError
from helpers.deletion_vectors import delete_rows
from helpers.ledger_commands import error_of, invoke, json_of

ROWS = pa.table({"id": [1, 2, 3, 4], "x": [1.0, float("nan"), None, -0.0], "name": list("abcd")})


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table `t`: version 1 updates row 1, version 2 deletes row 4, version 3 appends row 5."""
    monkeypatch.chdir(tmp_path)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=".deltawitness"))
    with run("load", run_id="load-1", message="first"):
        write_deltalake("t", ROWS)
    with run("fix", run_id="fix-1"):
        DeltaTable("t").update({"name": "'z'"}, predicate="id = 1")
        DeltaTable("t").delete("id = 4")
        write_deltalake("t", ROWS.slice(0, 1).set_column(0, "id", pa.array([5])), mode="append")
    DeltaLakeInstrumentor().uninstrument()
    return "t"


def counts(found):
    """Return the numbers of added, removed and changed rows."""
    return found.rows.added, found.rows.removed, found.rows.changed


def rewrite(rows, **more):
    """Write another version with the rows of a table."""
    write_deltalake("t", rows, mode="overwrite", **more)


# --- names -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_ways_to_name_two_versions(table):
    """Three arguments, two names, a name with a version, and a name alone select versions."""
    expected = diff("t", 2, 3)
    assert (expected.a.version, expected.b.version) == (2, 3)
    for names in (("t@2", "t@3"), ("t@3",), ("t",), ("table:t@2", "t")):
        assert diff(*names) == expected
    DeltaTable("t").optimize.compact()
    assert (diff("t").a.version, diff("t").b.version) == (2, 3)  # optimize changes no rows
    reverse = diff("t", 3, 2)
    assert (counts(expected), counts(reverse)) == ((1, 0, None), (0, 1, None))
    assert reverse.operations == expected.operations


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "error", "text"),
    [
        ((), DiffError, "expected TABLE"),
        (("t", "0", "x"), DiffError, "expected TABLE"),
        (("t@0",), DiffError, "t@0 is the first version"),
        (("t", 0, 9), DiffError, "t@9 cannot be read"),
        (("t", "load-1"), DiffError, "only with another run"),
        (("load-1",), DiffError, "only with another run"),
        (("other",), LedgerLookupError, "other"),
    ],
)
def test_wrong_names(table, names, error, text):
    """An error says what is wrong with the names."""
    with pytest.raises(error, match=text):
        diff(*names)


def test_a_table_with_one_version(tmp_path):
    """A table whose rows changed once has no two versions to compare."""
    write_deltalake(tmp_path / "one", ROWS)
    with pytest.raises(DiffError, match="does not have two versions"):
        diff(str(tmp_path / "one"), root=tmp_path / "ledger")


# --- logs --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_operations_have_their_runs(table):
    """Run, job, message, predicate and counts of each operation are in the result."""
    update, delete, append = diff("t", 0, 3).operations
    assert (update.operation, update.run_id, update.job, update.rows_updated) == (
        *("UPDATE", "fix-1", "fix", 1),
    )
    assert (delete.operation, delete.predicate, delete.rows_deleted) == ("DELETE", "id = 4", 1)
    assert (append.operation, append.mode, append.rows_added) == ("WRITE", "append", 1)


@pytest.mark.slow
def test_schema_partition_columns_and_properties(table):
    """Columns that were added, removed or have another type differ, and so do the properties."""
    changed = pa.table({"id": pa.array([1, 2], pa.int32()), "name": ["z", "b"], "new": [[1], None]})
    rewrite(
        changed,
        schema_mode="overwrite",
        partition_by=["id"],
        configuration={"delta.appendOnly": "false"},
    )
    DeltaTable("t").alter.set_table_properties({"delta.logRetentionDuration": "interval 9 days"})
    found = diff("t", 1, 5, key="id")
    assert [(each.name, each.change, each.type_a, each.type_b) for each in found.columns] == [
        ("id", DiffChange.CHANGED, "long", "integer"),
        ("x", DiffChange.REMOVED, "double", None),
        ("new", DiffChange.ADDED, None, "array<long>"),
    ]
    assert (found.partition_columns_a, found.partition_columns_b) == ((), ("id",))
    changes = {each.name: (each.a, each.b) for each in found.properties}
    assert changes["delta.logRetentionDuration"] == (None, "interval 9 days")
    assert counts(found) == (0, 2, 0)


@pytest.mark.slow
def test_values_of_another_type_are_compared_as_text(table):
    """A column that becomes text is compared by its text."""
    texts = [None if value is None else str(value) for value in ROWS["id"].to_pylist()]
    rewrite(ROWS.set_column(0, "id", pa.array(texts)), schema_mode="overwrite")
    assert counts(diff("t", 0, 4, key="id")) == (0, 0, 0)
    assert counts(diff("t", 0, 4)) == (0, 0, None)


@pytest.mark.slow
def test_files(table):
    """Files in both versions are counted apart; without rows, other files are a difference."""
    found = diff("t", 2, 3, rows=False)
    assert (found.rows, found.is_different) == (None, True)
    assert found.files == FileChanges(1, 0, 1, found.files.bytes_added, 0)
    assert found.files.bytes_added > 0
    assert not diff("t", 2, 2, rows=False).is_different
    DeltaTable("t").optimize.compact()
    assert diff("t", 3, 4, rows=False).is_different
    assert not diff("t", 3, 4).is_different


@pytest.mark.slow
def test_two_tables(table):
    """Two tables are compared by their rows; operations are not listed."""
    write_deltalake("copy", DeltaTable("t").to_pyarrow_table())
    found = diff("t", "copy", key="id")
    assert (counts(found), found.operations, found.files.shared) == ((0, 0, 0), (), 0)
    assert "different tables" in found.notes[0]
    assert not found.is_different


# --- rows --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nan_null_and_negative_zero_are_equal_to_themselves(table):
    """Values that are equal for a reader are no difference, in other files and another order."""
    rows = ROWS.take([3, 2, 1, 0]).set_column(1, "x", pa.array([0.0, None, float("nan"), 1.0]))
    rewrite(rows)
    assert counts(diff("t", 0, 4, key="id")) == (0, 0, 0)
    assert counts(diff("t", 0, 4)) == (0, 0, None)
    rewrite(rows.set_column(1, "x", pa.array([1.0, float("nan"), None, 1.0])))
    found = diff("t", 0, 5, key="id")
    assert (counts(found), found.rows.columns) == ((0, 0, 3), {"x": 3})


@pytest.mark.slow
def test_examples_are_returned_only_on_request(table):
    """Values of rows are in the result with `show_rows`, in the order of the key."""
    assert diff("t", 0, 3, key="id").rows.examples == ()
    found = diff("t", 0, 3, key="id", show_rows=True).rows.examples
    assert [(each.change.value, each.values, each.before, each.after) for each in found] == [
        ("added", {"id": 5}, {}, {}),
        ("removed", {"id": 4}, {}, {}),
        ("changed", {"id": 1}, {"name": "a"}, {"name": "z"}),
    ]
    without = diff("t", 2, 3, show_rows=True).rows.examples
    assert [(each.change.value, each.values) for each in without] == [
        ("added", {"id": 5, "x": 1.0, "name": "a"})
    ]
    rewrite(pa.concat_tables([ROWS] * 3))
    (twice, *_) = diff("t", 0, 4, show_rows=True, limit=1).rows.examples
    assert (twice.change, twice.count, twice.values["id"]) == (DiffChange.ADDED, 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["id", ["id", "name"], "name"])
def test_many_passes_have_the_same_result(table, key, monkeypatch):
    """A join in passes has the counts and the examples of one join; keys that are no integers have one pass."""
    rewrite(pa.table({"id": [-7, 1, None, 4], "x": [2.0, 1.0, None, 0.0], "name": list("azcd")}))
    once = diff("t", 0, 4, key=key, show_rows=True)
    monkeypatch.setattr(by_key, "PASS_BYTES", 30)
    assert diff("t", 0, 4, key=key, show_rows=True) == once
    assert once.rows.added > 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([1, 2], [1, 2, 2]),
        ([1, 2, 2], [1, 2]),
        ([1, 2, 2], [2, 2, 1]),
        ([1], [5, 5]),
        ([5, 5], [1]),
        ([1], [None, None]),
        (list(range(40)), [*range(40), *[7] * 2]),
        (list(range(40)), [*range(40), 50, 50]),
    ],
)
@pytest.mark.parametrize("key", ["id", ["id", "x"]])
def test_repeated_keys_are_an_error(tmp_path, before, after, key):
    """An error has the number of repeated keys of each version."""
    place = str(tmp_path / "t")
    for ids in (before, after):
        rows = pa.table({"id": pa.array(ids, pa.int64()), "x": [1] * len(ids)})
        write_deltalake(place, rows, mode="overwrite")
    with pytest.raises(DiffError, match=r"are repeated: 1 in t@\d"):
        diff(place, 0, 1, key=key, root=tmp_path / "ledger")


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_many_equal_keys_end_the_join(tmp_path):
    """A key that is nearly unique, but has one value many times, is an error in time that a join would not end in."""
    place, count = str(tmp_path / "t"), 200_000
    for shift in (0, 1):
        ids = [-1] * (count // 20) + list(range(shift, count))
        write_deltalake(place, pa.table({"id": ids}), mode="overwrite")
    with pytest.raises(DiffError, match="repeated: 1 in t@0 and 1 in t@1;"):
        diff(place, 0, 1, key="id", root=tmp_path / "ledger")


def test_a_key_of_a_shared_file_in_a_changed_file_is_repeated(tmp_path):
    """A key that is appended again is found, though the file of the first row is in both versions."""
    place = str(tmp_path / "t")
    write_deltalake(place, pa.table({"id": [1, 2], "part": [1, 2]}))
    write_deltalake(place, pa.table({"id": [2, 3], "part": [1, 2]}), mode="append")
    with pytest.raises(DiffError, match="id are repeated: 1 in t@1;"):
        diff(place, 0, 1, key="id", root=tmp_path / "ledger")
    found = diff(place, 0, 1, key=["id", "part"], root=tmp_path / "ledger")
    assert counts(found) == (2, 0, 0)


@pytest.mark.slow
def test_a_key_must_be_in_both_versions(table):
    """A column that a version does not have is no key."""
    with pytest.raises(DiffError, match="t@0 and t@1 do not both have the column nope"):
        diff("t", 0, 1, key=["id", "nope"])


def test_deletion_vectors(tmp_path):
    """A file with another deletion vector has other rows, though its name is the same."""
    place = str(tmp_path / "t")
    write_deltalake(place, ROWS)
    delete_rows(place, [[0, 2]])
    found = diff(place, 0, 1, key="id", root=tmp_path / "ledger", show_rows=True)
    assert counts(found) == (0, 2, 0)
    assert [each.values["id"] for each in found.rows.examples] == [1, 3]
    assert counts(diff(place, 0, 1, root=tmp_path / "ledger")) == (0, 2, None)


@pytest.mark.slow
def test_different_rows_of_two_tables(table):
    """Two tables share no files, so that all their rows are compared."""
    write_deltalake("other", ROWS.slice(0, 2))
    found = diff("other", "t@0", key="id")
    assert counts(found) == (2, 0, 0)


@pytest.mark.slow
def test_a_query_that_exceeds_the_memory_sorts_instead(table, monkeypatch):
    """A join that does not fit into memory runs once more, as a sort-merge join."""
    real = engine._collect
    calls = []

    def collect(session, sql):
        calls.append(sql)
        if len(calls) == 1:
            message = "Resources exhausted: Failed to allocate"
            raise RuntimeError(message)
        return real(session, sql)

    monkeypatch.setattr(engine, "_collect", collect)
    assert counts(diff("t", 0, 3, key="id")) == (1, 1, 1)
    assert calls[0] == calls[1]


# --- statistics --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_statistics(table):
    """Both versions have rows, nulls, distinct values, bounds and sums; texts only with `show_rows`."""
    found = diff("t", 0, 3, statistics=True).statistics
    a, b = found["id"]
    assert (a.rows, a.nulls, a.distinct, a.min, a.max, a.sum) == (4, 0, 4, 1, 4, 10)
    assert (b.min, b.max, b.sum) == (1, 5, 11)
    assert (found["x"][0].nulls, found["x"][0].min, found["name"][0].min) == (1, 0.0, None)
    assert math.isnan(found["x"][0].max)
    shown = diff("t", 0, 3, statistics=True, show_rows=True).statistics
    assert (shown["name"][1].min, shown["name"][1].max) == ("a", "z")


# --- the command -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_exit_codes(table):
    """0 without a difference, 1 with one, 2 after an error."""
    assert invoke("diff", "t", "1", "1").exit_code == 0
    assert invoke("diff", "t", "0", "3").exit_code == 1
    assert "t@9 cannot be read" in error_of("diff", "t", "0", "9", code=2)
    assert "no table has the name" in error_of("diff", "nope", code=2)
    assert invoke("diff").exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--key", "id"), ("--stats",)])
def test_a_deleted_data_file(table, options):
    """The error names the version whose rows cannot be read; the reads of the other version have ended."""
    DeltaTable("t").vacuum(0, dry_run=False, enforce_retention_duration=False)
    text = error_of("diff", "t", "0", "3", *options, code=2)
    assert "the rows of t@0 cannot be read: a data file was deleted" in text
    assert not [each for each in threading.enumerate() if each.name == "deltawitness-scan"]
    assert invoke("diff", "t", "0", "3", "--no-rows").exit_code == 1


@pytest.mark.slow
def test_the_text(table):
    """The text has operations, counts and no values of rows."""
    text = invoke("diff", "t", "0", "3", "--key", "id").stdout
    assert text.startswith("t@0 -> t@3\noperations:\n")
    assert "rows by key id: 1 added, 1 removed, 1 changed" in text
    assert "examples" not in text
    assert text.endswith("different\n")
    shown = invoke("diff", "t", "0", "3", "--key", "id", "--show-rows", "--stats").stdout
    assert "name=a" in shown
    assert "name=z" in shown
    assert invoke("diff", "t", "1", "1").stdout.endswith("no difference\n")


@pytest.mark.slow
def test_json(table):
    """The object has the attributes of the value; NaN is a text."""
    found = json_of("diff", "t", "0", "3", "--key", "id", "--stats", code=1)
    assert (found["kind"], found["is_different"]) == ("tables", True)
    assert (found["a"]["version"], found["rows"]["changed"]) == (0, 1)
    assert found["statistics"]["x"][0]["max"] == "nan"
    assert "NaN" not in json.dumps(found)


@pytest.mark.slow
def test_without_datafusion(table, monkeypatch):
    """The error names the extra; logs are compared without it."""
    monkeypatch.setattr("deltawitness.extras.is_installed", lambda _: False)
    with pytest.raises(MissingExtraError, match=r"install deltawitness\[datafusion\]"):
        diff("t", 0, 1)
    assert diff("t", 0, 1, rows=False).files.added == 1
    assert "deltawitness[datafusion]" in error_of("diff", "t", "0", "1", code=2)
