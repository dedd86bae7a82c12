"""A real Collector process for a test, and an OTLP backend that it exports to."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from concurrent import futures
from pathlib import Path

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "collector"
PREFIX = "DELTAWITNESS_COLLECTOR_"
PATIENCE = 60.0


def find(variable, on_path, built):
    """Return the program that a variable names, else the one on PATH, else the one that `make` built."""
    named = os.environ.get(variable)
    if named:
        return named
    return shutil.which(on_path) or (str(built) if built.exists() else None)


OTELCOL = find("OTELCOL_BIN", "otelcol-contrib", CONFIGS / "_build/otelcol-deltawitness")
PROMETHEUS = find("PROMETHEUS_BIN", "prometheus", CONFIGS / "_build/prometheus/usr/bin/prometheus")
PROMTOOL = find("PROMTOOL_BIN", "promtool", CONFIGS / "_build/prometheus/usr/bin/promtool")


def free_ports(count):
    """Return free ports of loopback, all different: they are bound at the same time, then closed."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def until(found, what):
    """Call a function until its result is true, and return the result.

    Raises:
        AssertionError: it is not true within `PATIENCE` seconds.
    """
    deadline = time.monotonic() + PATIENCE
    tick = threading.Event()
    while True:
        answer = found()
        if answer:
            return answer
        if time.monotonic() > deadline:
            msg = f"not seen within {PATIENCE} s: {what}"
            raise AssertionError(msg)
        tick.wait(0.05)


def fetch(port, path="/metrics"):
    """Return a page of a server on loopback; an empty text if there is no answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def series(text, name):
    """Return the samples of a metric in the Prometheus text format: labels and value of each."""
    return [
        (dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)), float(value))
        for labels, value in re.findall(
            rf"^{name}(?:\{{(.*?)\}})? ([0-9.e+-]+)", text, re.MULTILINE
        )
    ]


class Backend:
    """An OTLP server over gRPC that stores the requests that it gets; it can be stopped and restarted.

    While `is_refusing` is set it answers every export with UNAVAILABLE, which a sender retries.
    """

    def __init__(self):
        (self.port,) = free_ports(1)
        self.trace_requests, self.metric_requests, self.log_requests = [], [], []
        self.is_refusing = False
        self._server = None

    def up(self):
        """Start to listen."""
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        for register, kept, answer in (
            (
                trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
                self.trace_requests,
                trace_service_pb2.ExportTraceServiceResponse,
            ),
            (
                metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
                self.metric_requests,
                metrics_service_pb2.ExportMetricsServiceResponse,
            ),
            (
                logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
                self.log_requests,
                logs_service_pb2.ExportLogsServiceResponse,
            ),
        ):
            register(_Service(self, kept, answer), self._server)
        assert self._server.add_insecure_port(f"127.0.0.1:{self.port}") == self.port
        self._server.start()
        return self

    def down(self):
        """Stop listening; the stored requests remain."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def spans(self):
        """Return every received span."""
        return _items(self.trace_requests, "resource_spans", "scope_spans", "spans")

    def logs(self):
        """Return every received log record."""
        return _items(self.log_requests, "resource_logs", "scope_logs", "log_records")

    def metrics(self):
        """Return every received metric, once for each time that it was received."""
        return _items(self.metric_requests, "resource_metrics", "scope_metrics", "metrics")

    def everything(self):
        """Return all received requests as text."""
        requests = [*self.trace_requests, *self.metric_requests, *self.log_requests]
        return "\n".join(map(str, requests))


def _items(requests, resources, scopes, items):
    """Return the items of OTLP requests, which are nested in resources and scopes."""
    return [
        item
        for request in list(requests)
        for resource in getattr(request, resources)
        for scope in getattr(resource, scopes)
        for item in getattr(scope, items)
    ]


class _Service:
    """The `Export` method, which each of the three OTLP services has."""

    def __init__(self, backend, kept, answer):
        self._backend, self._kept, self._answer = backend, kept, answer

    def Export(self, request, context):  # noqa: N802 - the name in the OTLP service
        if self._backend.is_refusing:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the test refuses every export")
        self._kept.append(request)
        return self._answer()


class Collector:
    """A Collector process with one of the shipped configurations, on free ports.

    Args:
        config: file name of the configuration.
        folder: folder of its queue and its output.
        settings: further variables, named without their prefix.
        overlays: YAML texts of configurations that are merged over it.
    """

    def __init__(self, config, folder, settings=(), overlays=()):
        self.folder = Path(folder)
        self.queue = self.folder / "queue"
        names = ("HEALTH", "GRPC", "HTTP", "PROMETHEUS", "SELF", "SAMPLING", "SPANS", "METRICS")
        names += ("SUMS", "DELTAS")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        own = {
            "HEALTH_ENDPOINT": self._at("HEALTH"),
            "GRPC_ENDPOINT": self._at("GRPC"),
            "HTTP_ENDPOINT": self._at("HTTP"),
            "PROMETHEUS_ENDPOINT": self._at("PROMETHEUS"),
            "SUMS_ENDPOINT": self._at("SUMS"),
            "DELTAS_ENDPOINT": self._at("DELTAS"),
            "GATEWAY_SAMPLING_ENDPOINT": self._at("SAMPLING"),
            "GATEWAY_SPANMETRICS_ENDPOINT": self._at("SPANS"),
            "GATEWAY_METRICS_ENDPOINT": self._at("METRICS"),
            "SELF_PORT": str(self.ports["SELF"]),
            "SELF_HOST": "127.0.0.1",
            "QUEUE_DIR": str(self.queue),
            "BACKEND_INSECURE": "true",
            "GATEWAY_INSECURE": "true",
        }
        self._environment = {
            **os.environ,
            **{PREFIX + name: value for name, value in {**own, **dict(settings)}.items()},
        }
        self._command = [OTELCOL, "--config", str(CONFIGS / config)]
        for overlay in overlays:
            self._command += ["--config", f"yaml:{overlay}"]
        self._process = None

    def _at(self, name):
        return f"127.0.0.1:{self.ports[name]}"

    def start(self):
        """Start the Collector, and wait until its health check succeeds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "collector.log").open("a") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log
            )
        until(self._is_well, f"a healthy collector: {self.log()[-2000:]}")
        return self

    def _is_well(self):
        assert self._process.poll() is None, self.log()[-4000:]
        return "available" in fetch(self.ports["HEALTH"], "/")

    def log(self):
        """Return the log of the Collector."""
        return (self.folder / "collector.log").read_text()

    def kill(self):
        """Kill the Collector with SIGKILL."""
        self._process.kill()
        self._process.wait()

    def stop(self):
        """Stop the Collector with SIGTERM, and wait until it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    @property
    def pid(self):
        """The process id of the Collector."""
        return self._process.pid

    def own(self, name):
        """Return the samples of a metric of the Collector about itself."""
        return series(fetch(self.ports["SELF"]), name)

    def queued(self, signal):
        """Return the number of items of a signal in the export queue."""
        waiting = self.own("otelcol_exporter_queue_size")
        return sum(value for labels, value in waiting if labels["data_type"] == signal)

    def scraped(self, name, port="PROMETHEUS"):
        """Return the samples of a metric on a Prometheus endpoint: that of processes, or `SUMS`."""
        return series(fetch(self.ports[port]), name)
