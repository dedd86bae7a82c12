"""Writes of frames over Delta tables with many files complete, and leave no thread behind."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest
from datafusion import SessionContext, udf
from deltalake import DeltaTable, write_deltalake

from deltawitness import ObservedSessionContext
from deltawitness.session.sql.background_reader import read_in_background
from helpers.new_processes import start_process
from programs import sorted_writes


def pumps():
    return [thread for thread in threading.enumerate() if thread.name == "deltawitness-reader"]


@pytest.mark.slow
def test_sorted_and_windowed_frames_over_many_files_are_written(tmp_path):
    """Without the background reader both engines would deadlock, so the write runs in another process."""
    process, receiving = start_process(sorted_writes.write_each_way, str(tmp_path))
    try:
        assert receiving.poll(60), "the engines wait for each other"
        files = sorted_writes.FILES
        # There are files + 1 sevens: 8 is joined with each of them, and each with 6; other ids have one match.
        joined = (files - 1) + 2 * files
        assert receiving.recv() == [2 * files, 1 + joined + 2 * files, 1 + files]
        process.join(60)
        assert process.exitcode == 0
    finally:
        process.kill()


def test_rows_are_read_in_order_and_once():
    """The rows have the order and the types of the frame."""
    frame = SessionContext().sql("SELECT value AS a, 'x' AS b FROM generate_series(1, 100000)")
    with read_in_background(frame) as rows:
        table = rows.read_all()
    assert table.schema == frame.schema()
    assert table["a"].to_pylist() == list(range(1, 100_001))
    assert pumps() == []


def test_an_unread_stream_ends_with_the_block():
    """The reader's thread ends as well."""
    frame = SessionContext().sql("SELECT * FROM generate_series(1, 10000000)")
    with read_in_background(frame) as rows:
        rows.read_next_batch()
        assert len(pumps()) == 1
    assert pumps() == []


def test_an_error_of_the_frame_is_raised_to_the_reader_of_the_rows(tmp_path):
    """The write raises the error as well, and commits nothing."""

    def fail(values):
        msg = "no rows today"
        raise RuntimeError(msg)

    ctx = ObservedSessionContext()
    write_deltalake(tmp_path / "t", pa.table({"id": [1]}))
    ctx.register_delta("t", tmp_path / "t")
    ctx.register_udf(udf(fail, [pa.int64()], pa.int64(), "volatile", "failing"))
    frame = ctx.sql("SELECT failing(id) AS id FROM t")
    with pytest.raises(Exception, match="no rows today"):
        frame.write_delta(tmp_path / "t", mode="append")
    assert DeltaTable(tmp_path / "t").version() == 0
    assert pumps() == []


def test_an_error_of_the_table_is_raised_at_once(tmp_path):
    """The frame is not read to its end first."""
    ctx = ObservedSessionContext()
    write_deltalake(tmp_path / "t", pa.table({"id": [1]}))
    ctx.register_delta("t", tmp_path / "t")
    frame = ctx.sql("SELECT 'a' AS other FROM t CROSS JOIN generate_series(1, 10000000)")
    with pytest.raises(Exception, match=r"."):
        frame.write_delta(tmp_path / "t", mode="append")
    assert DeltaTable(tmp_path / "t").version() == 0
    assert pumps() == []
