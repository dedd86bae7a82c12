"""A load of spans for a Collector at a steady rate: what arrives, and what the Collector uses.

`PYTHONPATH=tests python -m helpers.soak --rate 500 --seconds 120` prints it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from helpers.collector_parts import Backend, Collector, until

ALL = {"BASELINE_PERCENT": "100"}
"""The sampler keeps all traces, so that a loss can be seen."""

BATCH = 100
TRACE = 4
"""Spans of a trace: a run with three writes."""
MIB = 1 << 20
PROGRESS_S = 60.0

ATTRIBUTES = {
    "db.system.name": "deltalake",
    "db.operation.name": "WRITE",
    "db.collection.name": "orders",
    "db.namespace": "warehouse",
    "delta.table.id": "0b6a2c1e-93f4-4c53-9d1f-7a1c2f0f6f0e",
    "delta.table.version": 1234,
    "delta.write.mode": "append",
    "delta.commit.rows.added": 100_000,
    "delta.commit.files.added": 1,
    "delta.commit.size.added": 4_567_890,
    "deltawitness.run.id": "019a5f0e-7f1c-7b1e-8a52-1f2e3d4c5b6a",
    "deltawitness.write.id": "019a5f0e-7f1c-7b1e-8a52-1f2e3d4c5b6b",
    "cache.policy": "unmanaged",
    "cache.scope": "dataset",
    "cache.operation": "write",
    "cache.result": "write",
    "code.function.name": "load_orders",
}
"""The attributes of an ordinary write."""


def _value(value):
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)


ORDINARY = Span(
    name="WRITE orders",
    kind=Span.SPAN_KIND_CLIENT,
    attributes=[KeyValue(key=key, value=_value(value)) for key, value in ATTRIBUTES.items()],
)


def request(first, count=BATCH):
    """Return a request with spans of consecutive numbers; the last of four is the root of the trace."""
    now, spans = time.time_ns(), []
    for number in range(first, first + count):
        span = Span()
        span.CopyFrom(ORDINARY)
        trace = number // TRACE
        root = (trace * TRACE + TRACE).to_bytes(8, "big")
        span.trace_id = (trace + 1).to_bytes(16, "big")
        span.span_id = (number + 1).to_bytes(8, "big")
        span.parent_span_id = b"" if span.span_id == root else root
        span.start_time_unix_nano, span.end_time_unix_nano = now - 50_000_000, now
        spans.append(span)
    scope = InstrumentationScope(name="deltawitness", version="1")
    resource = Resource(attributes=[KeyValue(key="service.name", value=_value("loader"))])
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(resource=resource, scope_spans=[ScopeSpans(scope=scope, spans=spans)])
        ]
    )


class Tally:
    """Counts the spans of requests by their numbers, and does not store the requests.

    Attributes:
        total: spans that arrived.
        different: spans that arrived, each counted once.
    """

    def __init__(self):
        self.total = self.different = 0
        self._seen, self._lock = bytearray(), threading.Lock()

    def append(self, received):
        """Count the spans of a request."""
        numbers = [
            int.from_bytes(span.span_id, "big")
            for resource in received.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._seen.extend(bytes(max(0, max(numbers, default=0) + 1 - len(self._seen))))
            for number in numbers:
                self.different += not self._seen[number]
                self._seen[number] = 1
            self.total += len(numbers)


class CountingBackend(Backend):
    """A backend that counts spans, and forgets the rest."""

    def __init__(self):
        super().__init__()
        self.tally = self.trace_requests = Tally()


def memory(pid):
    """Return the resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu(pid):
    """Return the processor time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Load:
    """What was sent, and what the Collector used meanwhile.

    Attributes:
        sent: spans that the Collector accepted.
        refused: requests that it refused; each was sent again.
        cpu_s: processor time of the Collector.
        sender_cpu_s, receiver_cpu_s: processor time of the sender's thread, and of all other threads of its
            process, which are mostly those of the backend.
        seconds: how long it took to send.
        samples: seconds since the start, resident memory in bytes, spans in the queue.
        lost, duplicated: spans that did not arrive, and that arrived once more.
    """

    sent: int = 0
    refused: int = 0
    cpu_s: float = 0.0
    sender_cpu_s: float = 0.0
    receiver_cpu_s: float = 0.0
    seconds: float = 0.0
    samples: list[tuple[float, int, float]] = field(default_factory=list)
    lost: int = 0
    duplicated: int = 0

    @property
    def peak(self):
        """The largest resident memory, in bytes."""
        return max(used for _, used, _ in self.samples)

    @property
    def longest_queue(self):
        """The largest number of spans in the queue."""
        return max(queued for _, _, queued in self.samples)

    @property
    def slope(self):
        """Growth of the resident memory in the second half of the time, in MiB per minute."""
        later = self.samples[len(self.samples) // 2 :]
        if len(later) < 2:
            return 0.0
        times, used = [at for at, _, _ in later], [used / MIB for _, used, _ in later]
        return statistics.linear_regression(times, used).slope * 60

    def line(self):
        """Return the result in one line."""
        return (
            f"{self.sent} spans in {self.seconds:.0f} s ({self.sent / self.seconds:.0f}/s):"
            f" {self.lost} lost, {self.duplicated} duplicated, {self.refused} requests refused;"
            f" {self.cpu_s / self.sent * 1e6:.0f} us CPU a span, {self.sender_cpu_s / self.sent * 1e6:.0f} of the"
            f" sender, {self.receiver_cpu_s / self.sent * 1e6:.0f} of the receiver;"
            f" memory {self.peak / MIB:.0f} MiB at most,"
            f" {self.slope:+.1f} MiB/min; at most {self.longest_queue:.0f} spans queued"
        )


def send(one, rate, seconds, progress=None):
    """Send spans at a rate for some time; a refused request is sent again, as an SDK does.

    Args:
        one: the Collector.
        rate: spans per second.
        seconds: how long.
        progress: is called each minute with a line about the Collector; None for no calls.
    """
    load, tick = Load(), threading.Event()
    start, before, sampled, shown = time.monotonic(), cpu(one.pid), 0.0, PROGRESS_S
    sender, process = time.thread_time(), time.process_time()
    with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
        stub = TraceServiceStub(channel)
        while (at := time.monotonic() - start) < seconds:
            if at >= sampled:
                load.samples.append((at, memory(one.pid), one.queued("traces")))
                sampled = at + 1.0
            if progress is not None and at >= shown:
                heap = sum(
                    value for _, value in one.own("otelcol_process_runtime_heap_alloc_bytes")
                )
                used = f"{memory(one.pid) / MIB:.0f} MiB, of which the heap has {heap / MIB:.0f}"
                progress(f"{at:.0f} s: {load.sent} spans sent, {used}")
                shown += PROGRESS_S
            if load.sent > at * rate:
                tick.wait(load.sent / rate - at)
                continue
            batch = request(load.sent)
            while True:
                try:
                    stub.Export(batch, timeout=60)
                except grpc.RpcError as refused:
                    if refused.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    load.refused += 1
                    tick.wait(1.0)
                else:
                    break
            load.sent += BATCH
    load.seconds, load.cpu_s = time.monotonic() - start, cpu(one.pid) - before
    load.sender_cpu_s = time.thread_time() - sender
    load.receiver_cpu_s = time.process_time() - process - load.sender_cpu_s
    return load


def soak(one, backend, rate, seconds, progress=None):
    """Send a load, wait until all of it has arrived, and return the result."""
    load = send(one, rate, seconds, progress)
    tally = backend.tally
    with suppress(AssertionError):  # what has not arrived by then is lost
        until(lambda: tally.different >= load.sent, f"{load.sent} spans")
    until(lambda: one.queued("traces") == 0, "an empty queue")
    load.samples.append((load.seconds, memory(one.pid), 0.0))
    load.lost, load.duplicated = load.sent - tally.different, tally.total - tally.different
    return load


def sizes(one, backend, count=10_000):
    """Print the memory of a span in the sampler, and the disk and memory of one in the queue.

    Args:
        one: a Collector whose decisions wait for a minute after the root.
        backend: its backend.
        count: spans to send.
    """
    backend.is_refusing = True
    before = memory(one.pid)
    with grpc.insecure_channel(f"127.0.0.1:{one.ports['GRPC']}") as channel:
        for first in range(0, count, BATCH):
            TraceServiceStub(channel).Export(request(first))
    waiting = memory(one.pid) - before
    print(f"in the sampler: {waiting / count:,.0f} bytes of memory a span", flush=True)
    tick, end = threading.Event(), time.monotonic() + 300
    while one.queued("traces") < count and time.monotonic() < end:
        tick.wait(1)
    disk = sum(path.stat().st_blocks * 512 for path in one.queue.rglob("*") if path.is_file())
    print(
        f"in the queue: {disk / count:,.0f} bytes of disk a span, {memory(one.pid) / MIB:.0f} MiB of memory"
    )


def main():
    """Print the result of a soak with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="spans per second")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--sizes", action="store_true", help="measure memory and disk a span")
    options = parser.parse_args()
    backend = CountingBackend().up()
    long = {"DECISION_WAIT": "60s", "DECISION_WAIT_AFTER_ROOT": "60s"} if options.sizes else {}
    with tempfile.TemporaryDirectory() as folder:
        one = Collector(
            "config.yaml", folder, {"BACKEND_ENDPOINT": f"127.0.0.1:{backend.port}", **ALL, **long}
        ).start()
        try:
            if options.sizes:
                sizes(one, backend)
            else:
                show = partial(print, flush=True)
                show(soak(one, backend, options.rate, options.seconds, show).line())
        finally:
            one.stop()
            backend.down()


if __name__ == "__main__":
    main()
