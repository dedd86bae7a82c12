"""A write that fails raises the engine's error, and is delivered with its outcome."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import deltalake
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness.events import Failed, Landed
from deltawitness.semconv import ErrorType
from helpers.delta_rs_writes import outcome, rows


def test_a_failed_write_raises_the_engines_error_and_is_delivered(table, captured_writes):
    """The program gets the engine's class and text; the event has the error type, and that nothing landed."""
    with pytest.raises(deltalake.exceptions.DeltaError, match="already exists"):
        write_deltalake(table, rows(1))
    failed = outcome(captured_writes)
    assert isinstance(failed, Failed)
    assert failed.error_type is ErrorType.TABLE_EXISTS
    assert failed.exception_type == "_internal.DeltaError"
    assert (failed.landed, failed.version) == (Landed.NO, None)


def test_an_error_after_the_commit_is_recorded_as_landed(table, captured_writes, monkeypatch):
    """An exception between the engine's commit and its return does not hide the version."""
    monkeypatch.undo()
    handle = DeltaTable(table)
    seam = deltalake._internal.RawDeltaTable.delete

    class Interrupted(BaseException):
        """Raised by a signal handler."""

    # The wrapped original commits and then raises, as a signal handler does that runs at its return.
    wrapped = seam.__wrapped__
    cell = next(
        c for c in seam.__closure__ if getattr(c.cell_contents, "__wrapped__", None) is wrapped
    )
    original = cell.cell_contents

    def interrupted(*args, **kwargs):
        original(*args, **kwargs)
        raise Interrupted

    cell.cell_contents = interrupted
    try:
        with pytest.raises(Interrupted):
            handle.delete("id = 1")
    finally:
        cell.cell_contents = original
    failed = outcome(captured_writes)
    assert (failed.landed, failed.version) == (Landed.YES, 1)


@pytest.mark.slow
def test_a_handler_that_raises_in_the_middle_of_a_write_does_not_hide_its_fate(tmp_path):
    """When a SIGTERM handler raises during a write, the event says whether the write is in the log."""
    program = textwrap.dedent(
        """
        import os, signal, sys, pyarrow as pa
        from deltalake import write_deltalake
        from deltawitness.testing import capture_writes
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        def batches():
            os.kill(os.getpid(), signal.SIGTERM)
            yield pa.record_batch({"x": [1]})
        reader = pa.RecordBatchReader.from_batches(pa.schema([("x", pa.int64())]), batches())
        with capture_writes() as writes:
            try:
                write_deltalake(sys.argv[1], reader)
            finally:
                outcome = writes.last.outcome
                print(getattr(outcome, "landed", "returned"), outcome.version, flush=True)
        """
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "t")], capture_output=True, text=True
    )
    landed = (tmp_path / "t" / "_delta_log" / f"{0:020d}.json").exists()
    assert out.returncode == 143
    assert out.stdout.split() in ([["yes", "0"], ["returned", "0"]] if landed else [["no", "None"]])


def test_a_table_that_cannot_be_opened_is_delivered(captured_writes):
    """A write by URI that fails before the engine's write call is one event."""
    options = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "max_retries": "0",
    }
    with pytest.raises(OSError, match="S3"):
        write_deltalake("s3://bucket/table", rows(1), storage_options=options)
    (event,) = captured_writes.events
    assert event.outcome.error_type is ErrorType.STORAGE_UNREACHABLE
    assert event.intent.table_name == "table"


def test_a_merge_that_cannot_be_built_is_delivered(table, captured_writes):
    """The engine's error is delivered as one event."""
    with pytest.raises(Exception):  # noqa: B017 - the engine decides on the class
        DeltaTable(table).merge(object(), "s.id = t.id")
    with pytest.raises(Exception):  # noqa: B017 - as above
        DeltaTable(table).merge(rows(1), "nope(").when_matched_delete().execute()
    assert [type(event.outcome) for event in captured_writes] == [Failed]


@pytest.mark.slow
def test_a_table_that_cannot_be_opened_has_a_duration(captured_writes):
    """The duration of a failed open includes the wait for the connection."""
    options = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "r",
        "max_retries": "1",
        "retry_timeout": "1s",
    }
    before = time.perf_counter_ns()
    with pytest.raises(OSError, match=r"s3|S3|bucket|error"):
        write_deltalake("s3://bucket/t", rows(1), storage_options=options)
    took = time.perf_counter_ns() - before
    assert captured_writes.last.duration_ns > took / 2
