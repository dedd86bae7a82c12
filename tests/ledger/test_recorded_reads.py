"""Reads of a cache and snapshots are rows of the ledger, as are policy, scope and key of a write."""

from __future__ import annotations

import os

import pytest
from deltalake import write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    Settings,
    cache_context,
    cache_span,
    current_run,
    flush,
    run,
)
from deltawitness.ledger.drain.recorder import Recorder
from deltawitness.ledger.tables.schema import INVENTORY, SNAPSHOTS
from deltawitness.observe import current_observer
from deltawitness.redaction import key_hash
from deltawitness.run_context import RunContext
from deltawitness.testing import InMemoryTelemetry
from helpers.ledger_parts import lines_of, now_us, one, rows_of
from helpers.recorder_parts import READ, runs_of


@pytest.mark.slow
def test_reads_of_a_cache_are_rows(observed):
    """Reads and snapshots of a cache have rows; its writes are observed as writes."""
    telemetry = InMemoryTelemetry.create()
    recorder = observed(telemetry.providers())
    with run("nightly") as opened:
        for operation, result in (
            ("read", "hit"),
            ("read", "miss"),
            ("snapshot", "write"),
            ("write", "write"),
        ):
            with cache_span(
                f"cache.{operation}", cache_policy="views", cache_scope="view", operation=operation
            ) as (_, set_result):
                set_result(result)
        with (
            pytest.raises(OSError, match="gone"),
            cache_span(
                "cache.read", cache_policy="p /home/ann/x", cache_scope="view", operation="read"
            ),
        ):
            raise OSError("gone")
    rows = rows_of(recorder.root, INVENTORY, order="event_time")
    recorded = (
        "run_id",
        "job",
        "operation",
        "cache_operation",
        "scope",
        "policy",
        "result",
        "error_type",
        "source",
        "pid",
    )
    common = {
        "run_id": opened.run_id,
        "job": "nightly",
        "scope": "view",
        "error_type": None,
        "source": "observed",
        "pid": os.getpid(),
    }
    assert [{name: row[name] for name in recorded} for row in rows] == [
        {
            **common,
            "operation": "READ",
            "cache_operation": "read",
            "policy": "views",
            "result": "hit",
        },
        {
            **common,
            "operation": "READ",
            "cache_operation": "read",
            "policy": "views",
            "result": "miss",
        },
        {
            **common,
            "operation": "SNAPSHOT",
            "cache_operation": "snapshot",
            "policy": "views",
            "result": "write",
        },
        {
            **common,
            "operation": "READ",
            "cache_operation": "read",
            "policy": "p [path]",
            "result": "error",
            "error_type": "storage_failed",
        },
    ]
    spans = {f"{span.context.span_id:016x}" for span in telemetry.spans()}
    assert {row["span_id"] for row in rows} <= spans
    assert len({row["write_id"] for row in rows}) == 4
    assert runs_of(recorder, "reads, hits, misses, snapshots, errors, writes") == [
        {"reads": 3, "hits": 1, "misses": 1, "snapshots": 1, "errors": 1, "writes": 0}
    ]


def test_attributes_of_a_cache_read_are_redacted(tmp_path):
    """Location, key and message of a cache read are redacted like those of a write."""
    recorder = Recorder(Settings(cache_root=str(tmp_path), drain_interval=3600))
    said = {
        "table_uri": "s3a://key:hidden@b/t/?sig=x",
        "key": "customer 4711",
        "error_message": "can't read /home/ann/x, errno 13, token=hunter2",
    }
    recorder.record_operation(RunContext("r-1", "job"), READ | said)
    assert [
        (row["table_uri"], row["key"], row["error_message"])
        for path in recorder.home.glob("*.open")
        for kind, _, row in lines_of(path)
        if kind == "R"
    ] == [("s3://b/t", key_hash("customer 4711"), "can't read /home/ann/x, errno 13, [secret]")]


def test_reads_outside_of_any_run_belong_to_the_process(observed):
    """A read outside of any run belongs to the implicit run of the process."""
    recorder = observed()
    with cache_span("cache.read", cache_policy="p", cache_scope="view", operation="read"):
        pass
    recorder.drain()
    assert rows_of(recorder.root, INVENTORY, "run_id, result") == [
        {"run_id": current_run().run_id, "result": "hit"}
    ]


def test_reads_are_not_recorded_after_instrumentation_has_ended(tmp_path):
    """After instrumentation has ended, reads are not recorded."""
    from deltawitness.telemetry import cache_spans

    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    assert cache_spans._listener is not None
    DeltaLakeInstrumentor().uninstrument()
    assert cache_spans._listener is None
    DeltaLakeInstrumentor().instrument()
    assert (cache_spans._listener, current_observer().recorder) == (None, None)


def test_snapshots_are_rows_of_the_registry(observed):
    """A snapshot with any name has a row with its values in the registry."""
    recorder = observed()
    recorder.record_snapshot(
        "daily ü \ud800", {"event_time": now_us(), "run_id": "r", "rows": 3, "result": "write"}
    )
    recorder.drain()
    assert rows_of(recorder.root, SNAPSHOTS, "snapshot, run_id, rows, result") == [
        {"snapshot": "daily ü ?", "run_id": "r", "rows": 3, "result": "write"}
    ]


def test_policy_scope_and_key_of_a_write(observed, table):
    """The policy, scope and key of a write context are in the row, the key as a hash."""
    recorder = observed()
    with cache_context(policy="views", scope="view", key="customer=17"):
        write_deltalake(table, one(0))
    flush()
    assert [line[0] for line in lines_of(recorder._spool._active.path)] == ["S", "S", "N", "R"]
    recorder.drain()
    [row] = rows_of(recorder.root, INVENTORY, "policy, scope, key")
    assert row == {"policy": "views", "scope": "view", "key": key_hash("customer=17")}
