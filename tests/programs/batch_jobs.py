"""Short jobs: many real processes, each with an SDK, some observed writes, and an export at its end.

The parent imports everything and starts nothing; each job is a child that it forks, so a job costs some
tens of milliseconds. Each job writes a line of JSON with the values of its counters at its end, to
compare with what a backend shows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from deltawitness import Settings, metric_views
from deltawitness.instrumentation import DeltaLakeInstrumentor
from deltawitness.telemetry.metrics import CacheInstruments

ROWS = 75
"""Rows of an append; a job makes two of them, and a delete."""


def providers(options, service):
    """Return the providers of a job, and a reader that has the values of its counters at the end."""
    resource = Resource.create({"service.name": service})
    truth = InMemoryMetricReader()
    meters = MeterProvider(
        [
            PeriodicExportingMetricReader(
                OTLPMetricExporter(f"{options.endpoint}/v1/metrics"),
                export_interval_millis=options.export_every * 1000,
            ),
            truth,
        ],
        resource=resource,
        views=metric_views(),
    )
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"{options.endpoint}/v1/traces"))
    )
    return tracers, meters, truth


def write(options, number):
    """Append, delete, fail in every tenth job, and read a cached table: three hits to a miss."""
    table = str(Path(options.folder) / f"orders_{number % options.tables}_{number}")
    write_deltalake(table, pa.table({"x": range(ROWS)}), mode="append")
    write_deltalake(table, pa.table({"x": range(ROWS)}), mode="append")
    DeltaTable(table).delete("x < 5")
    if number % 10 == 0:
        with suppress(Exception):
            write_deltalake(table, pa.table({"x": [1]}), mode="error")


def totals(reader):
    """Return the sum of each counter, by name and attributes."""
    found = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    key = json.dumps([metric.name, dict(sorted(point.attributes.items()))])
                    value = getattr(point, "value", None)
                    found[key] = point.count if value is None else value
    return found


def job(options, number, out):
    """Run one job: writes, then the rest of its time, then the export at its end."""
    start = time.monotonic()
    service = "long-job" if number is None else f"job-{number % options.services}"
    tracers, meters, truth = providers(options, service)
    DeltaLakeInstrumentor().instrument(
        tracer_provider=tracers,
        meter_provider=meters,
        settings=Settings(ledger=False),
    )
    reads, pause = CacheInstruments(meters), threading.Event()
    part = 0
    while True:
        write(options, part + 1000 if number is None else number)
        for result in ("hit", "hit", "hit", "miss"):
            reads.record(0.01, policy="daily", scope="dataset", operation="read", result=result)
        part += 1
        left = options.long_seconds - (time.monotonic() - start)
        if number is not None or left <= 0:
            break
        pause.wait(min(left, 1.0))
    if number is not None:
        pause.wait(max(0.0, options.seconds - (time.monotonic() - start)))
    DeltaLakeInstrumentor().uninstrument()
    ended = totals(truth)
    tracers.shutdown()
    meters.shutdown()
    os.write(out, (json.dumps({"service": service, "counters": ended}) + "\n").encode())


def start(options, number, out):
    """Fork a job, and return its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(300)
        job(options, number, out)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def main():
    """Run the jobs, a few at the same time, and the long one beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint", help="HTTP endpoint of the Collector")
    parser.add_argument("folder", help="folder of the tables")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.33, help="length of a short job")
    parser.add_argument("--long-seconds", type=float, default=0.0, help="length of the long job")
    parser.add_argument("--export-every", type=float, default=4.0, help="seconds")
    parser.add_argument("--services", type=int, default=4)
    parser.add_argument("--tables", type=int, default=20)
    options = parser.parse_args()
    out = sys.stdout.fileno()
    long_job = start(options, None, out) if options.long_seconds else None
    running, failed = set(), 0
    for number in range(options.first, options.first + options.jobs):
        if len(running) >= options.parallel:
            child, status = os.wait()
            failed += status != 0
            running.discard(child)
            if child == long_job:
                long_job = None
        running.add(start(options, number, out))
    while running or long_job:
        child, status = os.wait()
        failed += status != 0
        running.discard(child)
        if child == long_job:
            long_job = None
    sys.exit(failed)


if __name__ == "__main__":
    main()
