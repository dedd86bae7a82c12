"""Writes that fail or do nothing on an S3-compatible server are recorded as on a local disk."""

from __future__ import annotations

import datetime as dt
import functools

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake._internal import RawDeltaTable

from deltawitness import ObservedSessionContext, flush, suppressed, table_id
from deltawitness.commit.log import commit_path
from deltawitness.commit.private_api import modified_at
from deltawitness.events import UNCHANGED, Failed, Landed, NoCommit, NoCommitReason
from deltawitness.exceptions import StatementError
from deltawitness.session.core.state import session_of
from deltawitness.testing import capture_writes

DATA = pa.table({"id": [1, 2]})


@pytest.fixture
def table(server, request):
    """The location of a new table with two versions."""
    uri = f"s3://lake/{request.node.name}"
    with suppressed():
        write_deltalake(uri, DATA, storage_options=server.options)
        write_deltalake(uri, DATA, storage_options=server.options, mode="append")
    return uri


def session(server, table):
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table, storage_options=server.options)
    return ctx


def version(server, table):
    return DeltaTable(table, storage_options=server.options).version()


@pytest.mark.slow
def test_a_timestamp_before_the_first_version_is_refused(server, table):
    """The time of the first version is read from its commit or from its object."""
    first = modified_at(DeltaTable(table, storage_options=server.options), commit_path(0))
    assert abs(first - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=10)
    ctx = session(server, table)
    with pytest.raises(StatementError, match="before the table's first version: version 0"):
        ctx.sql("RESTORE t TO TIMESTAMP AS OF '2020-01-01'").collect()
    assert version(server, table) == 1


def test_mode_ignore_and_a_source_that_raises_are_recorded(server, table):
    """Each is one event of its table."""

    class BadSource:
        def __arrow_c_stream__(self, requested_schema=None):
            raise RuntimeError("bad source")

    with capture_writes() as captured:
        write_deltalake(table, DATA, mode="ignore", storage_options=server.options)
        with pytest.raises(RuntimeError):
            write_deltalake(table, BadSource(), mode="append", storage_options=server.options)
    ignored, failed = captured
    assert ignored.outcome == NoCommit(NoCommitReason.TABLE_EXISTS, UNCHANGED)
    assert isinstance(failed.outcome, Failed)
    assert failed.outcome.landed is Landed.NO
    assert {ignored.table_id, failed.table_id} == {table_id(table)}


def test_a_commit_that_landed_is_served(server, table, monkeypatch):
    """After Ctrl-C during an INSERT the new version is served, and the frame shows that the commit landed."""
    commit = RawDeltaTable.write

    @functools.wraps(commit)
    def write(self, *args, **kwargs):
        commit(self, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RawDeltaTable, "write", write)
        with capture_writes():
            ctx = session(server, table)
            frame = ctx.sql("INSERT INTO t VALUES (3)")
            with pytest.raises(KeyboardInterrupt):
                frame.collect()
            flush()
            assert "but its commit has landed" in repr(frame)
    (entry,) = session_of(ctx.__wrapped__).names.snapshot
    assert entry.version == version(server, table) == 2
