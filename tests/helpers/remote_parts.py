"""An S3-compatible server for a test module, and the requests that it has received."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from functools import cache
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


@cache
def _starter():
    """Start the process that starts the servers of this process; it ends with this process."""
    script = Path(__file__).parent / "remote_server.py"
    starter = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    atexit.register(starter.communicate)
    return starter


@contextmanager
def running_server(folder, *, delay=0.0):
    """Run a server in another process for the block.

    Args:
        folder: the directory in which the server writes its port and a line for each request.
        delay: seconds before each response.
    """
    started, requests = folder / "started", folder / "requests"
    requests.touch()
    starter = _starter()
    starter.stdin.write(json.dumps([str(started), str(requests), delay]).encode() + b"\n")
    starter.stdin.flush()
    deadline = time.monotonic() + 60
    while not started.exists():
        assert starter.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)  # the server creates the file when it is ready
    port, pid = started.read_text().split()
    try:
        yield Server(port, requests)
    finally:
        os.kill(int(pid), signal.SIGTERM)
