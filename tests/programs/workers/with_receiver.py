"""Run a command with an OTLP receiver on loopback, and write the spans that arrive to a file.

python with_receiver.py SPANS_FILE COMMAND...

A line of the file is a JSON object: name, trace and span id, parent id, attributes, and process id.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Handler(BaseHTTPRequestHandler):
    """Appends the spans of each export to the file of the server."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            lines = "".join(f"{json.dumps(each)}\n" for each in spans_in(body))
            with self.server.lock, self.server.spans.open("a") as file:
                file.write(lines)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def spans_in(body):
    """Yield the spans of a request."""
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        of_process = {each.key: each.value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield {
                    "name": span.name,
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "attributes": {
                        each.key: each.value.string_value
                        for each in span.attributes
                        if each.value.HasField("string_value")
                    },
                    "pid": of_process["process.pid"].int_value
                    if "process.pid" in of_process
                    else None,
                }


def main(spans, *command):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.spans, server.lock = Path(spans), threading.Lock()
        server.spans.touch()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "60000",
        }
        try:
            return subprocess.run(command, env=environment).returncode
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
