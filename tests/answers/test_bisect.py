"""`bisect` finds the first bad version, says what it could not test, and follows the inputs that show the cause."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, bisect, run
from deltawitness.answers.bisect_values import BisectState
from deltawitness.exceptions import LedgerLookupError, QuestionError


@pytest.fixture
def root(tmp_path):
    """The cache root of a ledger, with observation."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path / "ledger")))
    yield tmp_path / "ledger"
    DeltaLakeInstrumentor().uninstrument()


@pytest.fixture
def write(tmp_path):
    """Write values to a table; each call is a version."""

    def overwrite(*values, table="t", **more):
        rows = pa.table({"x": pa.array(values, pa.int64())})
        write_deltalake(tmp_path / table, rows, mode="overwrite", **more)

    return overwrite


READ = "abs(x) <> x"
"""True for a negative number; unlike `x < 0`, statistics of files do not answer it."""


def vacuum(table):
    """Delete the files of all versions but the last one."""
    DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)


@pytest.mark.parametrize(
    "bad",
    [
        "x < 0",
        "min(x) < 0",
        "SELECT min(x) < 0 FROM t",
        "WITH a AS (SELECT x FROM t) SELECT count(*) > 0 FROM a WHERE x < 0 -- why",
        "SELECT true FROM t WHERE x < 0 LIMIT 1;",
        "(SELECT count(*) FROM t WHERE x < 0) > 0",
    ],
)
def test_the_forms_of_a_condition(tmp_path, write, bad):
    for value in (1, 2, -3, -4):
        write(value)
    found = bisect(str(tmp_path / "t"), bad, root=tmp_path / "ledger")
    assert (found.state, found.table.version, found.last_good) == (BisectState.FOUND, 2, 1)
    assert found.commit.in_log
    assert not found.commit.in_ledger


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("", "the SQL is empty"),
        ("y < 0", "No field named y"),
        ("x", "does not return one boolean value"),
        ("SELECT x FROM t", "does not return one boolean value"),
        ("SELECT x < 0, x FROM t", "does not return one boolean value"),
        ("DELETE FROM t", "the SQL is not valid for t"),
        ("true); DROP TABLE t; SELECT (true", "the SQL is not valid for t"),
    ],
)
def test_a_condition_that_is_none(tmp_path, write, bad, message):
    write(1, 2, 3)
    with pytest.raises(QuestionError, match=message):
        bisect(str(tmp_path / "t"), bad, root=tmp_path / "ledger")
    assert DeltaTable(tmp_path / "t").version() == 0


def test_a_name_without_a_table(tmp_path):
    with pytest.raises(LedgerLookupError, match="no table has the name"):
        bisect("nothing", "true", root=tmp_path / "ledger")


def test_versions_that_are_good_again_are_named(tmp_path, write):
    """The result is the earliest bad version that is known, also if a later one is good again."""
    for value in (1, -1, 2, 3, -2, -3):
        write(value)
    table = str(tmp_path / "t")
    found = bisect(table, "x < 0", root=tmp_path / "ledger")
    assert (found.table.version, found.last_good, found.is_monotone) == (1, 0, False)
    assert found.good_again == (2, 3)
    without = bisect(table, "x < 0", checks=0, root=tmp_path / "ledger")
    assert (without.table.version, without.is_monotone) == (4, None)


def test_ends_of_the_search(tmp_path, write):
    for value in (1, 2, -1, -2, 3):
        write(value)
    table, root = str(tmp_path / "t"), tmp_path / "ledger"
    assert bisect(table, "x > 9", root=root).state is BisectState.NEVER
    assert bisect(f"{table}@1", "x < 0", root=root).state is BisectState.NEVER
    first = bisect(f"{table}@1", "x > 0", root=root)
    assert (first.state, first.table.version, first.last_good) == (BisectState.FOUND, 0, None)
    after = bisect(f"{table}@3", "x < 0", good=2, root=root)
    assert (after.state, after.table.version, after.last_good) == (BisectState.FOUND, 3, 2)
    with pytest.raises(LedgerLookupError, match="no version in the range"):
        bisect(table, "x < 0", good=4, root=root)
    with pytest.raises(ValueError, match="checks: expected 0 or more"):
        bisect(table, "x < 0", checks=-1, root=root)


def test_a_version_without_the_column_is_good(tmp_path):
    for rows in ({"x": [1]}, {"x": [1]}, {"x": [2], "y": [-1]}):
        write_deltalake(tmp_path / "t", pa.table(rows), mode="overwrite", schema_mode="overwrite")
    found = bisect(str(tmp_path / "t"), "y < 0", root=tmp_path / "ledger")
    assert (found.state, found.table.version, found.last_good) == (BisectState.FOUND, 2, 1)
    assert "No field named y" in found.tested[0].reason


@pytest.mark.slow
def test_versions_whose_files_were_deleted_are_skipped(tmp_path, write):
    """Then the first bad version is one of several, which are listed."""
    table = tmp_path / "t"
    for value in (1, 2, 3):
        write(value)
    vacuum(table)
    for value in (-4, -5):
        write(value)
    found = bisect(str(table), READ, root=tmp_path / "ledger")
    skipped = {each.version: each.reason for each in found.skipped}
    assert skipped == dict.fromkeys((0, 1), "a data file was deleted")
    assert (found.state, found.table.version, found.last_good) == (BisectState.FOUND, 5, 4)
    vacuum(table)
    found = bisect(str(table), READ, root=tmp_path / "ledger")
    assert (found.state, found.table.version, found.last_good) == (BisectState.ALWAYS, 6, None)


def test_a_version_with_the_rows_of_another_one_needs_no_test(tmp_path):
    """After a compaction and a vacuum, the append before has the rows of the compaction."""
    table = tmp_path / "t"
    for value in (1, 2, -3):
        write_deltalake(table, pa.table({"x": [value]}), mode="append")
    DeltaTable(table).optimize.compact()
    kept = {path.name: path.read_bytes() for path in table.glob("*.parquet")}
    vacuum(table)
    actions = DeltaTable(table, version=1).get_add_actions()
    for path in pa.table(actions)["path"].to_pylist():
        (table / path).write_bytes(kept[path])
    found = bisect(str(table), READ, root=tmp_path / "ledger")
    assert (found.state, found.table.version, found.last_good) == (BisectState.FOUND, 2, 1)
    assert found.commit.operation == "WRITE"
    (table / path).unlink()
    found = bisect(str(table), READ, good=0, root=tmp_path / "ledger")
    assert (found.state, found.table.version, found.last_good) == (BisectState.RANGE, 2, 0)
    assert [each.version for each in found.candidates] == [1, 2]


def derive(tmp_path, source, target, change=lambda values: values):
    """Overwrite a table with the changed rows of another one, in a run."""
    with run(f"make {target}") as opened:
        values = DeltaTable(tmp_path / source).to_pyarrow_table()["x"].to_pylist()
        rows = pa.table({"x": pa.array(change(values), pa.int64())})
        write_deltalake(tmp_path / target, rows, mode="overwrite")
    return opened


@pytest.mark.slow
def test_the_cause_is_followed_into_the_input(tmp_path, root, write):
    write(1, table="raw")
    derive(tmp_path, "raw", "report")
    with run("load", message="late data") as load:
        write(-1, table="raw")
    write(-1, 2, table="raw")
    made = derive(tmp_path, "raw", "report")
    found = bisect("report", "x < 0", root=root)
    assert (found.table.version, found.commit.run_id) == (1, made.run_id)
    (read,) = found.inputs
    assert (str(read.table), read.previous, read.is_bad) == ("raw@2", 0, True)
    assert read.is_changed
    assert read.is_inferred
    (cause,) = found.causes
    assert (str(cause.table), cause.last_good) == ("raw@1", 0)
    assert (cause.commit.run_id, cause.commit.message) == (load.run_id, "late data")
    shallow = bisect("report", "x < 0", depth=1, root=root)
    assert shallow.inputs[0].reason == "the maximum depth is reached"
    assert shallow.causes == (shallow,)


@pytest.mark.slow
def test_an_input_that_was_bad_before_is_not_the_cause(tmp_path, root, write):
    """The job began to copy the bad rows: the cause is its own change."""
    write(-1, 2, table="raw")
    derive(tmp_path, "raw", "report", lambda values: [each for each in values if each > 0])
    write(-1, 3, table="raw")
    derive(tmp_path, "raw", "report")
    found = bisect("report", "x < 0", root=root)
    (read,) = found.inputs
    assert (read.is_changed, read.is_bad, read.cause) == (True, True, None)
    assert read.reason == "it was bad already when the last good version was written"
    assert found.causes == (found,)


@pytest.mark.slow
def test_a_good_input_is_not_the_cause(tmp_path, root, write):
    write(1, table="raw")
    derive(tmp_path, "raw", "report")
    derive(tmp_path, "raw", "report", lambda values: [-each for each in values])
    found = bisect("report", "x < 0", root=root)
    (read,) = found.inputs
    assert (read.is_changed, read.is_bad, read.cause) == (False, False, None)


@pytest.mark.slow
def test_inputs_that_cannot_be_followed(tmp_path, root, write):
    """Tables that were made from each other, and an input whose files were deleted."""
    write(1, table="a")
    derive(tmp_path, "a", "b")
    write(-1, table="a")
    derive(tmp_path, "a", "b")
    derive(tmp_path, "b", "a")
    derive(tmp_path, "a", "b")
    found = bisect("b", "x < 0", root=root)
    assert [str(each.table) for each in found.causes] == ["a@1"]
    for path in (tmp_path / "a").glob("*.parquet"):
        path.unlink()
    found = bisect("b", "abs(x) <> x", root=root)
    (read,) = found.inputs
    assert (read.is_bad, read.reason, read.cause) == (None, "a data file was deleted", None)


@pytest.mark.slow
def test_an_input_whose_location_is_not_known(tmp_path, root, write):
    """Without the ledger, the commit has only the id of the input."""
    write(1, table="raw")
    derive(tmp_path, "raw", "report")
    write(-1, table="raw")
    derive(tmp_path, "raw", "report")
    found = bisect(str(tmp_path / "report"), "x < 0", root=tmp_path / "no ledger")
    (read,) = found.inputs
    assert (read.reason, read.previous) == ("its location is not known", None)


def test_a_table_that_cannot_be_read(tmp_path, write):
    write(1)
    write(2)
    (tmp_path / "t" / "_delta_log" / f"{1:020d}.json").write_text("{")
    with pytest.raises(QuestionError, match="t cannot be read"):
        bisect(str(tmp_path / "t"), "x < 0", root=tmp_path / "ledger")
