"""The restored version is read from the commit of a RESTORE, or found by the times of the log's files."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness.commit.log import commit_path, open_log
from deltawitness.commit.reader import CommitMetadata, parse_commit
from deltawitness.commit.restored import restored_version, version_at, version_restored_by_time

DAY = 86_400_000


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("RESTORE", {"version": "1"}, 1),
        ("RESTORE", {"version": 0}, 0),
        ("RESTORE", {"version": "3"}, None),  # not before the commit
        ("RESTORE", {"version": "-1"}, None),
        ("RESTORE", {"version": "9" * 5000}, None),
        ("RESTORE", {"version": "²"}, None),
        ("RESTORE", {"version": None, "datetime": "1700000000000"}, None),
        ("RESTORE", {}, None),
        ("WRITE", {"version": "1"}, None),
        (None, {"version": "1"}, None),
    ],
)
def test_the_parameter_of_a_restore_is_read(operation, parameters, expected):
    assert (
        restored_version(CommitMetadata(3, operation, operation_parameters=parameters)) == expected
    )


class Clock:
    """A log whose files have the times of a list."""

    def __init__(self, times):
        self.times = times

    def modified_ms(self, version):
        return self.times[version]


@pytest.mark.parametrize(
    ("times", "wanted", "expected"),
    [
        ([10, 20, 30], 20, 1),
        ([10, 20, 30], 29, 1),
        ([10, 20, 30], 99, 2),
        ([10, 20, 30], 5, 0),
        ([10], 10, 0),
        ([10, None, 30], 20, None),
        ([], 10, 0),
    ],
)
def test_a_version_is_found_by_its_time(times, wanted, expected):
    assert version_at(Clock(times), len(times) - 1, wanted) == expected


@pytest.mark.slow
def test_the_time_gives_the_version_that_the_engine_restores(tmp_path):
    """For times around those of each file, the rows after the RESTORE are those of the version that is found."""
    place = str(tmp_path / "t")
    for value in range(5):
        write_deltalake(place, pa.table({"x": [value]}), mode="overwrite")
    start = 1_767_225_600_000
    for version in range(5):
        written = (start + version * DAY) / 1000
        os.utime(Path(place, commit_path(version)), (written, written))
    for last, wanted in enumerate((-1, 0, 1, DAY, 2 * DAY - 1, 3 * DAY + 7), 5):
        time = dt.datetime.fromtimestamp((start + wanted) / 1000, dt.UTC)
        DeltaTable(place).restore(time)
        written = (start + last * DAY) / 1000
        os.utime(Path(place, commit_path(last)), (written, written))
        log = open_log(place)
        commit = parse_commit(last, log.read(last))
        assert restored_version(commit) is None
        found = version_restored_by_time(commit, log)
        assert found == max(wanted, 0) // DAY
        assert DeltaTable(place).to_pyarrow_table()["x"].to_pylist() == [found]
