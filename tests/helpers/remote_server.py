"""S3-compatible servers on loopback for tests; each request is a line in a file.

python remote_server.py

Each line of the standard input is a JSON list: the file for the port and the process id of a new server,
the file for its requests, and the time in seconds by which each response is delayed, as by a network. A
server is a child of this process, which has imported moto, so it starts quickly. All servers end with the
standard input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import Client


def handler(requests, delay):
    """Return a request handler that writes method, path and status of each request to the file.

    Args:
        requests: the file.
        delay: seconds before each response.
    """

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def run_wsgi(self):
            time.sleep(delay)
            super().run_wsgi()

        def log_request(self, code="-", size="-"):
            with requests.open("a") as lines:
                lines.write(f"{self.command} {self.path} {code}\n")

    return Handler


def serve(application, started_file, requests_file, delay):
    """Serve until a signal ends this process; write the port and the process id when it is ready."""
    server = make_server(
        "127.0.0.1",
        0,
        application,
        threaded=True,
        request_handler=handler(Path(requests_file), delay),
    )
    started = Path(started_file)
    started.with_suffix(".new").write_text(f"{server.port} {os.getpid()}")
    started.with_suffix(".new").rename(started)
    server.serve_forever()


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C ends the tests, which end this process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system removes servers that have ended
    # Only S3: moto's choice of a service would list its modules for each request.
    application = create_backend_app("s3")
    Client(application).put(
        "/lake", base_url="http://127.0.0.1"
    )  # imports what a first request needs
    servers = []
    for line in sys.stdin:
        server = os.fork()
        if server == 0:
            serve(application, *json.loads(line))
        servers.append(server)
    for server in servers:
        try:
            os.kill(server, signal.SIGTERM)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
