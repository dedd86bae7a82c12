"""Write in the workers of gunicorn, one of which is killed; the application has no line for observation."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs


def application(environ, start_response):
    """Append to the table of the request, and answer with the process."""
    from jobs import load

    query = parse_qs(environ["QUERY_STRING"])
    process = load(query["folder"][0], query["name"][0])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(process).encode()]


def main(lake):
    folder = Path(lake, "process").absolute()
    for kind, options in {
        "sync": [],
        "threads": ["--threads", "2"],
        "preload": ["--preload"],
    }.items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "2",
             "--log-level", "critical", *options, "gunicorn_app:application"],
            cwd=Path(__file__).parent,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}/?folder={folder}&name={kind}"
            victim = request(address)
            os.kill(victim, signal.SIGKILL)
            processes = {request(address) for _ in range(4)}
            assert victim not in processes
        finally:
            server.terminate()
            server.wait(60)


def request(address):
    """Return the answer of the server, which may be starting a worker."""
    limit = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                return int(response.read())
        except (ConnectionError, urllib.error.URLError):
            assert time.monotonic() < limit
            time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
