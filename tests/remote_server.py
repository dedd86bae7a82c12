"""An S3-compatible server on loopback for tests; each request is a line in a file.

python remote_server.py PORT_FILE REQUESTS_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

REQUESTS = Path(sys.argv[2])


class Handler(WSGIRequestHandler):
    """Notes down method and path."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        with REQUESTS.open("a") as lines:
            lines.write(f"{self.command} {self.path} {code}\n")


application = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
Path(sys.argv[1]).write_text(str(server.port))
server.serve_forever()
