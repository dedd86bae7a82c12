"""Tables on an S3-compatible server: the same observation with one more request than a bare write."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.fs import DeltaStorageHandler

from deltawitness import (
    Ledger,
    ObservedSessionContext,
    Settings,
    flush,
    history,
    read_commit_metadata,
    suppressed,
)
from deltawitness.commit.log import open_log
from deltawitness.delta_rs.handle_cache import HandleCache
from deltawitness.events import Landed
from deltawitness.exceptions import CommitNotFoundError

DATA = pa.table({"x": [1, 2]})


@pytest.fixture
def table(server, request):
    """The location of a new table with one version."""
    uri = f"s3://lake/{request.node.name.strip(']').replace('[', '-')}"
    with suppressed():
        write_deltalake(uri, DATA, storage_options=server.options)
    return uri


@pytest.mark.slow
def test_a_remote_write_is_recorded_with_version_and_metrics(server, table, captured_writes):
    """A write by URI has exact version, rows and bytes, from reading one commit."""
    write_deltalake(table, DATA, mode="append", storage_options=server.options)
    event = captured_writes.last
    commit = read_commit_metadata(table, storage_options=server.options)
    assert (commit.version, commit.write_id) == (1, event.write_id)
    assert event.outcome.versions == (1,)
    assert event.outcome.metrics.rows_added == 2
    assert event.outcome.metrics.bytes_added > 0
    assert event.intent.table_uri.rstrip("/") == table


def test_a_first_remote_write_finds_its_version(server, captured_writes):
    """The first write of a table finds version 0 without a handle and without a listing."""
    uri = "s3://lake/first"
    write_deltalake(uri, DATA, storage_options=server.options)
    assert captured_writes.last.outcome.versions == (0,)


def test_a_remote_vacuum_is_one_event_with_two_versions(server, table, captured_writes):
    """A VACUUM with several commits looks them up one by one."""
    handle = DeltaTable(table, storage_options=server.options)
    handle.delete("x = 1")
    handle.vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert captured_writes.last.outcome.versions == (2, 3)


@pytest.mark.parametrize("by", ["handle", "uri"])
def test_observing_costs_one_request(by, server, table, captured_writes):
    """Observation costs one ranged GET of the new commit."""

    def target():
        return DeltaTable(table, storage_options=server.options) if by == "handle" else table

    def write(place):
        options = None if by == "handle" else server.options
        write_deltalake(place, DATA, mode="append", storage_options=options)
        flush()

    place = target()
    observed = server.requests(lambda: write(place))
    place = target()
    with suppressed():
        bare = server.requests(lambda: write(place))
    # By URI, each commit since the checkpoint is read twice: the second write reads one more.
    grown = 2 if by == "uri" else 0
    assert len(observed) - (len(bare) - grown) == 1
    extra = [line for line in observed if line.endswith(" 206")]
    assert len(extra) == 1
    assert captured_writes.last.outcome.versions == (1,)


def test_a_failed_remote_write_is_known_not_to_have_landed(server, table, captured_writes):
    """The log is read with GETs to its end to see that a failed write has not landed."""
    with pytest.raises(Exception, match="not found in schema"):
        write_deltalake(table, pa.table({"y": [1]}), mode="append", storage_options=server.options)
    assert captured_writes.last.outcome.landed is Landed.NO


def test_remote_history_is_read_without_opening_the_table(server, table):
    """History is newest first, and a missing version raises a clear error."""
    write_deltalake(table, DATA, mode="append", storage_options=server.options)
    handle = DeltaTable(table, storage_options=server.options)
    assert [commit.version for commit in history(handle)] == [1, 0]
    assert open_log(table, server.options).versions() == [0, 1]
    with pytest.raises(CommitNotFoundError):
        read_commit_metadata(table, 7, server.options)


def test_a_cached_remote_handle_sees_commits_of_others(server, table):
    """A cached handle is brought up to date after a comparison of its last commit."""
    handles = HandleCache()
    seen = set()
    for _ in range(2):
        with handles.lease(table, server.options) as kept:
            seen.add(id(kept))
            write_deltalake(kept, DATA, mode="append")
        write_deltalake(table, DATA, mode="append", storage_options=server.options)
    with handles.lease(table, server.options) as kept:
        assert kept.version() == 4
        write_deltalake(kept, DATA, mode="overwrite")
    rows = pa.table(DeltaTable(table, storage_options=server.options).scan())
    assert rows.num_rows == 2
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("INSERT INTO t VALUES (3), (4)", 2),
        ("UPDATE t SET x = 9 WHERE x = 2", 1),
        ("DELETE FROM t WHERE x = 2", 1),
        ("MERGE INTO t USING (SELECT 2 AS x) AS s ON t.x = s.x WHEN MATCHED THEN DELETE", 1),
        ("TRUNCATE TABLE t", 2),
    ],
    ids=lambda value: str(value).split()[0],
)
def test_sql_writes_to_a_remote_table(server, table, captured_writes, sql, count):
    """SQL writes work on a remote table as on a local one."""
    ctx = ObservedSessionContext()
    ctx.register_table("t", DeltaTable(table, storage_options=server.options))
    assert ctx.sql(sql).to_pydict()["count"] == [count]
    assert captured_writes.last.outcome.versions == (1,)


@pytest.mark.slow
def test_a_remote_table_is_reconciled(server, table, tmp_path):
    """Reconcile makes one request per commit, two on a second pass, and accepts a truncated log."""
    for _ in range(3):
        write_deltalake(table, DATA, mode="append", storage_options=server.options)
    opened = DeltaTable(table, storage_options=server.options)
    ledger = Ledger(tmp_path / "cache")
    first = server.requests(lambda: ledger.reconcile([opened]).apply())
    assert len(first) == 6  # a listing, the commits, and the first one for the table's id
    assert ledger.inventory().sort("version").to_pydict()["version"] == [0, 1, 2, 3]
    again = server.requests(lambda: ledger.reconcile([opened]).apply())
    assert [request.split()[0] for request in again] == ["GET", "GET"]
    opened.create_checkpoint()
    store = DeltaStorageHandler(table, server.options)
    for version in range(2):
        store.delete_file(f"_delta_log/{version:020d}.json")
    write_deltalake(opened, DATA, mode="append")
    assert ledger.reconcile([opened]).apply() == 1
    assert ledger.reconcile([opened]).commits == 0


def test_young_commits_wait_where_other_machines_cannot_be_seen(server, table, tmp_path):
    """A ledger on S3 leaves young commits to the next pass, and reads tables with its own options."""
    settings = Settings(spool_dir=str(tmp_path / "spools"))
    ledger = Ledger(f"s3://lake/cache-{tmp_path.name}", server.options, settings=settings)
    plan = ledger.reconcile([table])
    assert (plan.foreign, plan.unsettled, plan.unreadable, plan.apply()) == ((), 1, (), 0)
    assert ledger.reconcile([table]).commits == 1
