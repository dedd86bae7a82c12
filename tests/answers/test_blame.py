"""`blame` finds the commits that wrote rows, through commits that only copied them."""

from __future__ import annotations

import datetime as dt
import decimal
import os
import pathlib

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, blame, run
from deltawitness.exceptions import LedgerLookupError, QuestionError
from helpers.deletion_vectors import delete_rows


@pytest.fixture
def table(tmp_path):
    """The path of a table."""
    return str(tmp_path / "t")


def rows_of(ids, **columns):
    return pa.table({"id": pa.array(ids, pa.int64()), "x": pa.array([1] * len(ids)), **columns})


def found_of(table, where, **more):
    """Return version, rows and copies of the writes of the only row."""
    (row,) = blame(table, where, root=f"{table}-ledger", **more).rows
    return [(each.version, each.rows, each.copied_by) for each in row.writes]


@pytest.mark.slow
def test_rewrites_that_copy_a_row_did_not_write_it(table):
    write_deltalake(table, rows_of([1, 2, 3]))
    write_deltalake(table, rows_of([4]), mode="append")
    DeltaTable(table).update({"x": "2"}, predicate="id = 1")
    DeltaTable(table).delete("id = 3")
    DeltaTable(table).optimize.compact()
    handle = DeltaTable(table)
    merge = handle.merge(rows_of([2, 9]), "s.id = t.id", "s", "t")
    merge.when_matched_update({"x": "7"}).when_not_matched_insert_all().execute()
    assert DeltaTable(table).version() == 5
    assert found_of(table, "id = 1") == [(2, 1, (5, 4, 3))]
    assert found_of(table, "id = 2") == [(5, 1, ())]
    assert found_of(table, "id = 4") == [(1, 1, (5, 4))]
    assert found_of(table, "id = 9") == [(5, 1, ())]
    assert found_of(f"{table}@0", "id = 1") == [(0, 1, ())]


@pytest.mark.slow
def test_the_commit_and_the_run_are_those_of_the_ledger(tmp_path, table):
    root = tmp_path / "ledger"
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(root)))
    try:
        with run("load", message="first") as load:
            write_deltalake(table, rows_of([1, 2]))
        with run("tidy"):
            DeltaTable(table).delete("id = 1")
        found = blame("t", "id = 2", root=root)
    finally:
        DeltaLakeInstrumentor().uninstrument()
    ((write,),) = (row.writes for row in found.rows)
    assert (write.commit.run_id, write.commit.message) == (load.run_id, "first")
    assert (write.version, write.copied_by, write.is_certain) == (0, (1,), True)
    assert found.rows[0].values is None


def test_equal_rows_of_several_commits(table):
    for _ in range(3):
        write_deltalake(table, rows_of([1, 1]), mode="append")
    DeltaTable(table).optimize.compact()
    write_deltalake(table, rows_of([1]), mode="append")
    expected = [(4, 1, ()), (2, 2, (3,)), (1, 2, (3,)), (0, 2, (3,))]
    assert found_of(table, "id = 1") == expected


def test_overwrites_write_all_rows_or_those_that_they_replace(table):
    write_deltalake(table, rows_of([1, 2]))
    write_deltalake(table, rows_of([1, 2]), mode="overwrite")
    assert found_of(table, "id = 1") == [(1, 1, ())]
    write_deltalake(table, rows_of([2, 2]), mode="overwrite", predicate="id = 2")
    assert found_of(table, "id = 1") == [(1, 1, (2,))]
    assert [version for version, *_ in found_of(table, "id = 2")] == [2, 1]


def test_a_restore_leads_to_the_restored_version(table):
    write_deltalake(table, rows_of([1, 2]))
    write_deltalake(table, rows_of([1]), mode="overwrite")
    DeltaTable(table).restore(0)
    assert found_of(table, "id = 2") == [(0, 1, (2,))]
    DeltaTable(table).delete("id = 1")
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for version in range(4):  # the engine takes the time of a version from its file
        written_at = (start + dt.timedelta(days=version)).timestamp()
        os.utime(f"{table}/_delta_log/{version:020}.json", (written_at, written_at))
    DeltaTable(table).restore(start + dt.timedelta(days=2, hours=1))
    assert found_of(table, "id = 2") == [(0, 1, (4, 2))]
    assert found_of(table, "id = 1") == [(0, 1, (4, 2))]


@pytest.mark.slow
def test_values_of_all_types_and_partitions(tmp_path, table):
    """Equal values are equal through partitions, NaN, NULL, nested values and times."""
    columns = {
        "part": pa.array(["a b", "d/e", None]),
        "s": pa.array(["a", "", None]),
        "f": pa.array([float("nan"), -0.0, None]),
        "d": pa.array([decimal.Decimal("1.50")] * 3, pa.decimal128(10, 2)),
        "t": pa.array([dt.datetime(2026, 1, 1, 1, 2, 3, 4, dt.UTC)] * 3, pa.timestamp("us", "UTC")),
        "day": pa.array([dt.date(2026, 1, 1), None, dt.date(1, 1, 1)]),
        "b": pa.array([b"\x00\xff", b"", None]),
        "list": pa.array([[1, None], [], None], pa.list_(pa.int64())),
        "struct": pa.array([{"a": float("nan")}, {"a": None}, None]),
    }
    write_deltalake(table, rows_of([1, 2, 3], **columns), partition_by=["part"])
    write_deltalake(table, rows_of([4, 5, 6], **columns), mode="append")
    DeltaTable(table).optimize.compact()
    DeltaTable(table).update({"x": "5"}, predicate="id >= 5")
    for key in (1, 2, 3):
        assert found_of(table, f"id = {key}")[0][0] == 0
    assert found_of(table, "id = 4")[0][0] == 1
    assert found_of(table, "id = 5")[0][0] == 3
    (row,) = blame(table, "part = 'd/e' AND id = 2", show_rows=True, root=tmp_path).rows
    assert (row.values["day"], row.values["list"]) == (None, [])


def test_a_column_that_was_added_later_is_null_before(table):
    write_deltalake(table, rows_of([1, 2]))
    more = rows_of([3], y=pa.array(["new"]))
    write_deltalake(table, more, mode="append", schema_mode="merge")
    DeltaTable(table).delete("id = 2")
    DeltaTable(table).update({"y": "'set'"}, predicate="id = 1")
    assert found_of(table, "id = 3")[0][0] == 1
    assert found_of(table, "id = 1")[0][0] == 3


def test_deletion_vectors(table):
    """Where the rows of a table are not those of its files, versions are compared completely."""
    more = {"b": pa.array([b"x", b"y"]), "n": pa.array([[1.5], None], pa.list_(pa.float64()))}
    write_deltalake(table, rows_of([1, 2], s=pa.array(["a", "b"]), **more))
    write_deltalake(table, rows_of([1, 3], s=pa.array(["a", None]), **more), mode="append")
    delete_rows(table, [[1], [1]])
    assert [each[:2] for each in found_of(table, "id = 1")] == [(1, 1), (0, 1)]


def test_files_that_were_deleted(table):
    """A MERGE may have copied a row from a file that was deleted; a DELETE certainly has."""

    def vacuum():
        DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)

    write_deltalake(table, rows_of([1, 2, 3]))
    DeltaTable(table).delete("id = 1")
    vacuum()
    (row,) = blame(table, "id = 2", root=f"{table}-ledger").rows
    assert [(each.version, each.copied_by) for each in row.writes] == [(None, (1,))]
    DeltaTable(table).update({"x": "3"}, predicate="id = 3")
    vacuum()
    found = blame(table, "id = 2", root=f"{table}-ledger")
    (write,) = found.rows[0].writes
    assert not write.is_certain
    assert "cannot be read" in found.notes[0]


def test_a_commit_that_is_no_longer_in_the_log(table):
    """The writer is unknown if its commit was cleaned up after a checkpoint."""
    write_deltalake(table, rows_of([1]))
    write_deltalake(table, rows_of([2]), mode="append")
    DeltaTable(table).create_checkpoint()
    write_deltalake(table, rows_of([3]), mode="append")
    for version in (0, 1):
        pathlib.Path(table, "_delta_log", f"{version:020d}.json").unlink()
    assert found_of(table, "id = 3") == [(2, 1, ())]
    assert found_of(table, "id = 1") == [(None, 1, ())]
    (write,) = blame(table, "id = 1", root=f"{table}-ledger").rows[0].writes
    assert write.commit is None


def test_a_newest_version_without_its_files(table):
    write_deltalake(table, rows_of([1]))
    for path in pathlib.Path(table).glob("*.parquet"):
        path.unlink()
    with pytest.raises(QuestionError, match="a data file was deleted"):
        blame(table, "id = 1", root=f"{table}-ledger")


def test_conditions_that_are_none_and_rows_that_are_not_there(table):
    write_deltalake(table, rows_of(range(20)))
    root = f"{table}-ledger"
    assert blame(table, "id = 99", root=root).rows == ()
    many = blame(table, "true", root=root)
    assert (len(many.rows), many.is_cut, many.versions) == (10, True, (0,))
    assert not blame(table, "true", limit=20, root=root).is_cut
    for where, message in (
        ("nope = 1", "No field named nope"),
        ("id", "Int64 = Boolean"),
        ("1=1); SELECT (1", "WHERE"),
        ("1=1) UNION (SELECT 1, 2", "ParserError"),
    ):
        with pytest.raises(QuestionError, match=message):
            blame(table, where, root=root)
    with pytest.raises(QuestionError, match="cannot be read"):
        blame(f"{table}@7", "true", root=root)
    with pytest.raises(LedgerLookupError):
        blame("nothing", "true", root=root)
