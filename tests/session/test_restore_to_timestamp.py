"""RESTORE ... TO TIMESTAMP restores the version of that time, and is rejected if there was none."""

from __future__ import annotations

import datetime as dt
import json
import os

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from deltawitness import ObservedSessionContext
from deltawitness.commit.log import commit_path
from deltawitness.events import Failed, Landed
from deltawitness.exceptions import StatementError
from deltawitness.testing import capture_writes

FIRST = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
"""When version 0 of the table is from; each later version is a minute younger."""

MINUTE = dt.timedelta(minutes=1)


def rewrite(uri, version, **info):
    """Set timestamps of a commit; None removes one."""
    path = uri / commit_path(version)
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"] |= info
            action["commitInfo"] = {k: v for k, v in action["commitInfo"].items() if v is not None}
    path.write_text("\n".join(map(json.dumps, actions)) + "\n")


def touch(uri, version, moment):
    """Set the modification time of a commit's file."""
    os.utime(uri / commit_path(version), (moment.timestamp(), moment.timestamp()))


def stamp(uri, version, moment):
    """Set the time of a commit and of its file."""
    rewrite(uri, version, timestamp=round(moment.timestamp() * 1000))
    touch(uri, version, moment)


@pytest.fixture
def uri(tmp_path):
    """A table of four versions, each with one more row."""
    uri = tmp_path / "t"
    for version in range(4):
        write_deltalake(uri, pa.table({"id": [version]}), mode="append")
        stamp(uri, version, FIRST + version * MINUTE)
    return uri


def restore(uri, moment):
    """Restore the table, and return its rows."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    text = moment if isinstance(moment, str) else moment.isoformat()
    ctx.sql(f"RESTORE t TO TIMESTAMP AS OF '{text}'").collect()
    return sorted(ctx.sql("SELECT id FROM t").to_pydict()["id"])


MOMENTS = {
    "2024-03-01T12:00:00Z": [0],
    "2024-03-01T12:00:00": [0],
    "2024-03-01 12:00:00": [0],
    "2024-03-01T14:00:00+02:00": [0],
    "2024-03-01T12:00:30Z": [0],
    "2024-03-01T12:01:00Z": [0, 1],
    "2024-03-01T10:01:59.999-02:00": [0, 1],
    "2024-03-01T12:02:00": [0, 1, 2],
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_moment_since_the_first_version_is_restored(uri, moment):
    """Any time zone is accepted, UTC is the default, and delta-rs alone restores the same version."""
    with_zone = dt.datetime.fromisoformat(moment)
    if with_zone.tzinfo is None:
        with_zone = with_zone.replace(tzinfo=dt.UTC)
    bare = DeltaTable(uri)
    bare.load_as_version(with_zone)
    assert restore(uri, moment) == MOMENTS[moment] == list(range(bare.version() + 1))


@pytest.mark.parametrize(
    "moment",
    [
        "2024-03-01T11:59:59.999Z",
        "2024-03-01T11:59:59.999",
        "2024-03-01T12:00:00+00:01",
        "2024-03-01",
        "2000-01-01T00:00:00Z",
        "1900-01-01",
    ],
)
def test_a_moment_before_the_first_version_is_refused(uri, moment):
    """delta-rs alone would restore version 0; here nothing is written, and one failed write is observed."""
    said = r"the timestamp is before the table's first version: version 0 is of 2024-03-01T12:00:00"
    with capture_writes() as events, pytest.raises(StatementError, match=said):
        restore(uri, moment)
    (event,) = events
    assert isinstance(event.outcome, Failed)
    assert (event.intent.operation, event.outcome.landed) == ("RESTORE", Landed.NO)
    assert DeltaTable(uri).version() == 3
    DeltaTable(uri).restore(FIRST - MINUTE)
    assert DeltaTable(uri).to_pyarrow_table()["id"].to_pylist() == [0]


def test_a_moment_after_the_last_version_is_the_engines_error(uri):
    """delta-rs raises because there is nothing to restore."""
    with pytest.raises(DeltaError, match="should be less"):
        restore(uri, FIRST + 9 * MINUTE)


@pytest.mark.slow
def test_a_log_that_was_cleaned_up_begins_later(uri):
    """The first version is the first one that still has a commit file."""
    DeltaTable(uri).create_checkpoint()
    for version in (4, 5):
        write_deltalake(uri, pa.table({"id": [version]}), mode="append")
        stamp(uri, version, FIRST + version * MINUTE)
    for version in range(3):
        (uri / commit_path(version)).unlink(missing_ok=True)
    said = r"before what the table's log still has: version 3 is of 2024-03-01T12:03:00.000"
    for moment in (FIRST - MINUTE, FIRST + MINUTE, FIRST + 2.9 * MINUTE):
        with pytest.raises(StatementError, match=said):
            restore(uri, moment)
    assert DeltaTable(uri).version() == 5
    assert restore(uri, FIRST + 3 * MINUTE) == [0, 1, 2, 3]


def test_a_log_that_the_engine_cleans_up_begins_later(uri):
    """The log is cleaned up by its retention."""
    table = DeltaTable(uri)
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 1 days"})
    table.create_checkpoint()
    table.cleanup_metadata()
    assert not (uri / commit_path(0)).exists()
    with pytest.raises(StatementError, match="before what the table's log still has: version 4"):
        restore(uri, FIRST + MINUTE)


HOUR = dt.timedelta(hours=1)


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["commit", "file"])
def test_clocks_that_differ_are_left_to_the_engine(uri, clock):
    """A time that is not before the first version by one of the clocks is passed to delta-rs."""
    if clock == "commit":
        rewrite(uri, 0, timestamp=round((FIRST - HOUR).timestamp() * 1000))
    touch(uri, 0, FIRST - (clock == "file") * HOUR)
    assert restore(uri, FIRST - HOUR / 2) == [0]
    with pytest.raises(StatementError, match="before the table's first version"):
        restore(uri, FIRST - 2 * HOUR)


def test_the_timestamp_that_the_history_shows_is_taken(tmp_path):
    """The first version's timestamp is used, even if its file is written later."""
    for version in range(3):
        write_deltalake(tmp_path / "t", pa.table({"id": [version]}), mode="append")
    first = DeltaTable(tmp_path / "t").history()[-1]["timestamp"]
    moment = dt.datetime.fromtimestamp(first / 1000, dt.UTC)
    touch(tmp_path / "t", 0, moment + dt.timedelta(milliseconds=5))
    assert restore(tmp_path / "t", moment) == [0]


def test_in_commit_timestamps_count(uri):
    """They are the table's clock. delta-rs cannot write a table that requires them, and raises its own error."""
    for version in range(4):
        ict = round((FIRST - HOUR + version * MINUTE).timestamp() * 1000)
        rewrite(uri, version, inCommitTimestamp=ict, timestamp=None)
        touch(uri, version, FIRST + version * MINUTE)
    path = uri / commit_path(0)
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    features = {
        "minReaderVersion": 1,
        "minWriterVersion": 7,
        "writerFeatures": ["inCommitTimestamp"],
    }
    for action in actions:
        if "protocol" in action:
            action["protocol"] = features
        if "metaData" in action:
            action["metaData"]["configuration"] = {"delta.enableInCommitTimestamps": "true"}
    path.write_text("\n".join(map(json.dumps, actions)) + "\n")
    with pytest.raises(StatementError, match=r"version 0 is of 2024-03-01T11:00:00.000"):
        restore(uri, FIRST - 2 * HOUR)
    with pytest.raises(CommitFailedError, match="InCommitTimestamp"):
        restore(uri, FIRST - HOUR / 2)


def test_a_commit_without_a_timestamp_has_the_time_of_its_file(uri):
    """Other writers may omit the `commitInfo` or its timestamp."""
    path = uri / commit_path(0)
    lines = [line for line in path.read_text().splitlines() if not line.startswith('{"commitInfo"')]
    path.write_text("\n".join(lines) + "\n")
    touch(uri, 0, FIRST)
    with pytest.raises(StatementError, match="before the table's first version"):
        restore(uri, FIRST - MINUTE)
    assert restore(uri, FIRST) == [0]


def test_a_restore_to_a_version_uses_no_timestamps(uri):
    """RESTORE ... TO VERSION uses no timestamps."""
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    ctx.sql("RESTORE t TO VERSION AS OF 0").collect()
    assert ctx.sql("SELECT id FROM t").to_pydict() == {"id": [0]}
