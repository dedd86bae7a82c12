"""Run commands against an S3-compatible server on loopback, which is stopped at the end.

    python tools/with_s3.py [--weed PROGRAM] -- COMMAND...

With `--weed` the server is SeaweedFS (`weed server -s3`), otherwise moto. The command gets the variables that
delta-rs reads (`AWS_...`), and an empty bucket `lake`.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 60.0


def free_ports(number: int) -> list[int]:
    """Return free ports below 30000: SeaweedFS also uses each port plus 10000."""
    found: list[int] = []
    for port in range(21000 + os.getpid() % 5000, 30000):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        found.append(port)
        if len(found) == number:
            break
    return found


def create_bucket(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    """Create the bucket `lake`, once the server accepts requests."""
    request = urllib.request.Request(f"{endpoint}/lake", method="PUT")  # noqa: S310 - loopback
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - loopback
        except (OSError, urllib.error.URLError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the server does not start: {error}")
            time.sleep(0.1)  # it has no other sign that it is ready
        else:
            return


@contextmanager
def seaweedfs(program: str, folder: str) -> Iterator[str]:
    """Run SeaweedFS for the block and yield its endpoint; its data is in `folder`."""
    names = ("master.port", "volume.port", "filer.port", "s3.port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    arguments = [f"-{name}={port}" for name, port in ports.items()]
    arguments += [
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        "-s3",
        "-s3.port.iceberg=0",
    ]
    arguments.append("-s3.port.lance=0")
    arguments += ["-volume.max=20", "-master.volumeSizeLimitMB=64"]
    with Path(folder, "log").open("wb") as log:
        process = subprocess.Popen([program, "server", *arguments], stdout=log, stderr=log)  # noqa: S603 - the caller's program
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    try:
        create_bucket(endpoint, process)
        yield endpoint
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # it waits for its clients
            process.kill()
            process.wait()


@contextmanager
def moto(folder: str) -> Iterator[str]:
    """Run moto for the block and yield its endpoint."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from helpers.remote_parts import running_server  # noqa: PLC0415 - found by the line above

    with running_server(Path(folder)) as server:
        yield server.endpoint


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weed", help="path of the program `weed`")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="s3-") as folder:
        server = moto(folder) if arguments.weed is None else seaweedfs(arguments.weed, folder)
        with server as endpoint:
            variables = {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "any",
                "AWS_SECRET_ACCESS_KEY": "any",
                "AWS_REGION": "us-east-1",
            }
            done = subprocess.run(arguments.command, check=False, env=os.environ | variables)  # noqa: S603 - the caller's command
            return done.returncode


if __name__ == "__main__":
    sys.exit(main())
