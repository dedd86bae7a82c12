"""A webhook on loopback with answers that a test sets."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """What a webhook has received, and its next answers.

    Attributes:
        url: its URL, with a secret in the path.
        requests: headers and body of each request.
        paths: the path of each request.
        answers: the next answers: a status, a status with headers, or a function that is called before the
            connection is closed without an answer; 200 when there is none left.
    """

    url: str = ""
    requests: list = field(default_factory=list)
    paths: list = field(default_factory=list)
    answers: list = field(default_factory=list)

    @property
    def alerts(self):
        """The alerts of each request, as kinds and names."""
        return [
            [(each["kind"], each["name"]) for each in json.loads(body)["alerts"]]
            for _, body in self.requests
        ]


@contextmanager
def webhook_server():
    """Run a webhook; yield its `Receiver`."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.paths.append(self.path)
            receiver.requests.append((dict(self.headers), body))
            answer = receiver.answers.pop(0) if receiver.answers else 200
            if callable(answer):
                answer()
                return
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

        def handle_error(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook/s3cret-path"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
