"""Expectations of operations other than `write_deltalake`: merges, sessions, pipelines, files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.transaction import AddAction

from deltawitness import (
    ObservedSessionContext,
    ObservedWritePipeline,
    WritePipeline,
    WriteRequest,
    expect,
    write_distributed,
)
from deltawitness.exceptions import ExpectationError
from helpers.engine_versions import needs_deltalake, skip_without_session


def rows(*ids):
    return pa.table({"id": pa.array(ids, pa.int64()), "s": ["x"] * len(ids)})


def count(table):
    """Return the number of rows of a table, with any release of delta-rs."""
    return DeltaTable(table).to_pyarrow_table().num_rows


@pytest.fixture
def table(tmp_path, captured_writes):
    write_deltalake(tmp_path / "t", rows(1, 2, 3))
    return str(tmp_path / "t")


def merge(table, source, **options):
    target = DeltaTable(table)
    merger = target.merge(source, "s.id = t.id", source_alias="s", target_alias="t", **options)
    return merger.when_not_matched_insert_all().execute()


@pytest.mark.parametrize("streamed", [True, False])
def test_the_source_of_a_merge_is_checked(table, streamed, captured_writes):
    """Rules about what the merge adds are not checked, because it is known only after the commit."""
    rules = dict(nulls={"id": 0}, rows_added=0, schema="unchanged")
    with expect(**rules) as block:
        assert merge(table, rows(4), streamed_exec=streamed)["num_target_rows_inserted"] == 1
        with pytest.raises(ExpectationError):
            merge(table, rows(5, None), streamed_exec=streamed)
    assert [report.result for report in block.reports] == ["passed", "failed"]
    assert [check.is_met for check in block.reports[0].checks] == [None, None, True]
    with expect(**rules, on_failure="quarantine"):
        counts = merge(table, rows(5, None, 6), streamed_exec=streamed)
    assert (counts["num_source_rows"], counts["num_target_rows_inserted"]) == (3, 0)
    assert DeltaTable(table).version() == 1
    assert count(f"{table}_quarantine") == 3
    with expect(**rules, on_failure="warn"):
        assert merge(table, rows(None), streamed_exec=streamed)["num_target_rows_inserted"] == 1
    assert captured_writes.last.expectations.result == "warned"


@pytest.mark.slow
def test_writes_of_a_session_are_checked(table):
    """INSERT, INSERT OVERWRITE, frames and pipelines commit nothing; their tables stay readable."""
    skip_without_session()
    ctx = ObservedSessionContext()
    ctx.register_delta("t", table)
    query = "SELECT CAST(NULL AS BIGINT) AS id, 'x' AS s"
    pipeline = ObservedWritePipeline(WritePipeline(ctx))
    writes = [
        lambda: ctx.sql(f"INSERT INTO t {query}").to_pylist(),
        lambda: ctx.sql(f"INSERT OVERWRITE t {query}").to_pylist(),
        lambda: ctx.sql(query).write_table("t"),
        lambda: ctx.sql(query).write_delta(table, mode="append"),
        lambda: pipeline.write(WriteRequest(source=query, destination=table, mode="append")),
    ]
    with expect(nulls={"id": 0}):
        for write in writes:
            with pytest.raises(ExpectationError):
                write()
    assert ctx.sql("SELECT count(*) AS n FROM t").to_pylist() == [{"n": 3}]
    with expect(nulls={"id": 0}, on_failure="quarantine"):
        inserted, overwritten, _, written, piped = (write() for write in writes)
        new = ctx.sql(query).write_delta(f"{table}_new")
    assert inserted == overwritten == [{"count": 0}]
    for result in (written, piped, new):
        assert (result.is_quarantined, result.version, result.rows) == (True, None, None)
    assert count(f"{table}_quarantine") == 5
    assert DeltaTable(table).version() == 0
    assert not DeltaTable.is_deltatable(f"{table}_new")


def test_a_session_alone_is_not_enough_for_a_block(tmp_path):
    """Without instrumentation only the writes inside proxies are observed, so `write_deltalake` would pass."""
    skip_without_session()
    write_deltalake(tmp_path / "t", rows(1))
    ctx = ObservedSessionContext()
    ctx.register_delta("t", str(tmp_path / "t"))
    ctx.sql("INSERT INTO t SELECT 2, 'x'").collect()
    with pytest.raises(ExpectationError, match="not instrumented"), expect(rows_added=1):
        pass


@pytest.mark.slow
@needs_deltalake("1.6.3", "write transactions contain no application transactions")
def test_files_are_checked_by_their_statistics(table):
    """A distributed write commits nothing if the statistics do not meet a rule; `unique` is not checked."""
    rules = dict(
        rows_added=(1, 3), nulls={"id": 0}, values={"id": (0, 100)}, unique="id", schema="unchanged"
    )
    parts = {
        "rows_added": [rows(1, 2), rows(3, 4)],
        "nulls": [rows(1), rows(None)],
        "values": [rows(1), rows(101)],
    }
    with ThreadPoolExecutor(2) as pool:
        with expect(**rules) as block:
            for rule, each in parts.items():
                with pytest.raises(ExpectationError, match=f"committed: {rule}"):
                    write_distributed(each, table, engine=pool)
            assert DeltaTable(table).version() == 0
            assert write_distributed([rows(1), rows(1)], table, engine=pool).version == 1
        assert [check.is_met for check in block.reports[-1].checks] == [
            True,
            True,
            True,
            None,
            True,
        ]
        with expect(rows_added=1, on_failure="quarantine"), pytest.raises(ExpectationError):
            write_distributed([rows(1), rows(1)], f"{table}_new", engine=pool)
    assert not DeltaTable.is_deltatable(f"{table}_new")


def test_files_without_statistics_are_not_checked(table):
    """A rule that the statistics do not answer does not refuse the files."""
    opened = DeltaTable(table)
    (path,) = opened.file_uris()
    action = AddAction(path.rsplit("/", 1)[-1], 1, {}, 1, data_change=True, stats="{}")
    with expect(rows_added=0, nulls={"id": 0}, values={"id": (9, 9)}) as block:
        opened.create_write_transaction([action], "append", opened.schema())
    assert {check.is_met for check in block.reports[0].checks} == {None}
    assert (block.reports[0].result, DeltaTable(table).version()) == ("passed", 1)
