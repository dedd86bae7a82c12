"""A Collector and a Prometheus as processes on this machine, with a demo load: `make stack`.

No container is needed. Programs can send to the Collector's default ports, 4317 (gRPC) and 4318 (HTTP).
Every ten seconds it prints the values of some panels of the dashboard. Ctrl-C ends all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc

ROOT = Path(__file__).parent.parent
FILES = ROOT / "collector"
BUILT = FILES / "_build"
PREFIX = "DELTAWITNESS_COLLECTOR_"
DEFAULT_PORTS = {
    "GRPC": 4317,
    "HTTP": 4318,
    "DELTAS": 4323,
    "PROMETHEUS": 8889,
    "SUMS": 8890,
    "SELF": 8888,
    "HEALTH": 13133,
    "BACKEND": 14317,
    "SERVER": 9090,
}
"""The ports of the Collector's configuration by the names of its variables; SERVER is Prometheus's."""

EVERY_S = 10.0
"""Seconds between two prints."""

SHOWN = (
    "Operations",
    "Rows",
    "Hit ratio of the cache",
    "Jobs with the most rows",
    "Tables with the most operations",
)
"""Titles of the panels whose values are printed."""


class StackError(Exception):
    """Why the processes cannot run, in one line."""


def program(variable: str, name: str, built: str) -> str:
    """Return the path of a program: of a variable, of PATH, or what `make collector` made.

    Raises:
        StackError: there is none.
    """
    found = os.environ.get(variable) or shutil.which(name)
    if found:
        return found
    if (BUILT / built).exists():
        return str(BUILT / built)
    msg = f"no {name}: run `make collector`, or set {variable}"
    raise StackError(msg)


class Accept(grpc.GenericRpcHandler):
    """Accepts every export: there is no backend for traces and logs."""

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return a handler with an empty response."""
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")


class Processes:
    """The processes, each with a log in a folder; they are ended in reverse order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, command: list[str], environ: dict[str, str]) -> None:
        """Start a process in a session, so that Ctrl-C reaches this program alone."""
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - the programs of `program`
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, **environ},
                start_new_session=True,
            )
        self._running.append((name, process))

    def check(self) -> None:
        """Raise StackError if a process has ended; the load may."""
        for name, process in self._running:
            if name != "load" and process.poll() is not None:
                lines = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()
                last = lines[-1] if lines else "no output"
                msg = f"{name} has ended with {process.returncode}: {last[-300:]}"
                raise StackError(msg)

    def stop(self) -> None:
        """End all processes, and wait for their ends."""
        for _, process in reversed(self._running):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def page(url: str) -> str:
    """Return a page of this machine; an empty text if there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            return str(answer.read().decode())
    except (OSError, urllib.error.URLError):
        return ""


def free_ports() -> dict[str, int]:
    """Return ports of loopback that are free now: they are bound at the same time, then closed."""
    with ExitStack() as bound:
        found = {}
        for name in DEFAULT_PORTS:
            one = bound.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found[name] = one.getsockname()[1]
    return found


def endpoints(ports: dict[str, int]) -> dict[str, str]:
    """Return the variables of the Collector that set its ports."""
    names = ("GRPC", "HTTP", "DELTAS", "PROMETHEUS", "SUMS", "HEALTH", "BACKEND")
    found = {f"{PREFIX}{name}_ENDPOINT": f"127.0.0.1:{ports[name]}" for name in names}
    return {**found, f"{PREFIX}SELF_HOST": "127.0.0.1", f"{PREFIX}SELF_PORT": str(ports["SELF"])}


def values(server: str, expression: str) -> dict[str, float]:
    """Return the values of a panel's query over the last hour."""
    query = expression.replace("$__interval", "1h").replace("$__range", "1h")
    query = urllib.parse.urlencode({"query": query.replace("$service", ".*")})
    answer = page(f"{server}/api/v1/query?{query}")
    found: list[dict[str, Any]] = json.loads(answer)["data"]["result"] if answer else []
    return {
        next(iter(one["metric"].values()), "all"): float(one["value"][1])
        for one in found
        if one["value"][1] != "NaN"
    }


def print_panels(server: str) -> None:
    """Print the values of the panels."""
    read = json.loads((FILES / "dashboards/delta-writes.json").read_text())
    for panel in read["panels"]:
        if panel["title"] in SHOWN:
            found = sorted(
                values(server, panel["targets"][0]["expr"]).items(), key=lambda one: -one[1]
            )
            text = ", ".join(f"{name} {value:,.6g}" for name, value in found) or "nothing yet"
            print(f"{panel['title']:<34}{text}", flush=True)
    print(flush=True)


def start_all(processes: Processes, folder: Path, ports: dict[str, int], jobs: int) -> None:
    """Start the Collector, Prometheus, and a load of some short jobs."""
    targets = [f"127.0.0.1:{ports[name]}" for name in ("PROMETHEUS", "SUMS", "SELF")]
    config = {
        "global": {"scrape_interval": "5s", "evaluation_interval": "15s"},
        "rule_files": [str(FILES / "alerts/deltawitness.rules.yaml")],
        "scrape_configs": [
            {
                "job_name": "collector",
                "honor_labels": True,
                "static_configs": [{"targets": targets}],
            }
        ],
    }
    # JSON is YAML.
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    otelcol = program("OTELCOL_BIN", "otelcol-contrib", "otelcol-deltawitness")
    server = program("PROMETHEUS_BIN", "prometheus", "prometheus/usr/bin/prometheus")
    processes.start(
        "collector",
        [otelcol, f"--config={FILES / 'config.yaml'}"],
        {
            **endpoints(ports),
            f"{PREFIX}QUEUE_DIR": str(folder / "queue"),
            f"{PREFIX}BACKEND_INSECURE": "true",
        },
    )
    processes.start(
        "prometheus",
        [
            server,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{ports['SERVER']}",
        ],
        {},
    )
    tick = threading.Event()
    health, server = (f"http://127.0.0.1:{ports[name]}" for name in ("HEALTH", "SERVER"))
    while not ("available" in page(f"{health}/") and page(f"{server}/-/ready")):
        processes.check()
        tick.wait(0.2)
    if jobs:
        load = [sys.executable, str(ROOT / "tests/programs/batch_jobs.py")]
        load += [f"http://127.0.0.1:{ports['HTTP']}"]
        load += [str(folder / "tables"), f"--jobs={jobs}", "--parallel=1", "--seconds=2"]
        processes.start(
            "load", load, {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
        )


def main() -> None:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--jobs", type=int, default=10_000, help="short jobs of the load; 0 for none"
    )
    parser.add_argument("--free-ports", action="store_true", help="not the default ports")
    options = parser.parse_args()
    ports = free_ports() if options.free_ports else DEFAULT_PORTS
    server = f"http://127.0.0.1:{ports['SERVER']}"
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    sink = grpc.server(futures.ThreadPoolExecutor(2), (Accept(),))
    with tempfile.TemporaryDirectory(prefix="deltawitness-stack-") as name:
        processes = Processes(Path(name))
        try:
            sink.add_insecure_port(f"127.0.0.1:{ports['BACKEND']}")
            sink.start()
            start_all(processes, Path(name), ports, options.jobs)
            otlp = f"http://127.0.0.1:{ports['HTTP']}"
            print(
                f"Prometheus: {server}   OTLP: {otlp}   logs: {name}   Ctrl-C ends all", flush=True
            )
            while not ended.wait(EVERY_S):
                processes.check()
                print_panels(server)
        except (StackError, RuntimeError) as error:
            sys.exit(f"stack: {error}")
        finally:
            processes.stop()
            sink.stop(0).wait()


if __name__ == "__main__":
    main()
