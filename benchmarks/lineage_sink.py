"""What a write costs when its OpenLineage events cannot be sent: microseconds, and the counts of the sink.

    python benchmarks/lineage_sink.py [EVENTS] [WRITES]

First the sink gets EVENTS writes for a server that is gone: what the delivery thread pays for each write.
Then WRITES real writes are made with the sink and as many without it, in turns of 10
that end with a flush.
"""

from __future__ import annotations

import logging
import socket
import statistics
import sys
import tempfile
import time

import pyarrow as pa
from deltalake import write_deltalake

from deltawitness import DeltaLakeInstrumentor, OpenLineageSink, flush
from deltawitness.events import CommitMetrics, Committed, WriteEvent, WriteIntent
from deltawitness.run_context import RunContext
from deltawitness.semconv import CacheOperation, Operation

EVENTS = 10_000
WRITES = 100
TURN = 10


def dead_server() -> str:
    """Return the URL of a server that is gone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def event(number: int) -> WriteEvent:
    return WriteEvent(
        write_id=f"write-{number}",
        run=RunContext("run", "bench"),
        intent=WriteIntent(Operation.WRITE, CacheOperation.WRITE, table_uri="/data/t"),
        outcome=Committed((number,), CommitMetrics(rows_added=1)),
        started_at=time.time_ns(),
        duration_ns=1_000_000,
    )


def measure_queue(events: int) -> None:
    sink = OpenLineageSink(dead_server(), capacity=events)
    dropped: list[int] = []
    sink.on_drop = lambda _component, count: dropped.append(count)
    made = [event(number) for number in range(events)]
    taken = []
    for each in made:
        before = time.perf_counter_ns()
        sink(each)
        taken.append((time.perf_counter_ns() - before) / 1e3)
    received = sink.counts.received
    begun = time.perf_counter()
    sink.close(10.0)
    closing = time.perf_counter() - begun
    cuts = statistics.quantiles(taken, n=100)
    print(
        f"queue: {events} writes, median {statistics.median(taken):.1f} us, mean"
        f" {statistics.fmean(taken):.1f} us, p99 {cuts[98]:.1f} us, maximum {max(taken):.0f} us"
    )
    print(f"counts: received {received}, dropped {sum(dropped)}; closed in {closing:.2f} s")


class SwitchedSink(OpenLineageSink):
    """Receives writes only while it is on."""

    is_on = False

    def __call__(self, event: WriteEvent) -> None:
        if self.is_on:
            super().__call__(event)


def measure_writes(writes: int) -> None:
    rows = pa.table({"x": [1]})
    found: dict[bool, list[float]] = {False: [], True: []}
    used: dict[bool, list[float]] = {False: [], True: []}
    sink = SwitchedSink(dead_server())
    DeltaLakeInstrumentor().instrument(sinks=[sink])
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(2 * writes // TURN):
            sink.is_on = turn % 2 == 1
            for number in range(TURN):
                before, cpu = time.perf_counter_ns(), time.thread_time_ns()
                write_deltalake(f"{folder}/{turn}-{number}", rows)
                found[sink.is_on].append((time.perf_counter_ns() - before) / 1e3)
                used[sink.is_on].append((time.thread_time_ns() - cpu) / 1e3)
            flush()
    DeltaLakeInstrumentor().uninstrument()
    for title, times in (("wall time", found), ("CPU time of the calling thread", used)):
        without, with_sink = (statistics.median(times[is_on]) for is_on in (False, True))
        print(
            f"writes, {title}: median {without:.0f} us without the sink, {with_sink:.0f} us with it,"
            f" difference {with_sink - without:+.0f} us"
        )


def main(events: int, writes: int) -> None:
    logging.getLogger("deltawitness").setLevel(logging.ERROR)
    measure_queue(events)
    measure_writes(writes)


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*(*given, *(EVENTS, WRITES)[len(given) :]))
