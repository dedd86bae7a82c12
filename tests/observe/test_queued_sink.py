"""Sinks with a queue: a slow or failing server costs no write, and what is not sent is counted."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest
from deltalake import write_deltalake

import deltawitness
from deltawitness import DeltaLakeInstrumentor, Settings
from deltawitness.observe.queued_sink import QueuedSink


class Recorded(QueuedSink):
    """Sends to a list; waits for `gate` before each write."""

    component = "sink"

    def __init__(self, *, capacity=100, located=True):
        super().__init__(capacity=capacity)
        self.receives_locations = located
        self.gate = threading.Event()
        self.gate.set()
        self.events = []
        self.dropped = []
        self.problem = None
        self.attempts = 0
        self.resets = 0

    def reset_after_fork(self):
        self.resets += 1

    def send(self, event):
        self.attempts += 1
        self.gate.wait(60)
        if self.problem is not None:
            raise self.problem
        self.events.append(event)


@pytest.fixture
def write(tmp_path):
    """Return a function that makes writes which a sink observes."""

    def make(sink, count=1, **settings):
        DeltaLakeInstrumentor().instrument(settings=Settings(**settings), sinks=[sink])
        sink.on_drop = lambda component, count: sink.dropped.append((component, count))
        for x in range(count):
            write_deltalake(f"{tmp_path}/t", pa.table({"x": [x]}), mode="append")

    return make


@pytest.mark.slow
def test_locations_are_only_for_sinks_that_ask(tmp_path, write):
    """A sink that receives locations gets them with the schema, and any other sink gets neither."""
    for located in (True, False):
        sink = Recorded(located=located)
        write(sink)
        assert deltawitness.flush(60)
        (event,) = sink.events
        uri = event.intent.table_uri
        assert (uri is not None and uri.endswith(f"{tmp_path}/t")) is located
        assert (event.intent.schema is not None) is located
        DeltaLakeInstrumentor().uninstrument()


@pytest.mark.slow
def test_full_queue_and_end_of_the_process(write):
    """What does not fit into the queue is dropped, and so is what is not sent before the end."""
    sink = Recorded(capacity=1)
    sink.gate.clear()
    write(sink, 5, sink_timeout=0.2)
    DeltaLakeInstrumentor().uninstrument()
    sink.gate.set()
    assert sum(count for _, count in sink.dropped) == 5
    assert {component for component, _ in sink.dropped} == {"sink"}


@pytest.mark.slow
@pytest.mark.internal_errors
def test_failure_pauses_the_sink(write):
    """After a failure further writes are dropped without an attempt, and later ones are sent again."""
    sink = Recorded()
    sink.problem = OSError("gone")
    write(sink, 2)
    assert deltawitness.flush(60)
    assert sink.dropped == [("sink", 1)] * 2
    assert sink.attempts == 1
    sink.problem, sink._paused_until = None, 0.0
    write(sink)
    assert deltawitness.flush(60)
    assert len(sink.events) == 1


def test_a_forked_child_opens_new_connections_once(write):
    """What its parent has queued is no longer counted."""
    sink = Recorded()
    write(sink)
    assert deltawitness.flush(60)
    sink._pid = -1  # as in a child, which has another id than the process that made the sink
    write(sink, 2)
    assert deltawitness.flush(60)
    assert (sink.resets, sink.counts.received, len(sink.events)) == (1, 2, 3)
