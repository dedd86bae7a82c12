"""The span of a run has the number of its failed writes and the duration of the slowest one."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import deltawitness
from deltawitness.events import WriteEvent, WriteIntent
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.run_context import RunContext
from deltawitness.semconv import (
    DB_OPERATION_NAME,
    RUN_FAILED_WRITES,
    RUN_SLOWEST_WRITE,
    CacheOperation,
    Operation,
)
from deltawitness.telemetry.run_writes import WritesOfRuns

ROWS = pa.table({"x": [1]})


@pytest.fixture
def spans():
    """A function that returns the finished spans of observed writes."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    DeltaLakeInstrumentor().instrument(tracer_provider=provider)
    return exporter.get_finished_spans


def test_a_run_counts_its_own_writes_and_those_of_the_runs_inside_it(spans, tmp_path):
    """A failed write of an inner run, whose error the program handles, is on the spans of both runs."""
    table = str(tmp_path / "orders")
    with deltawitness.run("outer"):
        write_deltalake(table, ROWS)
        with deltawitness.run("inner"), pytest.raises(Exception, match="already exists"):
            write_deltalake(table, ROWS, mode="error")
        with deltawitness.run("other"):
            write_deltalake(table, ROWS, mode="append")
    runs = {span.name: span for span in spans() if DB_OPERATION_NAME not in span.attributes}
    failed = {name: span.attributes.get(RUN_FAILED_WRITES) for name, span in runs.items()}
    assert failed == {"outer": 1, "inner": 1, "other": None}
    writes = [
        (span.end_time - span.start_time) / 1e9
        for span in spans()
        if DB_OPERATION_NAME in span.attributes
    ]
    assert runs["outer"].attributes[RUN_SLOWEST_WRITE] == pytest.approx(max(writes))


def test_a_run_without_writes_has_no_counts(spans):
    with deltawitness.run("empty"):
        pass
    (span,) = spans()
    assert not {RUN_FAILED_WRITES, RUN_SLOWEST_WRITE} & span.attributes.keys()


def event(run, duration_ns):
    """Return a write without an outcome of its own."""
    intent = WriteIntent(Operation.WRITE, CacheOperation.WRITE, table_uri="/data/t")
    return WriteEvent(
        write_id="w",
        run=run,
        intent=intent,
        outcome=deltawitness.events.UNCHANGED,
        started_at=0,
        duration_ns=duration_ns,
    )


def test_runs_with_one_id_share_their_counts_until_the_last_one_ends():
    """A scheduler may open several runs of a process with one id; a write after the end is not counted."""
    runs, first = WritesOfRuns(), RunContext("one", "job")
    counts = runs.run_started(first)
    assert runs.run_started(RunContext("one", "job")) is counts
    runs.write_ended(event(RunContext("another", "job"), 9))
    runs.run_ended(first)
    runs.write_ended(event(first, 5))
    runs.run_ended(first)
    runs.write_ended(event(first, 7))
    runs.run_ended(first)
    assert (counts.failed, counts.slowest_ns) == (0, 5)
