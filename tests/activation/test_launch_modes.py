"""One write gives one commit, one ledger row, one span and one metric point in any process.

Each test runs one program that writes a table by each start method, in one launch mode.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deltawitness import Ledger
from deltawitness.commit import history
from deltawitness.semconv import Env
from helpers.places import PROGRAMS
from helpers.sizes import cases

pytestmark = pytest.mark.slow

PROGRAM = PROGRAMS / "launch.py"

START_METHODS = {
    "asyncio", "copied", "executor", "fork", "forkserver", "main", "pool", "spawn", "subprocess",
    "thread", "thread_pool",
}  # fmt: skip

WRITES, FEW_WRITES = 7, 2
"""Commits of each table; those of a table that the main thread does not write, in `make test`."""

BIN = Path(sys.executable).parent
RUN = [str(BIN / "deltawitness"), "run", "--quiet", "--json", "summary.json", "--"]
OTEL = [str(BIN / "opentelemetry-instrument")]

MODES = {
    "run": (RUN, "plain"),
    "opentelemetry-instrument": (OTEL, "plain"),
    "main instruments": ([], "main"),
    "each process instruments": ([], "each"),
    "run, and each process instruments": (RUN, "each"),
    "run, and the cache is imported first": (RUN, "DeltaCache"),
}
SMALL = ["run", "each process instruments"]
COMBINED = {
    "opentelemetry-instrument, and each process instruments": (OTEL, "each"),
    "run of opentelemetry-instrument": ([*RUN, *OTEL], "plain"),
    "opentelemetry-instrument of run": ([*OTEL, *RUN], "plain"),
}


class Receiver(ThreadingHTTPServer):
    """A server that receives spans and metrics by OTLP over HTTP."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans, self.points = Counter(), {}
        self.lock = threading.Lock()

    def take(self, path, body):
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
            ExportMetricsServiceRequest,
        )
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        with self.lock:
            if path == "/v1/traces":
                self._take_spans(ExportTraceServiceRequest.FromString(body))
            elif path == "/v1/metrics":
                request = ExportMetricsServiceRequest.FromString(body)
                for resource in request.resource_metrics:
                    for scope in resource.scope_metrics:
                        for metric in scope.metrics:
                            self._take_metric(metric)

    def _take_spans(self, request):
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.update(
                        attribute.value.string_value
                        for attribute in span.attributes
                        if attribute.key == "deltawitness.write.id"
                    )

    def _take_metric(self, metric):
        # Points are cumulative: use the last one of each series. Each process has separate series.
        if metric.name == "db.client.operation.duration":
            for point in metric.histogram.data_points:
                key = (
                    metric.name,
                    point.start_time_unix_nano,
                    str(sorted(map(str, point.attributes))),
                )
                self.points[key] = max(point.count, self.points.get(key, 0))

    def total(self, name):
        return sum(value for key, value in self.points.items() if key[0] == name)


class Handler(BaseHTTPRequestHandler):
    """Responds to every export."""

    def do_POST(self):
        self.server.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    """An OTLP receiver on a free port."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def check(mode, tmp_path, receiver, writes):
    """Run the program in a launch mode, and compare the number of records of each write in all outputs.

    The program writes each table `writes` times, that of the main thread WRITES times.
    """
    command, launch = mode
    environment = {
        **os.environ,
        "LAUNCH": launch,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_LOGS_EXPORTER": "none",
        Env.CACHE_ROOT: str(tmp_path / "root"),
    }
    if not command:
        environment["SDK"] = "yes"
    if writes == FEW_WRITES:
        environment["FEW"] = "yes"
    tables = tmp_path / "tables"
    done = subprocess.run(
        [*command, sys.executable, str(PROGRAM), str(tables)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {place.name for place in tables.iterdir()} == START_METHODS
    commits = {
        (place.name, commit.version): commit.write_id
        for place in tables.iterdir()
        for commit in history(place)
    }
    expected = {**dict.fromkeys(START_METHODS, writes), "main": WRITES}
    assert Counter(name for name, _ in commits) == expected
    unstamped = [where for where, write_id in commits.items() if write_id is None]
    assert unstamped == []
    written = Counter(commits.values())
    assert set(written.values()) == {1}
    rows = Ledger(str(tmp_path / "root")).inventory().to_pydict()
    assert Counter(rows["write_id"]) == written
    assert receiver.spans == written
    assert receiver.total("db.client.operation.duration") == len(commits)
    assert len(set(rows["run_id"])) == 1
    if command and "deltawitness" in str(command):
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert summary["total"]["operations"] == len(commits)
    assert "deltawitness" not in done.stderr, done.stderr


@pytest.mark.parametrize("mode", cases(MODES, SMALL))
def test_each_write_is_everywhere_once(mode, tmp_path, receiver, size):
    """Each launch mode and each start method gives one record per write."""
    check(MODES[mode], tmp_path, receiver, size(WRITES, WRITES, FEW_WRITES))


@pytest.mark.parametrize("mode", COMBINED)
def test_each_write_is_everywhere_once_in_combined_modes(mode, tmp_path, receiver, size):
    """Two nested launchers give one record per write."""
    if not size(0, 1):
        pytest.skip("at full size")
    check(COMBINED[mode], tmp_path, receiver, WRITES)
