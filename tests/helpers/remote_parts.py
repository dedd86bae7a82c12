"""An S3-compatible server for a test module, and the requests that it has received."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path


class Server:
    """A running server and its request log."""

    def __init__(self, port, requests):
        self.endpoint = f"http://127.0.0.1:{port}"
        self._requests = requests
        self.options = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
        }
        self.put("/lake")

    def put(self, path):
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}{path}", method="PUT"))

    def requests(self, act):
        before = len(self._requests.read_text().splitlines())
        act()
        return self._requests.read_text().splitlines()[before:]


@contextmanager
def running_server(folder, *, delay=0.0):
    """Run a server in another process for the block.

    Args:
        folder: the directory in which the server writes its port and a line for each request.
        delay: seconds before each response.
    """
    port, requests = folder / "port", folder / "requests"
    requests.touch()
    script = Path(__file__).parent / "remote_server.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(port), str(requests), str(delay)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (port.exists() and port.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)  # the server creates the file when it is ready
    yield Server(port.read_text(), requests)
    process.terminate()
    process.wait()
