"""An OpenLineage server on loopback that collects events, and validation by the schemas of the specification."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import deltawitness.openlineage
from helpers.places import TESTS

SPEC = Path(os.environ.get("OPENLINEAGE_SPEC") or TESTS / "openlineage/spec")
"""Folder with the JSON schemas of OpenLineage, which no package contains."""

REPORT = Path(deltawitness.openlineage.__file__).with_name(
    "DeltaCommitReportOutputDatasetFacet.json"
)


@contextmanager
def lineage_server(status=201):
    """Run a server; yield its URL and the list to which it appends events."""
    events = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if status < 300:
                events.append(body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", events
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def spec_validator():
    """Return a function that raises for an event, or a facet of it, that the specification does not allow."""
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    files = [*SPEC.glob("*.json"), *SPEC.glob("facets/*.json"), REPORT]
    contents = [json.loads(file.read_text("utf-8")) for file in files]
    registry = Registry().with_resources(
        (content["$id"], Resource.from_contents(content)) for content in contents
    )

    def check(value, reference):
        Draft202012Validator(
            {"$ref": reference},
            registry=registry,
            format_checker=Draft202012Validator.FORMAT_CHECKER,
        ).validate(value)

    def validate(event):
        check(event, event["schemaURL"])
        for facet in facets_of(event):
            check(facet, facet["_schemaURL"])

    return validate


def facets_of(event):
    """Yield every facet of an event."""
    yield from event["run"]["facets"].values()
    yield from event["job"]["facets"].values()
    for dataset in (*event["inputs"], *event["outputs"]):
        for kind in ("facets", "inputFacets", "outputFacets"):
            yield from (dataset.get(kind) or {}).values()
