"""The result and the metrics of a write are read from its commits, under one set of names."""

from __future__ import annotations

import json

import pytest

from deltawitness.commit.log import LocalLog
from deltawitness.commit.metrics import normalize_metrics
from deltawitness.commit.outcome import RawCommit, find_landed, metrics_of, search_commits
from deltawitness.events import UNCHANGED, Landed
from deltawitness.semconv import Operation


@pytest.fixture
def log(tmp_path):
    """A log of commits 0 to 9; commit 7 has the write id `mine`."""
    for version in range(10):
        info = {"commitInfo": {"write_id": "mine" if version == 7 else f"other-{version}"}}
        (tmp_path / f"{version:020d}.json").write_text(json.dumps(info))
    return LocalLog(f"{tmp_path}/")


@pytest.mark.parametrize(
    ("write_id", "base", "tail", "expected"),
    [
        ("mine", 5, 10, (Landed.YES, 7)),
        ("mine", None, 10, (Landed.YES, 7)),
        ("mine", 0, 4, (Landed.YES, 7)),  # beyond the first range, within the log's end
        ("nobody", 5, 10, (Landed.NO, None)),
        ("nobody", None, 10, (Landed.NO, None)),
        ("nobody", 0, 3, (Landed.UNKNOWN, None)),
        ("nobody", None, 3, (Landed.UNKNOWN, None)),
        ("mine", 7, 10, (Landed.NO, None)),
    ],
)
def test_find_landed_reads_a_bounded_tail(log, write_id, base, tail, expected):
    """`YES` with the version, `NO` when every possible version was read, else `UNKNOWN`."""
    answer, commits = find_landed(log, write_id, base, tail)
    assert (answer, commits[-1].version if commits else None) == expected


def test_landed_is_unknown_when_the_log_cannot_be_read(tmp_path):
    """Any error in reading the log gives `UNKNOWN`."""

    class Broken:
        def read(self, version):
            raise OSError

        def versions(self):
            raise OSError

    assert find_landed(Broken(), "w", 0, 5) == (Landed.UNKNOWN, [])


def test_a_write_id_in_the_data_is_not_the_commits_write_id(tmp_path):
    """A write id in a commit's text counts only in its metadata."""
    lines = [{"commitInfo": {"write_id": "other"}}, {"add": {"path": "mine"}}]
    content = "\n".join(map(json.dumps, lines)).encode()
    assert not RawCommit(0, content).is_of("mine")
    assert RawCommit(0, content).is_of("other")


def test_a_missing_log_has_no_commits(tmp_path):
    """A missing log has no versions, and raises no error."""
    found = search_commits(LocalLog(f"{tmp_path}/no/"), "w", None, 5)
    assert (found.commits, found.is_certain) == ([], True)


METRICS = [
    (
        Operation.WRITE,
        {
            "num_added_rows": 3,
            "num_added_files": 1,
            "num_removed_files": 2,
            "num_retries": 4,
            "execution_time_ms": 5,
        },
        {"rows_added": 3, "files_added": 1, "files_removed": 2, "retries": 4, "execution_ms": 5},
    ),
    (
        Operation.UPDATE,
        {"num_updated_rows": 1, "num_copied_rows": 2, "num_added_files": 1},
        {"rows_updated": 1, "rows_copied": 2, "files_added": 1},
    ),
    (
        Operation.DELETE,
        {"num_deleted_rows": "7", "num_removed_files": 1},
        {"rows_deleted": 7, "files_removed": 1},
    ),
    (
        Operation.MERGE,
        {
            "num_target_rows_inserted": 1,
            "num_target_rows_updated": 2,
            "num_target_rows_deleted": 3,
            "num_target_rows_copied": 4,
            "num_target_files_added": 5,
            "num_target_files_removed": 6,
        },
        {
            "rows_added": 1,
            "rows_updated": 2,
            "rows_deleted": 3,
            "rows_copied": 4,
            "files_added": 5,
            "files_removed": 6,
        },
    ),
    (
        Operation.OPTIMIZE,
        {"numFilesAdded": 1, "filesAdded": '{"totalSize": 9}', "filesRemoved": {"totalSize": 8}},
        {"files_added": 1, "bytes_added": 9, "bytes_removed": 8},
    ),
    (Operation.OPTIMIZE, {"filesAdded": "not json", "filesRemoved": 7}, {}),
    (
        Operation.VACUUM,
        {"numFilesToDelete": 3, "sizeOfDataToDelete": 10},
        {"files_deleted": 3, "bytes_deleted": 10},
    ),
    (Operation.VACUUM, {"numDeletedFiles": 2}, {"files_deleted": 2}),
    (
        Operation.RESTORE,
        {"numRestoredFile": 2, "numRemovedFile": 3},
        {"files_added": 2, "files_removed": 3},
    ),
    (Operation.REPAIR, {"files_removed": '["a", "b"]'}, {"files_removed": 2}),
    (Operation.REPAIR, {"files_removed": "broken"}, {}),
    (Operation.ADD_COLUMNS, {"anything": 1}, {}),
    (Operation.WRITE, {"num_added_rows": True, "num_added_files": "many"}, {}),
]


@pytest.mark.parametrize(("operation", "said", "expected"), METRICS)
def test_metrics_have_one_name_for_all_operations(operation, said, expected):
    """Metrics that the engine does not report, or reports in another type, are left out."""
    assert normalize_metrics(operation, said).known() == expected


def test_metrics_missing_from_the_engine_are_counted_from_the_actions():
    """Bytes of a write, and rows of a transaction without metrics, are counted from the actions."""
    stats = json.dumps({"numRecords": 5})
    lines = [
        {"commitInfo": {"operation": "WRITE"}},
        {"add": {"path": "a", "size": 10, "stats": stats}},
        {"add": {"path": "b", "size": 20, "stats": stats}},
        {"remove": {"path": "c"}},
    ]
    content = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines).encode()
    assert metrics_of(Operation.WRITE, [RawCommit(0, content)]).known() == {
        "rows_added": 10,
        "rows_updated": 0,
        "files_added": 2,
        "files_removed": 1,
        "bytes_added": 30,
        "files_deleted": 0,
        "bytes_deleted": 0,
    }


ZEROS = UNCHANGED.known()


def commit_of(info, *actions):
    lines = [{"commitInfo": info}, *actions]
    return RawCommit(1, "\n".join(json.dumps(line) for line in lines).encode())


def file_of(path, rows=None, size=10, deleted=0):
    stats = {} if rows is None else {"stats": json.dumps({"numRecords": rows})}
    vector = {"deletionVector": {"cardinality": deleted}} if deleted else {}
    return {"path": path, "size": size, **stats, **vector}


ACTIONS = {
    "an OPTIMIZE copies rows and adds none": (
        Operation.OPTIMIZE,
        {},
        [{"add": file_of("c", 7)}, {"remove": file_of("a")}, {"remove": file_of("b")}],
        {"rows_added": 0, "rows_deleted": 0, "rows_copied": 7, "files_added": 1}
        | {"files_removed": 2, "bytes_removed": 20},
    ),
    "a RESTORE adds the rows of the files that it brings back": (
        Operation.RESTORE,
        {"numRestoredFile": 1, "numRemovedFile": 1},
        [{"add": file_of("a", 3)}, {"remove": file_of("b", 5)}],
        {"rows_added": 3, "rows_deleted": 5, "rows_copied": 0},
    ),
    "a RESTORE of files whose removal says no rows": (
        Operation.RESTORE,
        {},
        [{"add": file_of("a", 3)}, {"remove": file_of("b")}],
        {"rows_added": 3, "rows_deleted": None},
    ),
    "an ALTER changes no row": (Operation.ADD_COLUMNS, {}, [], ZEROS),
    "a DELETE of Spark": (
        Operation.DELETE,
        {"numDeletedRows": "2", "numCopiedRows": "0", "executionTimeMs": "9"},
        [{"remove": file_of("a")}],
        {"rows_deleted": 2, "rows_added": 0, "rows_updated": 0, "files_removed": 1}
        | {"execution_ms": 9},
    ),
    "an UPDATE of Spark": (
        Operation.UPDATE,
        {"numUpdatedRows": "2", "numCopiedRows": "4"},
        [{"add": file_of("b", 6)}, {"remove": file_of("a")}],
        {"rows_updated": 2, "rows_copied": 4, "rows_added": 0, "rows_deleted": 0},
    ),
    "a MERGE of Spark": (
        Operation.MERGE,
        {"numTargetRowsInserted": "2", "numTargetRowsUpdated": "1", "numTargetRowsDeleted": "3"}
        | {"numTargetRowsCopied": "0", "executionTimeMs": "8"},
        [{"add": file_of("b", 3)}],
        {"rows_added": 2, "rows_updated": 1, "rows_deleted": 3, "rows_copied": 0}
        | {"execution_ms": 8},
    ),
    "a table that Spark made of rows": (
        Operation.CREATE_TABLE,
        {"numFiles": "1", "numOutputRows": "7", "numOutputBytes": "10"},
        [{"add": file_of("a")}],
        {"rows_added": 7, "rows_deleted": 0},
    ),
    "a change data file is no data file": (
        Operation.DELETE,
        {"num_deleted_rows": 1, "num_added_files": 2},
        [{"cdc": file_of("_change_data/x")}, {"add": file_of("b", 2)}, {"remove": file_of("a")}],
        {"files_added": 1, "bytes_added": 10, "files_removed": 1},
    ),
    "a deletion vector neither adds nor removes its file": (
        Operation.DELETE,
        {"numDeletedRows": "2"},
        [{"add": file_of("a", 9, deleted=2)}, {"remove": file_of("a", 9)}],
        {"rows_deleted": 2, "files_added": 0, "files_removed": 0, "bytes_added": 0},
    ),
    "rows behind a deletion vector are not there": (
        Operation.OPTIMIZE,
        {},
        [{"add": file_of("c", 7, deleted=3)}],
        {"rows_copied": 4},
    ),
    "a DELETE of whole files counts their rows": (
        Operation.DELETE,
        {},
        [{"remove": file_of("a", 4)}, {"remove": file_of("b", 5)}],
        {"rows_deleted": 9},
    ),
    "an overwrite of files whose removal says no rows": (
        Operation.WRITE,
        {"num_added_rows": 3},
        [{"add": file_of("b", 3)}, {"remove": file_of("a")}],
        {"rows_added": 3, "rows_deleted": None, "rows_copied": None, "rows_updated": 0},
    ),
}


@pytest.mark.parametrize("case", ACTIONS)
def test_metrics_come_from_the_actions_then_from_the_engine(case):
    """Metrics come from the actions, else from the engine, else they are zero or unknown."""
    operation, said, actions, expected = ACTIONS[case]
    metrics = metrics_of(operation, [commit_of({"operationMetrics": said}, *actions)])
    assert {name: getattr(metrics, name) for name in expected} == expected


def test_returned_metrics_take_precedence():
    """Returned metrics take precedence; the commit fills in unknown values."""
    content = b'{"commitInfo":{"operationMetrics":{"num_deleted_rows":1,"num_copied_rows":2}}}'
    told = metrics_of(Operation.DELETE, [RawCommit(0, content)], {"num_deleted_rows": 9})
    assert told.known() == ZEROS | {"rows_deleted": 9, "rows_copied": 2}


def test_an_optimize_of_several_commits_sums_their_metrics():
    """Metrics of an OPTIMIZE's commits are added; of a VACUUM, the end replaces the start."""

    def commit(version, metrics):
        info = {"commitInfo": {"operationMetrics": metrics}}
        return RawCommit(version, json.dumps(info).encode())

    one, two = ({"numFilesAdded": 1, "numFilesRemoved": count} for count in (3, 4))
    metrics = metrics_of(Operation.OPTIMIZE, [commit(1, one), commit(2, two)])
    assert metrics.known() == ZEROS | {"files_added": 2, "files_removed": 7}
    start, end = {"numFilesToDelete": 3, "sizeOfDataToDelete": 9}, {"numDeletedFiles": 2}
    metrics = metrics_of(Operation.VACUUM, [commit(1, start), commit(2, end)])
    assert metrics.known() == ZEROS | {"files_deleted": 2, "bytes_deleted": 9}
