"""Commits are also read from logs on which stricter readers fail."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from deltawitness import history, read_commit_metadata
from deltawitness.commit.engine_version import engine_version, has_release
from deltawitness.commit.reader import parse_commit
from deltawitness.exceptions import CommitNotFoundError

DATA = pa.table({"id": [1, 2, 3]})


@pytest.fixture
def table(tmp_path):
    """A table of two versions, the second with the caller's metadata."""
    uri = tmp_path / "flights"
    write_deltalake(uri, DATA)
    write_deltalake(uri, DATA, mode="append", commit_properties=CommitProperties({"team": "ops"}))
    return uri


def rewritten(table, version, line):
    """Replace the commit of `version` by one line of JSON, as another writer might write it."""
    (table / "_delta_log" / f"{version:020d}.json").write_text(line)


def test_the_last_commit_is_read_by_default(table):
    """Operation, metrics and engine are separated from the metadata."""
    commit = read_commit_metadata(table)
    assert commit.version == 1
    assert commit.operation == "WRITE"
    assert commit.operation_metrics["num_added_rows"] == 3
    assert commit.operation_parameters["mode"] == "Append"
    assert commit.engine_info.endswith(f"py-{engine_version()}")
    assert commit.metadata == {"team": "ops"}
    assert commit.problems == ()
    assert commit.timestamp > 1_600_000_000_000


@pytest.mark.parametrize(
    "spelling", [str, Path, DeltaTable, lambda p: f"file://{p}", lambda p: f"{p}/"]
)
def test_a_table_is_found_under_every_spelling_of_its_location(table, spelling):
    """A text path, a `Path`, a URI and an open table lead to the same commit."""
    assert read_commit_metadata(spelling(table), 0).version == 0


def test_a_missing_version_is_an_error(table):
    """The error names the missing version."""
    with pytest.raises(CommitNotFoundError, match="commit 9"):
        read_commit_metadata(table, 9)


@pytest.mark.parametrize("version", [None, 0])
def test_a_location_without_a_table_is_an_error(tmp_path, version):
    """The error says that there is no Delta log."""
    with pytest.raises(CommitNotFoundError, match="there is no Delta log"):
        read_commit_metadata(tmp_path / "nothing", version)


def test_history_is_newest_first_and_limited(table):
    """The order is that of `DeltaTable.history`."""
    assert [commit.version for commit in history(table)] == [1, 0]
    assert [commit.version for commit in history(table, limit=1)] == [1]


def test_a_duplicate_key_counts_with_the_engines_value(table):
    """delta-rs 1.4.2 lets a caller write `operation` a second time, and its `history` then fails."""
    rewritten(
        table,
        1,
        '{"commitInfo":{"timestamp":1,"operation":"WRITE","engineInfo":"e","operation":"mine"}}',
    )
    commit = read_commit_metadata(table, 1)
    assert commit.operation == "WRITE"
    assert commit.problems == ("the key 'operation' is there twice",)


def test_a_bad_in_commit_timestamp_is_reported_and_read_past(tmp_path):
    """delta-rs accepts a bad `inCommitTimestamp` from a caller, and its `history` then raises."""
    write_deltalake(tmp_path, DATA)
    write_deltalake(
        tmp_path,
        DATA,
        mode="append",
        commit_properties=CommitProperties({"inCommitTimestamp": "x"}),
    )
    if has_release("1.6.3"):
        with pytest.raises(Exception, match="expected i64"):
            DeltaTable(tmp_path).history()
    newest, oldest = history(tmp_path)
    assert newest.problems == ("inCommitTimestamp is not a number",)
    assert (newest.operation, oldest.problems) == ("WRITE", ())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"commitInfo":{broken', "the commitInfo line is not JSON"),
        ('{"add":{"path":"x"}}', "the commit has no commitInfo"),
        ('{"commitInfo":7}', "the commit has no commitInfo"),
        ("", "the commit has no commitInfo"),
    ],
)
def test_a_commit_without_a_readable_commit_info_is_reported(content, problem):
    """It is returned as a commit of an unknown operation."""
    commit = parse_commit(4, content.encode())
    assert (commit.version, commit.operation) == (4, None)
    assert problem in commit.problems


def test_fields_of_the_wrong_type_count_as_absent():
    """A field of the wrong type, on which a typed reader fails, is None or empty."""
    commit = parse_commit(
        0, b'{"commitInfo":{"timestamp":"late","operation":7,"operationMetrics":[]}}'
    )
    assert (commit.timestamp, commit.operation, commit.operation_metrics) == (None, None, {})


def test_our_keys_are_found_in_user_metadata_when_the_flat_ones_are_gone():
    """Spark drops keys that it does not know, and preserves `userMetadata`."""
    ours = json.dumps({"run_id": "r-1", "write_id": "w-1"})
    raw = json.dumps({"commitInfo": {"operation": "WRITE", "userMetadata": ours}})
    commit = parse_commit(0, raw.encode())
    assert (commit.run_id, commit.write_id) == ("r-1", "w-1")


@pytest.mark.parametrize("theirs", ["not json", "[]", '{"run_id": "r-1"}', 7])
def test_foreign_user_metadata_is_ignored(theirs):
    """Only `userMetadata` that is JSON with a write id is ours."""
    raw = json.dumps({"commitInfo": {"userMetadata": theirs}})
    assert parse_commit(0, raw.encode()).write_id is None


def test_a_limit_of_zero_yields_nothing_and_a_negative_one_is_refused(table):
    """A limit of 0 yields no commit; a negative limit raises ValueError."""
    assert list(history(table, limit=0)) == []
    with pytest.raises(ValueError, match="limit"):
        list(history(table, limit=-1))


@pytest.mark.parametrize("key", ["job", "tags"])
def test_keys_that_typed_readers_reserve_are_shown_when_a_caller_set_them(key, tmp_path):
    """`job` and `tags` of a caller are in the metadata, as they are in no other field."""
    mine = CommitProperties(custom_metadata={key: "mine"})
    write_deltalake(tmp_path / "t", pa.table({"x": [1]}), commit_properties=mine)
    assert read_commit_metadata(tmp_path / "t").metadata[key] == "mine"
