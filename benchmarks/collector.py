"""What the Collector spends on telemetry: microseconds of CPU per span, metric point and log record; peak memory.

    python benchmarks/collector.py [CONFIG[=LABEL] ...] [--spans N] [--rounds N] [--only KIND]
        [--binary FILE] [--profile FOLDER]

CONFIG is a configuration that runs as a single Collector; `CONFIG+bare` is the same without the processors that
redact. Without a CONFIG: `collector/config.yaml` and the same one `+bare`. Each configuration runs in a process;
the rounds are interleaved, and the median of the rounds is printed. The telemetry is that of real writes, with
other ids, sent over one gRPC connection; the backend is a server in this process that reads nothing. The CPU is
that of the Collector's process alone, from the first request to a second after the last.

`--profile FOLDER` writes a CPU profile per configuration and kind; the binary needs the extension `pprof`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import secrets
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import yaml
from deltalake import write_deltalake
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import deltawitness
from deltawitness.instrumentation import DeltaLakeInstrumentor
from helpers import collector_parts
from helpers.collector_parts import CONFIGS, Backend, Collector

BATCH = 400
LARGE = 50_000
REDACTING = ("transform", "redaction")
EXPORT = "/opentelemetry.proto.collector.{0}.v1.{1}Service/Export"
METHODS = {
    "trace": EXPORT.format("trace", "Trace"),
    "metrics": EXPORT.format("metrics", "Metrics"),
    "logs": EXPORT.format("logs", "Logs"),
}
WORDS = "the quarterly orders of each region were loaded after a check of their totals, "
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


def telemetry() -> tuple[Any, Any, Any]:
    """Make a write and a failing write in a run, and return their spans, metrics and log records as OTLP."""
    resource = Resource.create({"service.name": "loader", "service.version": "1.4.2"})
    spans, logs, reader = InMemorySpanExporter(), InMemoryLogExporter(), InMemoryMetricReader()
    tracers, loggers = TracerProvider(resource=resource), LoggerProvider(resource=resource)
    meters = MeterProvider([reader], resource=resource, views=deltawitness.metric_views())
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(tracer_provider=tracers, meter_provider=meters, logger_provider=loggers)
    with tempfile.TemporaryDirectory() as folder, deltawitness.run("nightly_orders"):
        table, rows = f"{folder}/orders", pa.table({"x": [1]})
        write_deltalake(table, rows)
        for mode in ("append", "append", "error"):
            try:
                write_deltalake(table, rows, mode=mode)
            except Exception as error:  # noqa: BLE001 - the failing write is wanted
                print(f"one write fails: {type(error).__name__}", file=sys.stderr)
    deltawitness.flush()
    encoded = (
        encode_spans(spans.get_finished_spans()),
        encode_metrics(reader.get_metrics_data()),
        encode_logs(logs.get_finished_logs()),
    )
    instrumentor.uninstrument()
    return encoded


def trace_back() -> str:
    """Return the stack trace of an error, 12 frames deep."""
    frames = [
        f'  File "/srv/app/jobs/module_{number}.py", line {number}, in load\n    return load(orders)\n'
        for number in range(12)
    ]
    return "Traceback (most recent call last):\n" + "".join(frames) + "ValueError: bad row\n"


class Requests:
    """Serialized export requests of each kind, with new ids for each one."""

    def __init__(self) -> None:
        self._spans, self._metrics, self._logs = telemetry()

    def of(self, kind: str, count: int) -> Iterator[tuple[str, bytes, int]]:
        """Yield the method to call, a request, and the number of items in it, until there are `count` items."""
        if kind in {"write", "error", "text", "bytes"}:
            batch = 1 if kind in {"text", "bytes"} else BATCH
            for _ in range(0, count, batch):
                yield "trace", self._spans_request(kind, min(batch, count)), min(batch, count)
        elif kind == "point":
            request = self._metrics.SerializeToString()
            for _ in range(0, count, size := self._points()):
                yield "metrics", request, size
        else:
            request, size = self._logs_request()
            for _ in range(0, count, size):
                yield "logs", request, size

    def _spans_request(self, kind: str, count: int) -> bytes:
        request = type(self._spans)()
        request.CopyFrom(self._spans)
        spans = request.resource_spans[0].scope_spans[0].spans
        wanted = 2 if kind == "error" else 0
        (model,) = [s for s in spans if s.name.startswith("WRITE") and s.status.code == wanted][-1:]
        del spans[:]
        del request.resource_spans[0].scope_spans[1:]
        for _ in range(count):
            span = spans.add()
            span.CopyFrom(model)
            span.trace_id, span.span_id = secrets.token_bytes(16), secrets.token_bytes(8)
            if kind == "error":
                event = span.events.add(name="exception", time_unix_nano=time.time_ns())
                event.attributes.add(key="exception.type").value.string_value = "ValueError"
                event.attributes.add(key="exception.message").value.string_value = "bad row"
                event.attributes.add(key="exception.stacktrace").value.string_value = trace_back()
            elif kind == "text":
                text = (WORDS * (LARGE // len(WORDS) + 1))[:LARGE]
                span.attributes.add(key="app.note").value.string_value = text
            elif kind == "bytes":
                span.attributes.add(key="app.blob").value.bytes_value = secrets.token_bytes(LARGE)
        return request.SerializeToString()

    def _points(self) -> int:
        return sum(
            len(getattr(metric, metric.WhichOneof("data")).data_points)
            for resource in self._metrics.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )

    def _logs_request(self) -> tuple[bytes, int]:
        request = type(self._logs)()
        request.CopyFrom(self._logs)
        records = request.resource_logs[0].scope_logs[0].log_records
        models = list(records)
        for number in range(BATCH - len(models)):
            records.add().CopyFrom(models[number % len(models)])
        return request.SerializeToString(), len(records)

    def attributes(self, kind: str) -> int:
        """Return the number of attributes of a span of a kind."""
        request = type(self._spans).FromString(self._spans_request(kind, 1))
        return len(request.resource_spans[0].scope_spans[0].spans[0].attributes)


class Candidate:
    """A Collector process with one configuration, and what it has spent."""

    def __init__(self, argument: str, folder: Path, backend: Backend, *, profiled: bool) -> None:
        path, _, label = argument.partition("=")
        path, plus, _ = path.partition("+bare")
        self.label = label or argument
        overlay: dict[str, Any] = {}
        read = yaml.safe_load(Path(path).read_text())
        if plus:
            overlay["service"] = {
                "pipelines": {
                    name: {
                        "processors": [
                            each
                            for each in pipeline.get("processors", [])
                            if not each.startswith(REDACTING)
                        ]
                    }
                    for name, pipeline in read["service"]["pipelines"].items()
                }
            }
        (self._pprof,) = collector_parts.free_ports(1)
        if profiled:
            overlay.setdefault("service", {})["extensions"] = [
                *read["service"]["extensions"], "pprof",
            ]  # fmt: skip
            overlay["extensions"] = {"pprof": {"endpoint": f"127.0.0.1:{self._pprof}"}}
        self._process = Collector(
            str(Path(path).resolve()),
            folder,
            {
                "BACKEND_ENDPOINT": f"127.0.0.1:{backend.port}",
                "DECISION_WAIT": "5s",
                "DECISION_WAIT_AFTER_ROOT": "1s",
            },
            [json.dumps(overlay)] if overlay else [],
        ).start()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self._process.ports['GRPC']}")
        self.spent: dict[str, list[float]] = {}

    def _cpu_us(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_US

    def measure(self, kind: str, requests: list[tuple[str, bytes, int]]) -> None:
        """Send requests, and record the microseconds per item."""
        before = self._cpu_us()
        for method, request, _ in requests:
            call = self._channel.unary_unary(
                METHODS[method], request_serializer=bytes, response_deserializer=bytes
            )
            call(request, timeout=300)
        threading.Event().wait(1)  # until queued batches have been exported
        items = sum(count for _, _, count in requests)
        self.spent.setdefault(kind, []).append((self._cpu_us() - before) / items)

    def profile(self, act: Callable[[], None], file: Path, seconds: int) -> None:
        """Write a CPU profile of the process while `act` runs."""
        url = f"http://127.0.0.1:{self._pprof}/debug/pprof/profile?seconds={seconds}"

        def fetch() -> None:
            with urllib.request.urlopen(url, timeout=seconds + 60) as answer:
                read = answer.read()
            file.write_bytes(read if read[:2] == b"\x1f\x8b" else gzip.compress(read))

        thread = threading.Thread(target=fetch)
        thread.start()
        act()
        thread.join()

    def peak_mib(self) -> float:
        """Return the peak of the resident memory, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def stop(self) -> None:
        """Stop the process."""
        self._channel.close()
        self._process.stop()


def sizes(kind: str, spans: int) -> int:
    """Return how many items of a kind a round has."""
    return {"error": spans // 4, "text": spans // 100, "bytes": spans // 100}.get(kind, spans)


def print_results(candidates: list[Candidate], kinds: list[str]) -> None:
    """Print the median of each kind for each configuration, as a Markdown table."""
    print("| us of CPU per | " + " | ".join(one.label for one in candidates) + " |")
    print("|---" * (len(candidates) + 1) + "|")
    for kind in kinds:
        cells = [f"{statistics.median(one.spent[kind]):,.1f}" for one in candidates]
        print(f"| {kind} | " + " | ".join(cells) + " |")
    print("| peak MiB | " + " | ".join(f"{one.peak_mib():.0f}" for one in candidates) + " |")


KINDS = ("write", "error", "text", "bytes", "point", "log")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="*", metavar="CONFIG[=LABEL]")
    parser.add_argument("--spans", type=int, default=4000, help="spans of a write in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=KINDS, help="only this kind of item")
    parser.add_argument("--binary", help="the Collector")
    parser.add_argument("--profile", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.binary:
        collector_parts.OTELCOL = options.binary
    if collector_parts.OTELCOL is None:
        sys.exit("no Collector: set OTELCOL_BIN, or run `make collector`")
    default = str(CONFIGS / "config.yaml")
    configs = options.configs or [f"{default}=as shipped", f"{default}+bare=without redaction"]
    kinds = [kind for kind in KINDS if not options.only or kind in options.only]
    requests, backend = Requests(), Backend().up()
    print(f"attributes of a write's span: {requests.attributes('write')}", file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="collector-"))
    candidates = [
        Candidate(one, folder / str(number), backend, profiled=options.profile is not None)
        for number, one in enumerate(configs)
    ]
    try:
        for number in range(options.rounds + 1):
            for kind in kinds:
                made = list(requests.of(kind, sizes(kind, options.spans)))
                for one in candidates:
                    one.measure(kind, made[:1] if number == 0 else made)  # the first one warms up
                backend.trace_requests.clear()
                backend.log_requests.clear()
                backend.metric_requests.clear()
        for one in candidates:
            for taken in one.spent.values():
                taken.pop(0)
        if options.profile:
            take_profiles(candidates, requests, kinds, options)
        print_results(candidates, kinds)
    finally:
        for one in candidates:
            one.stop()
        backend.down()


def take_profiles(
    candidates: list[Candidate], requests: Requests, kinds: list[str], options: argparse.Namespace
) -> None:
    """Write a CPU profile of each configuration for each kind, after the rounds."""
    options.profile.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        made = list(requests.of(kind, sizes(kind, options.spans)))
        for number, one in enumerate(candidates):
            file = options.profile / f"{number}-{kind}.pb.gz"

            def act(one: Candidate = one, kind: str = kind, made: Any = made) -> None:
                one.measure(kind, made)

            one.profile(act, file, seconds=10)


if __name__ == "__main__":
    main()
