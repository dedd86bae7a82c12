"""The log sink emits one record per write, and one more per failure, in the context of the write's span."""

from __future__ import annotations

from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry._logs import NoOpLoggerProvider, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from deltawitness.events import (
    CommitMetrics,
    Committed,
    Failed,
    InputVersion,
    Landed,
    NoCommit,
    NoCommitReason,
    WriteEvent,
    WriteIntent,
)
from deltawitness.run_context import RunContext
from deltawitness.semconv import CacheOperation, CacheScope, ErrorType, Operation
from deltawitness.telemetry import logs
from deltawitness.telemetry.attributes import event_attributes
from deltawitness.telemetry.logs import LogSink
from deltawitness.testing import InMemoryTelemetry

BARE = WriteEvent(
    write_id="w-1",
    run=RunContext("r-1", "nightly"),
    intent=WriteIntent(operation=Operation.WRITE, cache_operation=CacheOperation.WRITE),
    outcome=Committed((4,)),
    started_at=1_700_000_000_000_000_000,
    duration_ns=5_000_000,
)

FULL = replace(
    BARE,
    run=RunContext("r-1", "nightly", parent_run_id="r-0", attributes={"shard": "3"}),
    intent=WriteIntent(
        operation=Operation.MERGE,
        cache_operation=CacheOperation.MERGE,
        table_uri="file:///home/ann/flights",
        table_name="flights",
        mode="append",
        policy="views",
        scope=CacheScope.VIEW,
        cache_key="key:0",
        schema_hash="s-1",
        plan_hash="p-1",
        inputs=(InputVersion("t-2", 7, "file:///home/ann/x"), InputVersion("t-3", 0)),
    ),
    outcome=Committed((3, 4), CommitMetrics(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)),
    table_id="t-1",
    thread="MainThread",
    pid=7,
)

FAILURE = Failed(
    ErrorType.COMMIT_CONFLICT, "deltalake.CommitFailedError", "at [path]", Landed.YES, version=5
)

ALWAYS = {
    "db.system.name": "deltalake",
    "db.operation.name": "WRITE",
    "cache.policy": "unmanaged",
    "cache.scope": "dataset",
    "cache.operation": "write",
    "deltawitness.run.id": "r-1",
    "deltawitness.write.id": "w-1",
    "cicd.pipeline.name": "nightly",
    "cicd.pipeline.run.id": "r-1",
}


@pytest.fixture
def telemetry():
    """Providers in memory."""
    return InMemoryTelemetry.create()


def records(telemetry):
    return [found.log_record for found in telemetry.log_records()]


def test_a_record_has_every_known_attribute():
    """A record has all known attributes, and no location, thread or process."""
    assert event_attributes(FULL) == {
        "db.system.name": "deltalake",
        "db.operation.name": "MERGE",
        "db.collection.name": "flights",
        "cache.policy": "views",
        "cache.scope": "view",
        "cache.operation": "merge",
        "cache.result": "write",
        "cache.key": "key:0",
        "cache.schema.hash": "s-1",
        "cache.plan.hash": "p-1",
        "deltawitness.run.id": "r-1",
        "deltawitness.run.parent.id": "r-0",
        "deltawitness.run.attribute.shard": "3",
        "deltawitness.write.id": "w-1",
        "cicd.pipeline.name": "nightly",
        "cicd.pipeline.run.id": "r-1",
        "delta.table.id": "t-1",
        "delta.table.version": 4,
        "delta.write.mode": "append",
        "delta.inputs": ["t-2@7", "t-3@0"],
        "delta.commit.rows.added": 1,
        "delta.commit.rows.updated": 2,
        "delta.commit.rows.deleted": 3,
        "delta.commit.rows.copied": 4,
        "delta.commit.files.added": 5,
        "delta.commit.files.removed": 6,
        "delta.commit.size.added": 7,
        "delta.commit.size.removed": 8,
        "delta.commit.retries": 9,
    }


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Committed((4,)), {"cache.result": "write", "delta.table.version": 4}),
        (
            NoCommit(NoCommitReason.NOTHING_TO_DO, CommitMetrics(rows_copied=0)),
            {"cache.result": "noop", "delta.commit.rows.copied": 0},
        ),
        (
            FAILURE,
            {
                "cache.result": "error",
                "error.type": "commit_conflict",
                "deltawitness.landed": "yes",
                "delta.table.version": 5,
            },
        ),
        (
            Failed(ErrorType.OTHER, "Exception", ""),
            {"cache.result": "error", "error.type": "_OTHER", "deltawitness.landed": "unknown"},
        ),
    ],
)
def test_what_is_not_known_is_left_out(outcome, expected):
    """Each outcome has its attributes in addition to those of every write."""
    assert event_attributes(replace(BARE, outcome=outcome)) == ALWAYS | expected


@pytest.mark.parametrize("outcome", [BARE.outcome, NoCommit(NoCommitReason.DRY_RUN)])
def test_a_write_that_ends_well_is_one_record(outcome, telemetry):
    """The record has severity INFO, the write's attributes, and the end time of the write."""
    event = replace(BARE, outcome=outcome)
    LogSink(telemetry.logger_provider)(event)
    (record,) = records(telemetry)
    assert record.event_name == "deltawitness.write"
    assert (record.severity_number, record.severity_text) == (SeverityNumber.INFO, "INFO")
    assert record.timestamp == 1_700_000_000_005_000_000
    assert record.body is None
    assert dict(record.attributes) == event_attributes(event)


def test_a_failure_is_an_error_and_an_exception_event(telemetry):
    """The second record has the name and severity of the database conventions."""
    LogSink(telemetry.logger_provider)(replace(BARE, outcome=FAILURE))
    write, exception = records(telemetry)
    assert (write.event_name, write.severity_number) == (
        "deltawitness.write",
        SeverityNumber.ERROR,
    )
    assert exception.event_name == "db.client.operation.exception"
    assert (exception.severity_number.value, exception.severity_text) == (13, "WARN")
    assert exception.timestamp == write.timestamp
    assert dict(exception.attributes) == {
        "db.system.name": "deltalake",
        "db.operation.name": "WRITE",
        "error.type": "commit_conflict",
        "exception.type": "deltalake.CommitFailedError",
        "exception.message": "at [path]",
        "deltawitness.run.id": "r-1",
        "deltawitness.write.id": "w-1",
    }


def test_both_records_carry_the_ids_of_the_writes_span(telemetry):
    """The ids are from the given context, not from a span of the delivery thread."""
    tracer = telemetry.tracer_provider.get_tracer("app")
    span = tracer.start_span("WRITE")
    with tracer.start_as_current_span("another"):
        LogSink(telemetry.logger_provider)(
            replace(BARE, outcome=FAILURE), trace.set_span_in_context(span)
        )
    context = span.get_span_context()
    assert [(r.trace_id, r.span_id, r.trace_flags) for r in records(telemetry)] == [
        (context.trace_id, context.span_id, context.trace_flags)
    ] * 2


def test_a_runs_own_attributes_are_the_first_to_go_beyond_the_sdks_limit(telemetry):
    """The SDK drops the oldest attributes; those that identify the write stay."""
    crowd = {f"a{number}": "x" for number in range(200)}
    event = replace(BARE, run=RunContext("r-1", "nightly", attributes=crowd))
    with pytest.warns(UserWarning, match="attributes were dropped"):
        LogSink(telemetry.logger_provider)(event)
    (record,) = records(telemetry)
    assert len(record.attributes) == 128
    assert ALWAYS.items() <= dict(record.attributes).items()


@pytest.mark.parametrize("provider", [NoOpLoggerProvider(), LoggerProvider(shutdown_on_exit=False)])
def test_a_logger_that_is_off_costs_no_attributes(provider, monkeypatch):
    """Without an SDK or without a processor, no record is built."""

    def untouchable(event):
        raise AssertionError

    monkeypatch.setattr(logs, "event_attributes", untouchable)
    LogSink(provider)(replace(BARE, outcome=FAILURE))


def test_a_processor_may_turn_off_one_of_the_two_events():
    """A logger is queried with the name and severity of each event."""

    class OnlyExceptions(SimpleLogRecordProcessor):
        def enabled(self, *, event_name=None, **kwargs):
            return event_name == "db.client.operation.exception"

    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(OnlyExceptions(exporter))
    LogSink(provider)(replace(BARE, outcome=FAILURE))
    assert [found.log_record.event_name for found in exporter.get_finished_logs()] == [
        "db.client.operation.exception"
    ]
