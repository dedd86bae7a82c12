"""An S3-compatible server on loopback for tests; each request is a line in a file.

python remote_server.py PORT_FILE REQUESTS_FILE [DELAY]

DELAY is the time in seconds by which each response is delayed, as by a network.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


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


def main(port_file, requests_file, delay="0"):
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server(
        "127.0.0.1",
        0,
        application,
        threaded=True,
        request_handler=handler(Path(requests_file), float(delay)),
    )
    Path(port_file).write_text(str(server.port))
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
